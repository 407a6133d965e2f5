"""A comparison on corrupted sets as vectors: its flags, and its results, which grow cell by cell."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from dsink_jax.flags import check_local_flags
from experiments.embedded import check_data
from experiments.environments import COLUMN, environment_here, identify, remember
from experiments.kept_rows import read_rows, write_rows
from experiments.output_folder import make_output, writing_output
from experiments.seeds import check_seeds
from experiments.study.budgets import Setting

Row = Mapping[str, object]


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
      compare: makes them, from a set and a seed.
      text: a number as it is written.
      packages: that rows are computed with beside what every run is.
      write_table: writes the tables into a folder, from all rows.
    """

    name: str
    fields: Sequence[str]
    digits: Sequence[Setting]
    cifar: Sequence[Setting]
    rows_in_a_cell: int
    compare: Callable[[Setting, int], Iterable[Row]]
    text: Callable[[object], str]
    packages: Sequence[str]
    write_table: Callable[[pathlib.Path, list[dict[str, str]]], None]


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
    make_output(output)
    file = output / f"{comparison.name}.csv"
    rows = read_rows(file, comparison.fields)
    places = [(row["setting"], row["seed"]) for row in rows]
    done = {place for place in places if places.count(place) == comparison.rows_in_a_cell}
    rows = [row for row, place in zip(rows, places, strict=True) if place in done]
    environment = environment_here(*comparison.packages)
    name = identify(environment)
    for setting, seed in cells:
        place = {"setting": setting.name, "seed": str(seed)}
        if tuple(place.values()) in done:
            continue
        print(f"{setting.name} seed {seed}", flush=True)
        for row in comparison.compare(setting, seed):
            whole = {**place, **row, COLUMN: name}
            rows.append({field: comparison.text(whole.get(field, "")) for field in comparison.fields})
        done.add(tuple(place.values()))
        with writing_output(output):
            remember(output, [environment])
            write_rows(file, comparison.fields, rows)
    with writing_output(output):
        comparison.write_table(output, rows)
    print(output / f"{comparison.name}.md")
