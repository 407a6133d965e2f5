"""What D-SINK adds to an epoch, from digits to ImageNet-LT's shapes: `python -m experiments.overhead`.

Times a training step of cross-entropy and of D-SINK on it in turn, with the auxiliaries' logits looked up and
with both auxiliaries run on the student's view. Images and logits are made up: only their shapes are those of
the data sets named, and a few batches of them stand for all.
"""

import contextlib
import dataclasses
import pathlib
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from dsink_jax.errors import InputError
from dsink_jax.flags import check_local_flags, read_flags
from dsink_jax.report import align, figures
from dsink_jax.report.canvas import MissingMatplotlibError
from experiments.benchmark.timing import alternate, ratio
from experiments.benchmark.workload import Stepper, Workload, one_device
from experiments.command_line import errors_for_people
from experiments.environments import COLUMN, environment_here, environments_in_words, identify, remember
from experiments.kept_rows import merged, read_measured, read_rows, write_rows
from experiments.output_folder import make_output, writing_output

FIELDS = (
    *("case", "examples", "classes", "batch", "training", "seconds_per_epoch"),
    *("of_base", "of_base_low", "of_base_high", "rounds"),
    *("step_megabytes", "kept_megabytes", COLUMN),
)
_FILE = "overhead.csv"
_KEY = ("case", "batch", "training")
_ROUNDS = 8  # of each case at least
_VECTORS = (2048,)
_IMAGENET_LT = 115_846  # images
_DIGITS = ((Workload("small_cnn", "digits, small CNN", 64, 256, 10, (8, 8, 1)), 544),)
_FEATURES = (
    (Workload("linear", "ImageNet-LT, linear on 2,048 features", 256, 1024, 1000, _VECTORS), _IMAGENET_LT),
    (Workload("linear", "ImageNet-LT, linear on 2,048 features", 1024, 4096, 1000, _VECTORS), _IMAGENET_LT),
    (Workload("mlp", "ImageNet-LT, MLP on 2,048 features", 256, 1024, 1000, _VECTORS), _IMAGENET_LT),
)
# Each with the training examples of the data set whose shape it has; the workload's own are a few batches.
CASES = {
    "small": _DIGITS,
    "cpu": (
        *_DIGITS,
        (Workload("resnet20", "CIFAR-10 ratio 10, ResNet-20", 128, 512), 20_431),
        (Workload("resnet20", "CIFAR-100 ratio 10, ResNet-20", 128, 512, 100), 19_573),
        *_FEATURES,
        (
            Workload("preact_resnet18", "ImageNet-LT, PreAct-ResNet-18", 16, 48, 1000, (64, 64, 3)),
            _IMAGENET_LT,
        ),
    ),
    "paper": (
        (Workload("preact_resnet18", "CIFAR-10 ratio 10, PreAct-ResNet-18", 64, 512), 20_431),
        (Workload("preact_resnet18", "CIFAR-100 ratio 10, PreAct-ResNet-18", 64, 512, 100), 19_573),
        *_FEATURES,
        (
            Workload(
                "preact_resnet18", "ImageNet-LT, PreAct-ResNet-18, 224 pixels", 64, 192, 1000, (224, 224, 3)
            ),
            _IMAGENET_LT,
        ),
    ),
}
TRAININGS = {
    "cross-entropy": "none",
    "D-SINK, logits looked up": "cached",
    "D-SINK, auxiliaries run": "online",
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """Measures what D-SINK adds to an epoch."""

    budget: Literal[tuple(CASES)] = "cpu"
    """small: the shape of digits. cpu: up to those of ImageNet-LT, as far as a few cores can. paper: CIFAR's
    and ImageNet-LT's, for an accelerator."""
    seconds: float = 30.0
    """Time for each case, at least eight rounds."""
    output: pathlib.Path = pathlib.Path("results/overhead")
    """Where overhead.csv and overhead.md go."""
    quick: bool = False
    """One round of the first case, to see that it works; writes nothing."""
    steps: Literal["all", "render"] = "all"
    """render: only write the table and draw the figure, from overhead.csv."""
    dry_run: bool = False
    """Print the cases and how long they take, and end."""

    def __post_init__(self):
        check_local_flags(self)
        if not 0 <= self.seconds < float("inf"):
            raise InputError(f"--seconds must be at least 0, got {self.seconds}.")


def measure(
    workload: Workload, examples: int, seconds: float, rounds: int = _ROUNDS
) -> list[dict[str, object]]:
    """Rows of one case: the trainings in turn, on one device."""
    steppers = {name: Stepper(workload, auxiliaries) for name, auxiliaries in TRAININGS.items()}
    times = alternate(steppers, rounds=rounds, seconds=seconds, at_most=200)
    base = times["cross-entropy"]
    steps = -(-examples // workload.batch_size)
    # Two tables of logits of the whole training set, float32, where they are looked up.
    logits = {"cached": 2 * 4 * examples * workload.num_classes}
    return [
        {
            "case": workload.title,
            "examples": examples,
            "classes": workload.num_classes,
            "batch": workload.batch_size,
            "training": name,
            "seconds_per_epoch": steps * statistics.median(times[name]),
            "of_base": ratio(times[name], base),
            "of_base_low": np.quantile(np.divide(times[name], base), 0.25),
            "of_base_high": np.quantile(np.divide(times[name], base), 0.75),
            "rounds": len(base),
            "step_megabytes": stepper.memory() / 1e6,
            "kept_megabytes": (stepper.kept() + logits.get(TRAININGS[name], 0)) / 1e6,
        }
        for name, stepper in steppers.items()
    ]


def write(folder: pathlib.Path, rows: list[dict[str, object]]) -> None:
    """Adds rows measured here and now to overhead.csv, over those of the same case there."""
    environment = environment_here(devices=one_device())
    remember(folder, [environment])
    made = pd.DataFrame(rows).assign(**{COLUMN: identify(environment)})
    write_rows(folder / _FILE, merged(read_rows(folder / _FILE, FIELDS), made, _KEY), "%.6g")


def render(folder: pathlib.Path) -> None:
    """Writes overhead.md and draws overhead.svg from overhead.csv.

    Raises:
      InputError: if there is no overhead.csv, or it is of something else.
    """
    rows = read_measured(folder / _FILE, FIELDS)
    head = ("case", "training", "s / epoch", "of base", "quartiles", "rounds", "MB in a step", "MB kept")
    table = [head]
    for row in rows.itertuples():
        first = row.training == "cross-entropy"
        case = f"{row.case}; M {row.examples:,}, C {row.classes}, batch {row.batch}"
        table.append(
            (
                case if first else "",
                row.training,
                f"{row.seconds_per_epoch:.3g}",
                f"{row.of_base:.2f}",
                "" if first else f"{row.of_base_low:.2f} to {row.of_base_high:.2f}",
                str(row.rounds),
                f"{row.step_megabytes:.1f}",
                f"{row.kept_megabytes:.1f}",
            )
        )
    lines = [
        "# What D-SINK adds to an epoch",
        "",
        "Made-up tensors of the shapes named. Seconds of an epoch: steps of an epoch times the median step, "
        "one device; `of base`: median over the rounds of the step's time next to cross-entropy's in the "
        "same round, with its quartiles. `MB in a step`: what the compiled step needs beside what it is "
        "given; `MB kept`: parameters, statistics and momentum of the network, with both auxiliaries' "
        "parameters where they are run, or their logits of the whole training set where they are looked up. "
        "Images are not in it, and training the two auxiliaries themselves is not: each costs about as much "
        "as the base.",
        "",
        f"By `python -m experiments.overhead` on {environments_in_words(folder, rows[COLUMN])}.",
        *("", "![time of an epoch next to cross-entropy's, for each case](overhead.svg)"),
        *("", "```", align(table, left=2), "```", ""),
    ]
    (folder / "overhead.md").write_text("\n".join(lines), encoding="utf-8")
    with contextlib.suppress(MissingMatplotlibError):
        draw(folder, rows)


def draw(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Draws overhead.svg."""
    ratios = rows.pivot_table("of_base", ["case", "batch"], "training", sort=False)
    values = {training: ratios[[training]].to_numpy().tolist() for training in TRAININGS}
    names = [f"{case}\nbatch {batch}" for case, batch in ratios.index]
    path, label = folder / "overhead.svg", "time of an epoch next to cross-entropy's"
    figures.points_figure(values, names, path, value_label=label, group_label="shapes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures from the command line.

    Args:
      arguments: the flags; those of this process if left out.
    """
    with errors_for_people():
        flags = read_flags(Flags, arguments, description=__doc__)
        seconds, rounds = (0.0, 1) if flags.quick else (flags.seconds, _ROUNDS)
        cases = CASES[flags.budget][: 1 if flags.quick else None]
        if flags.dry_run:
            for workload, examples in cases:
                print(f"{workload.case}: {examples:,} examples, {seconds:g} s or {rounds} rounds")
            return
        if flags.steps == "render":
            render(flags.output)
            return
        if not flags.quick:
            make_output(flags.output)
            read_rows(flags.output / _FILE, FIELDS)  # of another command? Then before hours of work
        for workload, examples in cases:
            rows = measure(workload, examples, seconds, rounds)
            looked_up, run = (row["of_base"] for row in rows[-2:])
            print(f"{workload.case}: {looked_up:.2f}, {run:.2f} of base", flush=True)
            if flags.quick:
                return
            with writing_output(flags.output):
                write(flags.output, rows)
                render(flags.output)
        print(flags.output / "overhead.md")


if __name__ == "__main__":
    main()
