"""Tables in files of text: values with delimiters between them, and a JSON object on every line."""

import array
import contextlib
import csv
import io
import itertools
import json
import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from dsink_jax.audit.arrow_tables import from_arrow
from dsink_jax.audit.table_rows import NUMBERS_AT_ONCE, as_objects, as_words, open_binary, reading
from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError
from dsink_jax.extras import needs

# What is parsed at once: so many bytes of text, and so many rows, as a block has a cost for each column.
_BLOCK = 2**19
_ROWS = 64


class _Text:
    """Lines of text of which each is a row, but for empty ones."""

    index: Collection[int] = ()
    categorical: Collection[int] = ()

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.rows = 0
        self._numbers = array.array("q")  # line of each row

    def _lines(self):
        """Number and text of every line with something on it."""
        with reading(self._path), open_binary(self._path) as file:
            for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
                if "\0" in line:
                    raise InputError(
                        f"{self._path}, line {number} cannot be read as a table: it holds a zero byte.\n"
                        "Save it as UTF-8."
                    )
                if line.strip(" \t\r\n") or (line.strip(" \r\n") and self._delimiter == "\t"):
                    yield number, line

    _delimiter = ","

    def place(self, row):
        return f"line {self._numbers[row]}"

    def _line(self, row):
        return next(line for number, line in self._lines() if number == self._numbers[row])


class Delimited(_Text):
    """A line of names, and lines of values with a delimiter between them."""

    def __init__(self, path: pathlib.Path, delimiter: str):
        super().__init__(path)
        self._delimiter = delimiter
        self.names = next(([name.strip() for name in self._cells(*line)] for line in self._lines()), [])
        self._words: set[int] = set()  # columns that have been seen to hold others than numbers

    def _rows(self):
        return itertools.islice(self._lines(), 1, None)

    def scan(self):
        """See `TableFile`."""
        self._numbers = array.array("q")
        for number, line in self._rows():
            # Most have no quotes, and counting delimiters is quick.
            count = len(self._cells(number, line)) if '"' in line else line.count(self._delimiter) + 1
            if count != len(self.names):
                raise InputError(
                    f"{self._path}, line {number}: {count} values for {len(self.names)} columns."
                )
            self._numbers.append(number)
        self.rows = len(self._numbers)

    def _cells(self, number, line):
        with contextlib.suppress(csv.Error):
            return next(csv.reader([line.rstrip("\n")], delimiter=self._delimiter, strict=True))
        raise self._error_of_quotes(number)

    def _error_of_quotes(self, number):
        """What is wrong with a line that no cell ends on."""
        lines = (line for at, line in self._lines() if at >= number)
        try:
            row = next(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            return InputError(
                f"{self._path}, line {number} cannot be read as a table: {error}.\n"
                "A quote is opened and not closed as it should be: remove it, or double it."
            )
        broken = next((i for i, cell in enumerate(row) if "\n" in cell), 0)
        names = getattr(self, "names", [])
        column = f"column {names[broken]!r}" if broken < len(names) else "a value"
        return InputError(
            f"{self._path}, line {number}: {column} holds a line break.\n"
            "A quote at the start of a value runs to the next one, over lines: remove it, or double it."
        )

    def batches(self, columns, *, text):
        """See `TableFile`."""
        rows = self._rows()
        while lines := _some(rows):
            count, content = len(lines), "".join(lines).encode()
            del lines
            with reading(self._path):
                table = self._parsed(content, columns, text)
                if len(table) != count:
                    raise InputError(f"{self._path} cannot be read as a table: not every line is a row.")
                found = [from_arrow(one, "", text=text) for one in table.columns]
            del table
            yield found

    def _parsed(self, content, columns, text):
        """Columns of numbers where they are, else of words."""
        with needs("audit", "Reading a table"):
            import pyarrow as pa

        if text:
            return self._table(content, columns, set(columns))
        try:
            return self._table(content, columns, self._words)
        except pa.ArrowInvalid:  # there are words in a column of numbers: which?
            for i in set(columns) - self._words:
                try:
                    self._table(content, [i], ())
                except pa.ArrowInvalid:
                    self._words.add(i)
            return self._table(content, columns, self._words)

    def _table(self, content, columns, words):
        with needs("audit", "Reading a table"):
            import pyarrow as pa
            from pyarrow import csv as arrow_csv

        names = [str(i) for i in range(len(self.names))]
        types = {names[i]: pa.string() if i in words else pa.float64() for i in columns}
        return arrow_csv.read_csv(
            pa.BufferReader(content),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, block_size=max(len(content), 1) + 1
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=self._delimiter),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types,
                null_values=[],
                include_columns=[names[i] for i in columns],
            ),
            memory_pool=pa.system_memory_pool(),  # which gives back what is no longer needed
        )

    def written(self, row, column):
        """See `TableFile`."""
        return self._cells(self._numbers[row], self._line(row))[column]


def _some(rows):
    """Texts of the next lines, each with its end."""
    lines, size = [], 0
    for _, line in rows:
        lines.append(line if line.endswith("\n") else line + "\n")
        size += len(line)
        if size >= _BLOCK and len(lines) >= _ROWS:
            break
    return lines


class JsonLines(_Text):
    """A JSON object on every line; the first says which columns there are."""

    def __init__(self, path: pathlib.Path):
        super().__init__(path)
        first: list[Any] = next((self._pairs(*line) for line in self._lines()), [])
        self.names = [name.strip() for name, _ in first]
        self._at = {name: i for i, (name, _) in enumerate(first)}

    def scan(self):
        """See `TableFile`."""
        self._numbers = array.array("q", (number for number, _ in self._lines()))
        self.rows = len(self._numbers)

    def _pairs(self, number, line):
        try:
            found = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self._path}, line {number} cannot be read as a table: {first_line(error)}.\n"
                'Every line must be a JSON object, such as {"x": 1.5, "label": "cat"}.'
            ) from None
        if not isinstance(found, _Pairs):
            raise InputError(
                f'{self._path}, line {number} must be a JSON object, such as {{"x": 1.5, "label": "cat"}}.'
            )
        return found

    def _values(self, number, line):
        values = [None] * len(self.names)
        seen = set()
        for name, value in self._pairs(number, line):
            if name not in self._at:
                raise InputError(
                    f"{self._path}, line {number}: there is {name!r}, which the first line has not.\n"
                    "All lines must have the same names."
                )
            if name in seen:
                raise InputError(f"{self._path}, line {number}: {name!r} is there twice. Leave one out.")
            seen.add(name)
            values[self._at[name]] = value
        return values

    def batches(self, columns, *, text):
        """See `TableFile`."""
        lines = self._lines()
        at_once = max(NUMBERS_AT_ONCE // max(len(self.names), 1), 1)
        while rows := [self._values(*line) for line in itertools.islice(lines, at_once)]:
            with reading(self._path):
                found = [(as_words if text else _as_column)([row[i] for row in rows]) for i in columns]
            yield found

    def written(self, row, column):
        """See `TableFile`."""
        value = self._values(self._numbers[row], self._line(row))[column]
        return value if isinstance(value, str) else json.dumps(value)


class _Pairs(list):
    """A JSON object, as pairs of name and value."""


def _as_column(values):
    """Numbers if all are; vectors if all are lists of as many numbers; else objects."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values)
    if kinds <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.array(values, np.float64)
    if kinds == {list} and not any(isinstance(value, bool) for row in values for value in row):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            found = np.array(values, np.float64)
            if found.ndim == 2 and found.shape[1]:
                return found
    return as_objects(values)
