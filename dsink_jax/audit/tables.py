"""Labels and features from a table: which of its columns are labels, ids, saved indexes, and features."""

import pathlib
import re

import numpy as np

from dsink_jax.audit.features import Features
from dsink_jax.audit.labelled import Labelled, check_labels, numbered_words
from dsink_jax.audit.table_files import open_table
from dsink_jax.audit.table_rows import TableFile
from dsink_jax.errors import InputError, nearest

# Columns in which pandas keeps an index that was saved.
_INDEX = re.compile(r"(Unnamed: \d+(\.\d+)?)?|__index_level_\d+__")
_RESET_INDEX = {"index", "level_0"}
LABEL_COLUMN = "label"
ID_COLUMN = "id"


def read_table(
    path: pathlib.Path,
    label_column: str,
    id_column: str,
    separator: str | None,
    label_columns: tuple[str, ...],
) -> Labelled:
    """Reads a table; see `dsink_jax.audit.read`."""
    file = open_table(path)
    header = file.names
    label_columns = tuple(name.strip() for name in label_columns)
    label_column, id_column = label_column.strip(), id_column.strip()
    parameter = "label_columns" if label_columns else "label_column"
    for column in label_columns or (label_column,):
        if column not in header:
            raise InputError(f"{path} has no column {column!r}{_about(header, column, parameter)}")
    _check_header(path, header, (*(label_columns or (label_column,)), id_column))
    at_labels = [header.index(column) for column in label_columns or (label_column,)]
    if id_column != ID_COLUMN and id_column not in header:
        raise InputError(f"{path} has no column {id_column!r}{_about(header, id_column, 'id_column')}")
    at_id = header.index(id_column) if id_column in header else None
    if at_id in at_labels:
        raise InputError(f"{path}: label and id are both to be {id_column!r}. Give another id_column=.")
    # A column without a name is the index that pandas writes, under the name it gives when it reads it.
    unnamed = [i for i, name in enumerate(header) if _INDEX.fullmatch(name) or i in file.index]
    perhaps = [i for i, name in enumerate(header) if name in _RESET_INDEX and i not in unnamed]
    aside = {*at_labels, *unnamed, *perhaps, *([] if at_id is None else [at_id])}
    if not [i for i in range(len(header)) if i not in aside or i in perhaps]:
        raise InputError(f"{path} must have numbers beside the labels, and at least one line of them.")
    file.scan()
    if not file.rows:
        raise InputError(f"{path} must have numbers beside the labels, and at least one line of them.")
    text = _text_of(file, aside)
    if separator is None:
        _check_labelled(path, file, [text[i] for i in at_labels])
    unnamed += [i for i in perhaps if _tells_apart(text[i], int)]
    of_ids = [i for i in unnamed if _tells_apart(text[i], str) and i not in at_labels]
    at_id = next(iter(of_ids), None) if at_id is None else at_id
    others = [i for i in range(len(header)) if i not in (*at_labels, at_id, *unnamed)]
    if not others:
        raise InputError(f"{path} must have numbers beside the labels, and at least one line of them.")
    inputs, columns, notes = _features(path, file, others)
    names, of_ids_note = _names(file, None if at_id is None else text[at_id])
    rest = names, columns, (*notes, *of_ids_note)
    given = [[value.strip() if value else "" for value in text[i]] for i in at_labels]
    if label_columns:
        return Labelled(inputs, _indicators(path, file, given, label_columns), label_columns, *rest)
    if separator is not None:
        indicators, of_labels = _split(path, given[0], separator)
        return Labelled(inputs, indicators, of_labels, *rest)
    check_labels(given[0], lambda i: f"{path}, {file.place(i)}")
    return Labelled(inputs, *numbered_words(given[0]), *rest)


def _text_of(file: TableFile, columns):
    """Words of some columns: those of each, with equal ones held once."""
    found: dict[int, list[str | None]] = {i: [] for i in columns}
    held: dict[str | None, str | None] = {}
    for batch in file.batches([*found], text=True):
        for values, new in zip(found.values(), batch, strict=True):
            values += [held.setdefault(value, value) for value in new.tolist()]
        if len(held) > file.rows:  # ids: nothing is held twice
            held.clear()
    return found


