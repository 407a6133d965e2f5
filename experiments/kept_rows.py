"""Rows of results in a CSV file that grows as they come."""

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence


def read_rows(file: pathlib.Path) -> list[dict[str, str]]:
    """The rows; none if there is no file."""
    if not file.exists():
        return []
    with open(file, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def write_rows(file: pathlib.Path, fields: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Writes the rows; what was there stays whole until they are."""
    unfinished = file.with_suffix(".tmp")
    with open(unfinished, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, file)
