"""Rows of results in a CSV file that grows as they come."""

import contextlib
import csv
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from dsink_jax.errors import InputError


def read_rows(file: pathlib.Path, fields: Sequence[str]) -> list[dict[str, str]]:
    """The rows; none if there is no file.

    Raises:
      InputError: if it cannot be read, or has other fields.
    """
    try:
        with open(file, newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}. Give another --output.") from error
    if reader.fieldnames is None or list(reader.fieldnames) != list(fields):
        raise InputError(f"{file} is not of this command: its first line is another. Give another --output.")
    return rows


def read_measured(file: pathlib.Path, fields: Sequence[str]) -> list[dict[str, str]]:
    """The rows, which there must be: for a command that draws what it has measured before.

    Raises:
      InputError: if there are none, or they cannot be read, or have other fields.
    """
    rows = read_rows(file, fields)
    if not rows:
        raise InputError(f"There is no {file.name} in {file.parent}: leave --steps out to measure.")
    return rows


def write_rows(file: pathlib.Path, fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes the rows under their fields; see `write_lines`."""
    write_lines(file, [fields, *([row[name] for name in fields] for row in rows)])


def write_lines(file: pathlib.Path, lines: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file; what was there stays whole until it is.

    Raises:
      OSError: if it cannot be written.
    """
    with replacing(file) as handle:
        csv.writer(handle, lineterminator="\n").writerows(lines)


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[TextIO]:
    """A text file to write; what was there stays whole until it is.

    Raises:
      OSError: if it cannot be written.
    """
    partial = file.with_name(file.name + ".partial")
    with open(partial, "w", newline="", encoding="utf-8") as handle:
        yield handle
    os.replace(partial, file)
