"""Results that grow cell by cell: a set and a seed, whose rows are written as soon as they are there."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.environments import COLUMN, environment_here, identify, remember
from experiments.kept_rows import read_rows, write_rows
from experiments.output_folder import make_output, writing_output

Compare = Callable[[Any, int], Iterable[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of rows, and the page that shows them.

    Attributes:
      name: of its files.
      fields: of a row; `setting`, `seed` and `environment` among them.
      rows_in_a_cell: how many rows a set, by its name, has when it is complete.
      float_format: of a number as it is written; all digits if None.
      packages: that rows are computed with beside what every run is.
      write_table: writes the page into a folder, from all rows.
    """

    name: str
    fields: Sequence[str]
    rows_in_a_cell: Callable[[str], int]
    float_format: str | None
    packages: Sequence[str]
    write_table: Callable[[pathlib.Path, pd.DataFrame], None]

    def complete(self, rows: pd.DataFrame) -> set[tuple[str, int]]:
        """The sets and seeds of which all rows are there."""
        there = rows.groupby(["setting", "seed"]).size()
        return {place for place, count in there.items() if count == self.rows_in_a_cell(place[0])}


def grow(table: Table, output: pathlib.Path, cells: Iterable[tuple[Any, int]], compare: Compare) -> None:
    """Compares what is not in `output` yet, and writes the page.

    Args:
      table: which.
      output: where its files are.
      cells: sets, each with a `name`, and seeds.
      compare: makes the rows of a set and a seed.

    Raises:
      InputError: if the rows there are of another command.
      StorageError: if something cannot be written.
    """
    make_output(output)
    file = output / f"{table.name}.csv"
    rows = read_rows(file, table.fields)
    done = table.complete(rows)
    environment = environment_here(*table.packages)
    name = identify(environment)
    for one, seed in cells:
        if (one.name, seed) in done:
            continue
        print(f"{one.name} seed {seed}", flush=True)
        place = {"setting": one.name, "seed": seed, COLUMN: name}
        new = pd.DataFrame([row | place for row in compare(one, seed)])
        others = rows[(rows["setting"] != one.name) | (rows["seed"] != seed)]
        rows = pd.concat([others, new], ignore_index=True)[list(table.fields)].infer_objects()
        done.add((one.name, seed))
        with writing_output(output):
            remember(output, [environment])
            write_rows(file, rows, table.float_format)
    # From the file: a page that is drawn again, from rows that were rounded, is the same.
    rows = read_rows(file, table.fields)
    with writing_output(output):
        table.write_table(output, rows)
    print(output / f"{table.name}.md")