def _features(path, file, others):
    """The features, their names, and what is to be told; see `Features`."""
    categorical = [i in file.categorical for i in others]

    def collected(dtype):
        found = Features(
            *([file.names[i] for i in others], file.rows, categorical),
            lambda row, wrong: InputError(f"{path}, {file.place(row)}: {wrong}"),
            lambda row, number: file.written(row, others[number]),
            dtype,
        )
        start = 0
        for batch in file.batches(others, text=False):
            found.take(start, batch)
            start += len(batch[0])
        return found

    found = collected(None)
    if found.loses:
        found = collected(np.float64)
    try:
        return found.finish()
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: column {error}") from None


def _check_labelled(path, file, columns):
    for values in columns:
        for row, value in enumerate(values):
            if value is None or not value.strip():
                raise InputError(
                    f"{path}, {file.place(row)}: there is no label. Leave out what is not labelled."
                )


def _names(file, ids):
    """What the examples are called, and what is told of those without an id."""
    if ids is None:
        return tuple(map(str, range(file.rows))), ()
    names = tuple(value if value else file.place(row) for row, value in enumerate(ids))
    without = sum(not value for value in ids)
    told = f"{without:,} examples have no id, and are called by where they are."
    return names, ((told,) if without else ())


def _check_header(path, header, named):
    """Refuses columns that are there twice, as they are or as pandas names the second one.

    Of those that are asked for, `Label` is `label` again too.
    """
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    twice += [name for name in header if any(re.fullmatch(rf"{re.escape(one)}\.\d+", name) for one in named)]
    if not twice:
        there = [one for one in named if one in header]
        twice = [
            name for name in header for one in there if name != one and name.casefold() == one.casefold()
        ]
    if twice:
        raise InputError(
            f"{path}: the column {re.sub(r'[.][0-9]+$', '', twice[0])!r} is there twice.\n"
            "Leave one out, or rename it: a copy of the labels among the features gives them away."
        )


def _tells_apart(values, kind):
    """Whether every row has a value of its own in a column."""
    stripped = [value.strip() if value else "" for value in values]
    try:
        return len({kind(value) for value in stripped}) == len(stripped) and all(stripped)
    except ValueError:
        return False


def _indicators(path, file, given, columns):
    """Columns of 0 and 1, or of true and false."""
    found = np.empty((file.rows, len(columns)), np.int64)
    for at, (column, values) in enumerate(zip(columns, given, strict=True)):
        known = {value: _zero_or_one(value) for value in dict.fromkeys(values)}
        numbers = [known[value] for value in values]
        if None in numbers:
            row = numbers.index(None)
            raise InputError(
                f"{path}, {file.place(row)}: column {column!r} must be 0 or 1, got {values[row]!r}."
            )
        found[:, at] = numbers
    return _checked_indicators(path, found, columns)


def _zero_or_one(value):
    try:
        number = {"true": 1.0, "false": 0.0}.get(value.lower())
        number = float(value) if number is None else number
    except ValueError:
        return None
    return int(number) if number in (0, 1) else None


def _split(path, given, separator):
    """Indicators of labels that are written into one column, and their names in order."""
    each = [[name.strip() for name in text.split(separator) if name.strip()] for text in given]
    present = [name for row in each for name in row]
    if not present:
        raise InputError(f"{path}: no line has a label.")
    numbers, names = numbered_words(present)
    indicators = np.zeros((len(each), len(names)), np.int64)
    indicators[np.repeat(np.arange(len(each)), [len(row) for row in each]), numbers] = 1
    return _checked_indicators(path, indicators, names), names


def _checked_indicators(path, indicators, names):
    for number, what in ((0, "no line has"), (len(indicators), "every line has")):
        if len(same := np.flatnonzero(indicators.sum(0) == number)):
            raise InputError(
                f"{path}: {what} the label {names[same[0]]!r}, so that nothing can be learned of it."
            )
    return indicators.astype(np.int64)


def _about(header, column, parameter):
    """What there is instead of the column, and what to do."""
    if header and re.match(r"sep=.?$", header[0]):
        return (
            ": its first line is for a spreadsheet.\nLeave that line out, and put commas between the columns."
        )
    if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), None)):
        return (
            f": its columns are parted by {mark!r}.\nSave it with commas between them, and points in numbers."
        )
    if (near := nearest(column, header)) is not None and len(near) < 2 * len(column):
        return f". Did you mean {near!r}? Give {parameter}={near!r}."
    shown = ", ".join(header[:5] + ["..."] * (len(header) > 10) + header[5:][-5:])
    return f"; its first line says: {shown or 'nothing'}.\nName the right one with {parameter}=."
