"""A comparison on corrupted sets as vectors: its flags, and its results, which grow cell by cell."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dsink_jax.flags import check_local_flags
from experiments.cells import Table, grow
from experiments.embedded import check_data
from experiments.output_folder import writing_output
from experiments.seeds import check_seeds
from experiments.study import predictions
from experiments.study.budgets import Setting

KEPT = "kept"


@dataclasses.dataclass(frozen=True)
class CellFlags:
    """Which corrupted sets; a comparison adds `output`."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the corrupted sets and trainings; for CIFAR-10 the first three are taken."""
    data_dir: pathlib.Path | None = None
    """Folder with CIFAR-10 and its human labels; digits alone if left out."""

    def __post_init__(self):
        check_local_flags(self)
        check_seeds(self.seeds)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared on each corrupted set.

    Attributes:
      name: of its files.
      fields: of a row; `setting`, `seed` and `environment` among them.
      digits: corrupted sets of the digits.
      cifar: those of CIFAR-10.
      rows_in_a_cell: how many rows a corrupted set has when it is complete.
      compare: makes them, from a set and a seed. What they have under `KEPT` are arrays for the predictions
        of the corrupted set, see `predictions.keep`.
      float_format: of a number as it is written; all digits if None.
      packages: that rows are computed with beside what every run is.
      write_table: writes the tables into a folder, from all rows.
    """

    name: str
    fields: Sequence[str]
    digits: Sequence[Setting]
    cifar: Sequence[Setting]
    rows_in_a_cell: int
    compare: Callable[[Setting, int], Iterable[Mapping[str, Any]]]
    float_format: str | None
    packages: Sequence[str]
    write_table: Callable[[pathlib.Path, pd.DataFrame], None]


def run_cells(comparison: Comparison, flags: CellFlags, output: pathlib.Path) -> None:
    """Compares what is not in `output` yet, and writes the tables.

    Raises:
      InputError: if data is missing, before anything is trained, or if the rows there are of another command.
      StorageError: if something cannot be written.
    """
    cells = [(setting, seed) for seed in flags.seeds for setting in comparison.digits]
    if flags.data_dir is not None:
        check_data(comparison.cifar, flags.data_dir)
        cells += [(setting, seed) for seed in flags.seeds[:3] for setting in comparison.cifar]

    def compare(setting, seed):
        made = [dict(row) for row in comparison.compare(setting, seed)]
        found = {name: array for row in made for name, array in row.pop(KEPT, {}).items()}
        with writing_output(output):
            file = predictions.file_of(output, comparison.name, setting.name, seed)
            predictions.keep(file, found, anew=True)
        return made

    table = Table(
        comparison.name,
        comparison.fields,
        lambda name: comparison.rows_in_a_cell,
        comparison.float_format,
        comparison.packages,
        comparison.write_table,
    )
    grow(table, output, cells, compare)


def describe(rows: pd.DataFrame) -> str:
    """What the rows of one corrupted set are of."""
    seeds = sorted(set(rows["seed"]))
    return f"{rows['examples'].iloc[0]:,} examples, {100 * rows['wrong'].mean():.0f} % wrong, seeds {seeds}."
