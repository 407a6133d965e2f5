"""D-SINK on labels that nobody made wrong: `python -m experiments.study natural --data-dir DIR`.

Sets with two labels of each example, the ones that came with it and better ones. On features of a frozen
encoder D-SINK stands beside what people train on them first, on images beside its own parts; all are trained
and chosen without a better label. The same command goes on where it stopped.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax

from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import check_local_flags, read_flags
from experiments.cells import Table, grow
from experiments.command_line import errors_for_people
from experiments.compiled import keep_compiled
from experiments.environments import COLUMN
from experiments.kept_rows import read_measured
from experiments.natural import measures, predictions, table
from experiments.natural.data import SETS, NaturalSet
from experiments.natural.features import read_ready
from experiments.natural.models import Found, models_of, train_models
from experiments.natural.rivals import LOGISTIC, clean_learning, logistic_regression
from experiments.output_folder import writing_output
from experiments.seeds import check_seeds

ALL = "all"
_MEASURES = ("balanced_accuracy", "macro_f1", "accuracy")
FIELDS = (
    *("setting", "seed", "model", "examples", "wrong", "classes", *_MEASURES),
    *(*(f"tuning_{name}" for name in _MEASURES), "shares_off", "chosen", "seconds", COLUMN),
)


@dataclasses.dataclass(frozen=True)
class SetFlags:
    """Which natural sets, and where they are; a comparison adds `output`."""

    data_dir: pathlib.Path | None = None
    """Folder with the sets: claude9_weak, chemprot_weak and fer2013_ferplus in it or in its folder natural;
    CIFAR and its human labels in it."""
    sets: tuple[str, ...] = ("claude9", "chemprot")
    """Which sets, or all. Those of CIFAR and of faces take hours."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings and of what is drawn for choices."""
    features_dir: pathlib.Path = pathlib.Path("runs/features")
    """Where features are kept."""

    def __post_init__(self):
        check_local_flags(self)
        check_seeds(self.seeds)
        if importlib.util.find_spec("cleanlab") is None:
            raise InputError('cleanlab is not installed: pip install ".[experiments]".')

    def cells(self, known: Sequence[str]) -> list[tuple["Name", int]]:
        """The sets, of those that are known, and seeds to be done.

        Raises:
          InputError: for a set that is not known, or without a folder of data.
        """
        for name in self.sets:
            check_known("set", name, (*known, ALL))
        if self.data_dir is None:
            raise InputError("--data-dir is needed: the folder with the natural sets.")
        names = known if ALL in self.sets else list(dict.fromkeys(self.sets))
        return [(Name(name), seed) for name in names for seed in self.seeds]


class Name(NamedTuple):
    """A set by its name; it is read when it is needed."""

    name: str


@dataclasses.dataclass(frozen=True)
class Flags(SetFlags):
    """Compares D-SINK with rivals on natural sets."""

    steps: Literal["all", "render"] = "all"
    """render: only write the tables, from natural.csv and the predictions beside it."""
    output: pathlib.Path = pathlib.Path("results/natural")
    """Where natural.csv, natural.md and the predictions go."""


def contestants(name: str) -> tuple[str, ...]:
    """Names of all models on a set, in the order that they are trained in."""
    if SETS[name].encoder is None:
        return models_of(images=True)
    cleaned = (f"cleanlab, {one}" for one in LOGISTIC)
    return (*models_of(images=False), *LOGISTIC, *cleaned, table.ON_GOLD)


def compare(natural: NaturalSet, seed: int) -> Iterator[tuple[Found, float]]:
    """What each model predicts, and the seconds that it took.

    Those that `fit` trains together have their time with the first of them.
    """
    started = time.monotonic()
    for found in _all(natural, seed):
        yield found, time.monotonic() - started
        started = time.monotonic()


