"""Rows of results in a CSV file that grows as they come."""

import csv
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

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


def write_rows(file: pathlib.Path, fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes the rows under their fields; see `write_lines`."""
    write_lines(file, [fields, *([row[name] for name in fields] for row in rows)])


def write_lines(file: pathlib.Path, lines: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file; what was there stays whole until it is.

    Raises:
      OSError: if it cannot be written.
    """
    partial = file.with_name(file.name + ".partial")
    with open(partial, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows(lines)
    os.replace(partial, file)
