"""Features of a table: numbers as they are, true and false as 1 and 0, and a feature for each category."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from dsink_jax.audit.labelled import says_missing
from dsink_jax.errors import InputError
from dsink_jax.estimator.inputs import differs_little

MISSING = "Fill in missing values, or leave out the lines or columns that have them."
_NOT_FINITE = "which is no number or too large for float32"
_ALL_FEATURES = "All columns but the labels and id_column= must be features."
_MOST_CATEGORIES = 100
_FEW_ROWS = 20  # in which every category may be there once
# Numbers that are written otherwise, and numbers with a unit: no categories.
_LIKE_A_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[\W_]*\d[\d\W_]*[^\W\d_]{0,3}")
_FLAGS = {"true": 1.0, "false": 0.0}
_NUMBER, _FLAG, _VECTOR, _WORDS = "number", "flag", "vector", "words"
# From so many numbers on they are kept as float32, which is what they are trained on, if that holds them.
_MANY = 2**20


class _Feature:
    """What is known of a column so far."""

    def __init__(self, name):
        self.name, self.kind, self.width, self.start = name, "", 1, 0
        self.codes: dict[str, int] = {}
        self.of_rows: np.ndarray | None = None  # category of each row


class _Bad(Exception):  # noqa: N818
    """A value that is no feature: its position and what is wrong."""

    def __init__(self, position, wrong):
        super().__init__(position, wrong)
        self.position, self.wrong = position, wrong


class Features:
    """Collects the features of a table, some rows at a time.

    Numbers are put into one array from the start, so that they are held once.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: int,
        categorical: Sequence[bool],
        refuse: Callable[[int, str], InputError],
        written: Callable[[int, int], str],
        dtype: type | None = None,
    ):
        """Takes names of the columns, whether each is a category by its type, and how to name a value.

        Args:
          names: of the columns.
          rows: how many there will be.
          categorical: of each column, whether its type says that it is a category.
          refuse: makes an error of a row and what is wrong.
          written: the value of a row and column, as written.
          dtype: type of the numbers; None for float32 if there are many, else float64.
        """
        self._columns = [_Feature(name) for name in names]
        self._rows, self._categorical, self._refuse, self._written = rows, categorical, refuse, written
        self._inputs: np.ndarray | None = None
        self._dtype = dtype
        self._first: list[np.ndarray] = []
        self._sum = self._low = self._high = np.zeros(0)

    def take(self, start: int, batch: Sequence[np.ndarray]) -> None:
        """Takes the columns of the rows from `start` on, as `TableFile.batches` gives them.

        Raises:
          InputError: for what is no feature.
        """
        taken = []
        for number, (column, values) in enumerate(zip(self._columns, batch, strict=True)):
            try:
                kind, found = _understood(values, categorical=self._categorical[number])
                if column.kind and (kind, found.shape[1:]) != (column.kind, self._first[number].shape[1:]):
                    raise self._mixed(number, kind, values)
            except _Bad as bad:
                raise self._bad(start + bad.position, number, bad.wrong) from None
            column.kind = kind
            taken.append(found)
        if self._inputs is None:
            self._first = [found[:0] for found in taken]
            self._allocate()
        assert self._inputs is not None
        stop = start + len(taken[0]) if taken else start
        block = np.empty((stop - start, self._inputs.shape[1]), np.float64)
        for column, found in zip(self._columns, taken, strict=True):
            if column.kind == _WORDS:
                assert column.of_rows is not None
                column.of_rows[start:stop] = [column.codes.setdefault(v, len(column.codes)) for v in found]
            else:
                block[:, column.start : column.start + column.width] = found.reshape(len(found), -1)
        self._check_finite(start, block)
        self._sum = self._sum + block.sum(0)
        self._low = np.minimum(self._low, block.min(0, initial=np.inf))
        self._high = np.maximum(self._high, block.max(0, initial=-np.inf))
        self._inputs[start:stop] = block

    def _mixed(self, number, kind, values):
        """What is wrong with a column that held something else before: its first word, if it holds any."""
        column = self._columns[number]
        if kind == _WORDS:
            return _Bad(0, _no_number(str(values[0]).strip()))
        if column.kind == _WORDS:
            return self._bad(0, number, _no_number(next(iter(column.codes))))
        return _Bad(0, f"holds a {kind} here and a {column.kind} before.\n{_ALL_FEATURES}")

    def _allocate(self):
        at = 0
        for column, first in zip(self._columns, self._first, strict=True):
            if column.kind == _WORDS:
                column.of_rows = np.empty(self._rows, np.int32)
                continue
            column.width = int(np.prod(first.shape[1:]))
            column.start, at = at, at + column.width
        if self._dtype is None:
            self._dtype = np.float32 if self._rows * at >= _MANY else np.float64
        self._inputs = np.empty((self._rows, at), self._dtype)
        self._sum, self._low, self._high = np.zeros(at), np.full(at, np.inf), np.full(at, -np.inf)

    def _check_finite(self, start, block):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(block.astype(np.float32))
        if bad.any():
            row, place = np.argwhere(bad)[0]
            number = next(
                i
                for i, column in enumerate(self._columns)
                if column.kind != _WORDS and column.start <= place < column.start + column.width
            )
            raise self._bad(start + int(row), number, None)

    def _bad(self, row, number, wrong):
        name = self._columns[number].name
        if wrong is not None:
            return self._refuse(row, f"column {name!r} {wrong}")
        written = self._written(row, number).strip()
        shown = written if len(written) < 60 else written[:60] + "..."
        return self._refuse(row, f"column {name!r} holds {shown!r}, {_NOT_FINITE}.\n{MISSING}")

    @property
    def loses(self) -> bool:
        """Whether float32 does not hold how some numbers differ: then take all again as float64."""
        if self._dtype is np.float64 or not self._rows:
            return False
        return bool(differs_little(self._sum / self._rows, self._low, self._high).any())

    def finish(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """The features `[M, D]`, D names, and sentences on what was made of words.

        Raises:
          InputError: for words that are no categories, or a column that numbers the rows.
        """
        assert self._inputs is not None
        parts, names = [], []
        for column in self._columns:
            if column.kind == _WORDS:
                self._check_categories(column)
                order = sorted(column.codes)
                of_code = np.empty(len(order), np.int64)
                of_code[[column.codes[word] for word in order]] = np.arange(len(order))
                parts.append((of_code[column.of_rows][:, None] == np.arange(len(order))).astype(self._dtype))
                names += [f"{column.name}={word}" for word in order]
                continue
            part = self._inputs[:, column.start : column.start + column.width]
            if column.kind == _NUMBER and _counts(part[:, 0]):
                raise InputError(
                    f"{column.name!r} numbers the lines, which is no feature.\n"
                    "Leave it out, or name it with id_column=."
                )
            parts.append(part)
            one = [column.name] if column.kind != _VECTOR else None
            names += one or [f"{column.name}[{i}]" for i in range(column.width)]
        words = [column for column in self._columns if column.kind == _WORDS]
        inputs = np.concatenate(parts, axis=1) if words else self._inputs
        if not words:
            return inputs, tuple(names), ()
        shown = ", ".join(f"{column.name!r} ({len(column.codes)})" for column in words[:10])
        more = f" and {len(words) - 10} more" if len(words) > 10 else ""
        note = f"Columns of words are taken as categories, each a feature of 0 and 1: {shown}{more}."
        return inputs, tuple(names), (note,)

    def _check_categories(self, column):
        number = self._columns.index(column)
        first = next(iter(column.codes))
        if self._categorical[number]:
            return
        if all(_LIKE_A_NUMBER.fullmatch(word) for word in column.codes):
            raise self._bad(0, number, _no_number(first))
        count = len(column.codes)
        if count > _MOST_CATEGORIES or (self._rows >= _FEW_ROWS and count > self._rows / 2):
            raise self._bad(
                0,
                number,
                f"holds {first[:60]!r}, and {count:,} different words in all, too many for categories.\n"
                "Leave it out, or name it with id_column=.",
            )


def _counts(column):
    """Whether it is integers one after the other, of more lines than could be so by chance."""
    return len(column) > 9 and column[0] % 1 == 0 and bool((np.diff(column) == 1).all())


def _understood(values, *, categorical):
    """The kind of some values of a column and what they are: float64 `[m]` or `[m, width]`, or words."""
    if values.dtype != object and not (categorical and values.ndim == 1):
        kind = _VECTOR if values.ndim == 2 else _FLAG if values.dtype == bool else _NUMBER
        return kind, values
    words = [value.strip() if isinstance(value, str) else value for value in values.tolist()]
    for position, word in enumerate(words):
        if word is None or (isinstance(word, str) and not word):
            raise _Bad(position, f"is empty.\n{MISSING}")
    for position, word in enumerate(words):
        if isinstance(word, list | dict):
            raise _Bad(position, f"holds a list or an object, which is no number.\n{_ALL_FEATURES}")
        if isinstance(word, str) and says_missing(word):
            raise _Bad(position, None)
    known = {word: _as_number(word) for word in dict.fromkeys(words) if not isinstance(word, bool)}
    is_number = [not isinstance(word, bool) and known[word] is not None for word in words]
    if categorical or not any(is_number):
        flags = [_FLAGS.get(str(word).lower()) for word in words]
        if not categorical and None not in flags:
            return _FLAG, np.array(flags, np.float64)
        return _WORDS, np.array([str(word) for word in words], object)
    if all(is_number):
        return _NUMBER, np.array([known[word] for word in words], np.float64)
    position = is_number.index(False)
    raise _Bad(position, _no_number(words[position]))


def _no_number(word):
    shown = word[:60] + "..." if isinstance(word, str) and len(word) > 60 else word
    return f"holds {shown!r}, which is no number.\n{_ALL_FEATURES}"


def _as_number(word):
    try:
        return float(word)
    except OverflowError:
        return float("inf")
    except (ValueError, TypeError):
        return None