def _all(natural, seed):
    yield from train_models(natural, seed)
    if natural.is_images:
        return
    data = (natural.inputs, natural.given, natural.test_inputs, natural.num_classes)
    strengths = {}
    for name, class_weight in LOGISTIC.items():
        rival = logistic_regression(*data, class_weight=class_weight, seed=seed)
        strengths[name] = rival.chosen
        yield _found(name, rival)
    for name, class_weight in LOGISTIC.items():
        how = {"class_weight": class_weight, "seed": seed, "strength": strengths[name]}
        yield _found(f"cleanlab, {name}", clean_learning(*data, **how))
    data = (natural.inputs, natural.gold, natural.test_inputs, natural.num_classes)
    yield _found(table.ON_GOLD, logistic_regression(*data, class_weight="balanced", seed=seed))


def _found(name, rival):
    predicted = rival.probabilities.argmax(-1)
    return Found(name, predicted, predicted, f"C = {rival.chosen:g}")


def rows(natural: NaturalSet, seed: int, output: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Rows of a set and a seed; the predictions are written before the last of them is given."""
    wrong = float((natural.given != natural.gold).mean())
    facts = {"examples": len(natural.given), "wrong": wrong, "classes": natural.num_classes}
    true = natural.shares(natural.gold)
    kept = []
    for found, seconds in compare(natural, seed):
        kept.append(found)
        off = {} if found.shares is None else {"shares_off": measures.l1(found.shares, true)}
        yield {
            **facts,
            "model": found.model,
            **_measured(natural, found, ~natural.tuning),
            **{f"tuning_{name}": value for name, value in _measured(natural, found, natural.tuning).items()},
            **off,
            "chosen": found.chosen,
            "seconds": seconds,
        }
    with writing_output(output):
        predictions.write(predictions.path_of(output, natural.name, seed), natural, kept)


def _measured(natural, found, part):
    gold, balanced, estimated = natural.test_gold[part], found.balanced[part], found.estimated[part]
    return {
        "balanced_accuracy": measures.balanced_accuracy(gold, balanced),
        "macro_f1": measures.macro_f1(gold, estimated),
        "accuracy": measures.accuracy(gold, estimated),
    }


def render(folder: pathlib.Path) -> None:
    """Writes natural.md and its figure from natural.csv and the predictions beside it.

    Raises:
      InputError: if they are not there, or are of something else.
    """
    table.write_table(folder, read_measured(folder / "natural.csv", FIELDS))


def grow_sets(
    kept: Table,
    flags: Any,
    known: Sequence[str],
    compare: Callable[[NaturalSet, int], Iterable[Mapping[str, Any]]],
    prepare: Callable[[NaturalSet], NaturalSet] = lambda natural: natural,
) -> None:
    """Compares on natural sets what is not there yet, each read once for all its seeds; see `cells.grow`.

    Args:
      kept: the table that grows.
      flags: `SetFlags` with an `output`.
      known: names of the sets that there are.
      compare: makes the rows of a set and a seed.
      prepare: what is to be done to a set first.
    """

    @functools.lru_cache(maxsize=1)
    def read(name):
        return prepare(read_ready(name, flags.data_dir, flags.features_dir))

    def of_cell(named, seed):
        yield from compare(read(named.name), seed)
        jax.clear_caches()  # what was compiled for one cell is of no use to the next

    grow(kept, flags.output, flags.cells(known), of_cell)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison from the command line.

    Args:
      arguments: the flags; those of this process if left out.
    """
    with errors_for_people(), tempfile.TemporaryDirectory() as directory:
        flags = read_flags(Flags, arguments, description=__doc__)
        if flags.steps == "render":
            render(flags.output)
            return
        keep_compiled(directory)
        kept = Table(
            "natural",
            FIELDS,
            lambda name: len(contestants(name)) if name in SETS else 0,
            "%.6g",
            ("scikit-learn", "cleanlab"),
            table.write_table,
        )
        grow_sets(kept, flags, tuple(SETS), lambda natural, seed: rows(natural, seed, flags.output))


if __name__ == "__main__":
    main()
