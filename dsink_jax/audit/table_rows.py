"""What the kinds of files that hold tables have in common."""

import contextlib
import gzip
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError

NUMBERS_AT_ONCE = 2**17


class TableFile(Protocol):
    """A table in a file.

    Attributes:
      names: of its columns; there may be some twice.
      rows: how many there are, after `scan`.
      index: columns in which what wrote the file says that it kept an index.
      categorical: columns whose type says that they are categories.
    """

    names: list[str]
    rows: int
    index: Collection[int]
    categorical: Collection[int]

    def scan(self) -> None:
        """Looks whether every row has a value for every column, and counts them; raises `InputError`."""

    def batches(self, columns: Sequence[int], *, text: bool) -> Iterator[list[np.ndarray]]:
        """Some columns, a few rows at a time.

        Words as written, or None, `[m]`, if they are read as `text`; else numbers, `[m]` or `[m, width]`, or
        Python objects `[m]` as they are in the file, None where there is nothing.
        """

    def place(self, row: int) -> str:
        """What people call a row."""

    def written(self, row: int, column: int) -> str:
        """A value as it is written in the file."""


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Whatever goes wrong in a parser says which file it was."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}{_first_not_utf8(path)} cannot be read as a table: {error.reason}.\nSave it as UTF-8."
        ) from None
    except Exception as error:  # parsers raise many kinds for what is damaged or something else
        raise InputError(f"{path} cannot be read as a table: {first_line(error)}.") from error


def open_binary(path: pathlib.Path) -> Any:
    """The bytes of a file, unpacked if it is of gzip."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def _first_not_utf8(path):
    with contextlib.suppress(Exception), open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f", line {number}"
    return ""


def as_objects(values: Sequence[Any]) -> np.ndarray:
    """An array `[m]` of Python objects, whatever they are."""
    found = np.empty(len(values), object)
    for i, value in enumerate(values):  # at once NumPy would take lists for axes
        found[i] = value
    return found


def as_words(values: Sequence[Any]) -> np.ndarray:
    """Words, or None; what is no word is written as Python does."""
    return as_objects([None if value is None else _word(value) for value in values])


def _word(value):
    if isinstance(value, list | dict):
        raise ValueError("a label or an id is a list or an object, where a word or a number must be")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(value)
