"""Labels and features from a table: a `.csv` file."""

import csv
import pathlib
import re

import numpy as np

from dsink_jax.audit.labelled import Labelled, check_labels, numbered
from dsink_jax.errors import InputError, nearest

# Columns in which pandas keeps an index that was saved.
_INDEX = re.compile(r"(Unnamed: \d+(\.\d+)?)?")
_RESET_INDEX = {"index", "level_0"}
_NOT_FINITE = "which is no number or too large for float32"
_MISSING = "Fill in missing values, or leave out the lines or columns that have them."
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
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, [])]
            lines = [(rows.line_num, row) for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        hint = ""
        if "unexpected end" in str(error) or "expected after" in str(error):
            hint = ".\nA quote is opened and not closed as it should be: remove it, or double it"
        raise InputError(f"{path} cannot be read as a table: {error}{hint}") from None
    parameter = "label_columns" if label_columns else "label_column"
    for column in label_columns or (label_column,):
        if column not in header:
            raise InputError(f"{path} has no column {column!r}{_about(header, column, parameter)}")
    _check_header(path, header, (*label_columns, label_column, id_column))
    at_labels = [header.index(column) for column in label_columns or (label_column,)]
    if id_column != ID_COLUMN and id_column not in header:
        raise InputError(f"{path} has no column {id_column!r}{_about(header, id_column, 'id_column')}")
    # A column without a name is the index that pandas writes, under the name it gives when it reads it.
    unnamed = [i for i, name in enumerate(header) if _INDEX.fullmatch(name)]
    unnamed += [i for i, name in enumerate(header) if name in _RESET_INDEX and _tells_apart(lines, i, int)]
    of_ids = [i for i in unnamed if _tells_apart(lines, i, str) and i not in at_labels]
    at_id = header.index(id_column) if id_column in header else next(iter(of_ids), None)
    others = [i for i in range(len(header)) if i not in (*at_labels, at_id, *unnamed)]
    for number, row in lines:
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(row)} values for {len(header)} columns.")
        if broken := [header[i] for i, cell in enumerate(row) if "\n" in cell or "\r" in cell]:
            raise InputError(
                f"{path}, line {number}: column {broken[0]!r} holds a line break.\n"
                "A quote at the start of a value runs to the next one, over lines: remove it, or double it."
            )
        if separator is None and not all(row[i].strip() for i in at_labels):
            raise InputError(f"{path}, line {number}: there is no label. Leave out what is not labelled.")
    if not lines or not others:
        raise InputError(f"{path} must have numbers beside the labels, and at least one line of them.")
    inputs = np.empty((len(lines), len(others)), np.float64)
    for place, (number, row) in enumerate(lines):
        try:
            inputs[place] = [float(row[i]) for i in others]
        except ValueError:
            name, value = next((header[i], row[i]) for i in others if not _is_number(row[i]))
            if not value.strip():
                raise InputError(f"{path}, line {number}: column {name!r} is empty.\n{_MISSING}") from None
            raise InputError(
                f"{path}, line {number}: column {name!r} holds {value!r}, which is no number.\n"
                "All columns but the labels and id_column= must be features."
            ) from None
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(inputs.astype(np.float32)))
    if len(bad):
        place, column = bad[0]
        number, row = lines[place]
        name, value = header[others[column]], row[others[column]].strip()
        raise InputError(
            f"{path}, line {number}: column {name!r} holds {value!r}, {_NOT_FINITE}.\n{_MISSING}"
        )
    if counting := [header[i] for i, column in zip(others, inputs.T, strict=True) if _counts(column)]:
        raise InputError(
            f"{path}: column {counting[0]!r} numbers the lines, which is no feature.\n"
            "Leave it out, or name it with id_column=."
        )
    names = [str(place) if at_id is None else row[at_id] for place, (_, row) in enumerate(lines)]
    columns = tuple(header[i] for i in others)
    given = [[row[i].strip() for i in at_labels] for _, row in lines]
    if label_columns:
        indicators = _indicators(path, lines, given, label_columns)
        return Labelled(inputs, indicators, label_columns, tuple(names), columns)
    if separator is not None:
        indicators, of_labels = _split(path, [one for (one,) in given], separator)
        return Labelled(inputs, indicators, of_labels, tuple(names), columns)
    labels = [one for (one,) in given]
    check_labels(labels, lambda i: f"{path}, line {lines[i][0]}")
    return Labelled(inputs, *numbered(np.array(labels)), tuple(names), columns)


def _check_header(path, header, named):
    """Refuses columns that are there twice, as they are or as pandas names the second one."""
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    twice += [name for name in header if any(re.fullmatch(rf"{re.escape(one)}\.\d+", name) for one in named)]
    if twice:
        raise InputError(
            f"{path}: the column {re.sub(r'[.][0-9]+$', '', twice[0])!r} is there twice.\n"
            "Leave one out, or rename it: a copy of the labels among the features gives them away."
        )


def _tells_apart(lines, column, kind):
    """Whether every line has a value of its own in a column."""
    values = [row[column].strip() for _, row in lines if column < len(row)]
    try:
        return len({kind(value) for value in values}) == len(values) and all(values)
    except ValueError:
        return False


def _indicators(path, lines, given, columns):
    """Columns of 0 and 1."""
    for (number, _), row in zip(lines, given, strict=True):
        for column, value in zip(columns, row, strict=True):
            if not _is_number(value) or float(value) not in (0, 1):
                raise InputError(f"{path}, line {number}: column {column!r} must be 0 or 1, got {value!r}.")
    return _checked_indicators(
        path, np.array([[int(float(value)) for value in row] for row in given]), columns
    )


def _split(path, given, separator):
    """Indicators of labels that are written into one column, and their names in order."""
    each = [[name.strip() for name in text.split(separator) if name.strip()] for text in given]
    present = [name for row in each for name in row]
    if not present:
        raise InputError(f"{path}: no line has a label.")
    numbers, names = numbered(np.array(present))
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
    if (near := nearest(column, header)) is not None:
        return f". Did you mean {near!r}? Give {parameter}={near!r}."
    if len(header) == 1 and (mark := next((mark for mark in (";", "\t", "|") if mark in header[0]), None)):
        return f": its columns are parted by {mark!r}.\nSave it with commas between them."
    shown = ", ".join(header[:5] + ["..."] * (len(header) > 10) + header[5:][-5:])
    return f"; its first line says: {shown or 'nothing'}.\nName the right one with {parameter}=."


def _counts(column):
    """Whether it is integers one after the other, of more lines than could be so by chance."""
    return (
        len(column) > 9 and column[0] % 1 == 0 and np.array_equal(column - column[0], np.arange(len(column)))
    )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
