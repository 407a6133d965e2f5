"""Every question about D-SINK as one command.

    python -m experiments.study main                      # on embedded digits
    python -m experiments.study main --budget cpu --jobs 2 --data-dir DIR   # real CIFAR on CPU cores
    python -m experiments.study main --budget paper --data-dir DIR          # the full protocol
    python -m experiments.study main --dry-run            # what would be trained, and for how long
    python -m experiments.study all --steps render        # all tables and figures anew, from the CSV files
    python -m experiments.study overhead --help           # what D-SINK adds to an epoch: trains nothing
    python -m experiments.study natural --data-dir DIR    # sets whose labels are wrong by themselves
    python -m experiments.study natural-audit --data-dir DIR  # and which of these labels are found
    python -m experiments.study open-set --data-dir DIR   # examples of no class in the training set

trains what is missing under --runs-dir, adds the numbers to results/STUDY/*.csv and draws tables and figures
from those files. The same command again goes on where it stopped; studies share what they have in common.
Where a corrupted set cannot be had or a training diverges, the rest is done and shown, and the command ends
with what failed.
"""

import dataclasses
import importlib
import pathlib
import sys
import time
from typing import Annotated, Literal

import jax
import pandas as pd
import tyro

from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import check_local_flags, read_flags
from dsink_jax.training import TrainingDivergedError
from experiments.command_line import as_told, errors_for_people, stopping_when_asked
from experiments.compiled import keep_compiled
from experiments.output_folder import make_output, writing_output
from experiments.seeds import check_seeds
from experiments.study import jobs, records, render
from experiments.study.budgets import BUDGETS
from experiments.study.catalogue import STUDIES
from experiments.study.measurements import MEASUREMENTS, opened
from experiments.study.runs import make_cells, progress, stored, train
from experiments.study.sources import cannot_be_had, not_here, source_of

Steps = Literal["all", "train", "gather", "render"]
ALL = "all"
# Measured by commands of their own, the file of their numbers and the module; drawn with the studies.
_OTHERS = {
    "overhead": ("overhead.csv", "experiments.overhead"),
    "solver-accuracy": ("accuracy.csv", "experiments.solver_accuracy"),
    "natural": ("natural.csv", "experiments.natural.command"),
    "natural-audit": ("natural-audit.csv", "experiments.natural.audit"),
    "open-set": ("open-set.csv", "experiments.natural.open_set"),
}
_WITH_OWN_FLAGS = {name: module for name, (_, module) in _OTHERS.items() if name != "solver-accuracy"}


@dataclasses.dataclass(frozen=True)
class Flags:
    """Runs one study, or goes on with it."""

    study: Annotated[Literal[(*STUDIES, ALL)], tyro.conf.Positional]
    """Which study; all for all that have the budget, one after the other."""
    budget: Literal[tuple(BUDGETS)] = "small"
    """small: scikit-learn's digits. cpu: real CIFAR on a few cores. paper: the full protocol."""
    seeds: tuple[int, ...] = ()
    """Seeds, each for the corrupted set and the training; default 0 to 4 for small, 0 to 2 for the others."""
    settings: tuple[str, ...] = ()
    """Only these corrupted sets, by the names that --dry-run prints; default all of the study."""
    jobs: int = 1
    """Cells to train at once, each in its own process with its share of the cores, or its GPU."""
    dry_run: bool = False
    """Print the cells, what of them is done and the estimated time, and end."""
    steps: Steps = "all"
    """train: only train. gather: only add what is trained to the CSV files, even while another command
    trains. render: only draw tables and figures from the CSV files, for which no run is needed."""
    data_dir: pathlib.Path | None = None
    """Folder with the data sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    runs_dir: pathlib.Path = pathlib.Path("runs/studies")
    """Where the runs are; all studies share them."""
    output: pathlib.Path = pathlib.Path("results")
    """Where the folder of each study goes."""

    def __post_init__(self):
        check_local_flags(self)
        check_seeds(self.all_seeds)
        if self.steps == "render" and (self.settings or self.dry_run):
            flag = "--settings" if self.settings else "--dry-run"
            raise InputError(f"{flag} does not go with --steps render, which draws all that is in the files.")
        if self.jobs < 1:
            raise InputError(f"--jobs must be at least 1, got {self.jobs}.")
        if self.study == ALL:
            if self.settings:
                raise InputError("--settings goes with one study: name it instead of all.")
            return
        if self.steps == "render":  # what there is of any budget
            return
        known = STUDIES[self.study].settings
        if self.budget not in known:
            raise InputError(f"{self.study} has no --budget {self.budget}. It has: {', '.join(known)}.")
        for name in self.settings:
            check_known("setting", name, [one.name for one in known[self.budget]])

    @property
    def each(self) -> list["Flags"]:
        """The same flags for each study that is asked for."""
        if self.study != ALL:
            return [self]
        if self.steps == "render":
            names = [name for name in STUDIES if (self.output / name / "results.csv").exists()]
        else:
            names = [name for name, study in STUDIES.items() if self.budget in study.settings]
        return [dataclasses.replace(self, study=name) for name in names]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to run."""
        return self.seeds or BUDGETS[self.budget].seeds

    @property
    def folder(self) -> pathlib.Path:
        """Where the results of the study go."""
        return self.output / self.study


def main() -> None:
    """Runs a study from the command line."""
    if sys.argv[1:2] and (module := _WITH_OWN_FLAGS.get(sys.argv[1])):
        importlib.import_module(module).main(sys.argv[2:])
        return
    with errors_for_people(), stopping_when_asked() as should_stop:
        asked = read_flags(Flags, description=__doc__)
        failed: list[Exception] = []
        tried = 0
        for flags in asked.each:
            if asked.study == ALL:
                print(f"\n=== {flags.study}")
            errors, cells = _run(flags, should_stop)
            failed, tried = failed + errors, tried + cells
        if asked.study == ALL and asked.steps == "render":
            for name, (file, module) in _OTHERS.items():
                if (asked.output / name / file).exists():
                    importlib.import_module(module).render(asked.output / name)
        if failed:
            count = f"{len(failed)} of {tried} cells failed"
            first = str(failed[0]).replace("\n", " ")
            raise type(failed[0])(f"{count}{', the others are done' * (len(failed) < tried)}. {first}")


def _run(flags, should_stop):
    """Does one study as far as it can be done; returns the errors of its cells, and how many it has."""
    study = STUDIES[flags.study]
    place = flags.settings, flags.all_seeds, flags.runs_dir, flags.data_dir
    cells = [] if flags.steps == "render" else make_cells(study, flags.budget, *place)
    if flags.dry_run:
        print(describe(flags, cells))
        return [], len(cells)
    make_output(flags.folder)
    keep_compiled(flags.runs_dir / "compiled")
    failed = _train(flags, cells, should_stop) if flags.steps in ("all", "train") else []
    if failed and not any(map(stored, cells)):
        return failed, len(cells)
    with writing_output(flags.folder):
        if flags.steps in ("all", "gather"):
            for name in records.gather(flags.folder, flags.budget, cells):
                print(f"{name}: its results are of another run that had more models; they stay.")
            _measure(flags, study, cells, should_stop)
        if flags.steps != "train":
            print(f"\n{render.render(flags.folder, study, flags.study)}")
    return failed, len(cells)


def describe(flags: Flags, cells: list) -> str:
    """The cells of a study, what of them is done, and how long the rest will take."""
    lines = []
    for cell in cells:
        results = stored(cell)
        done = set() if results is None else set(results["models"])
        left = [model.name for model in cell.models if model.name not in done]
        lines.append(f"{cell.name}: {len(done)} of {len(cell.models)} models trained")
        if left:
            seconds = progress([cell], cells).seconds_left
            lines.append(f"    to do, about {_duration(seconds)}: {', '.join(left)}")
    return "\n".join([*lines, _how_far(flags, cells), *_doubts(flags, cells), *not_here(cells)])


def _doubts(flags, cells):
    """What a time is worth that no training here has confirmed."""
    budget = BUDGETS[flags.budget]
    if any(stored(cell) for cell in cells):
        return []
    if budget.measured_on is None:
        return [f"These times are a guess: nothing was measured with --budget {flags.budget} yet."]
    return [f"These times are those of {budget.measured_on}: nothing is trained here yet."]


def _train(flags, cells, should_stop):
    missing = cannot_be_had(cells)
    for error in {str(error): error for error in missing.values()}:
        print(f"failed: {as_told(error)}", flush=True)
    bad = [cell for cell in cells if source_of(cell) in missing]
    good = [cell for cell in cells if source_of(cell) not in missing]
    failed = [InputError(f"{cell.name}: {missing[source_of(cell)]}") for cell in bad]
    return failed + _train_each(flags, good, should_stop)


def _train_each(flags, cells, should_stop):
    if flags.jobs == 1:
        failed = []
        for cell in cells:
            print(f"\n== {cell.name}")
            try:
                train(cell, should_stop)
            except (InputError, TrainingDivergedError) as error:
                print(f"failed: {error}")
                failed.append(type(error)(f"{cell.name}: {error}"))
            print(_how_far(flags, cells), flush=True)
            jax.clear_caches()  # what was compiled for one cell is of no use to the next, and adds up
        return failed
    said = None

    def tell():
        nonlocal said
        now = progress(cells).done
        if now != said:
            said = now
            print(f"{time.strftime('%H:%M')}  {_how_far(flags, cells)}", flush=True)

    return [
        InputError(message)
        for message in jobs.run_all([_command(flags, cell) for cell in cells], flags.jobs, should_stop, tell)
    ]


def _measure(flags, study, cells, should_stop):
    """Measures the cells that are trained and not measured yet, each opened once."""
    place, measured = list(records.PLACE), {}
    for name in study.measurements:
        rows = records.read(flags.folder, MEASUREMENTS[name].file)
        measured[name] = set(rows[place].itertuples(index=False, name=None))
    for cell in cells:
        results = stored(cell)
        here = (flags.budget, cell.setting.name, cell.seed)
        left = [name for name, done in measured.items() if here not in done]
        if not left or results is None or len(results["models"]) < len(cell.models):
            continue
        with opened(cell, should_stop) as run:
            for name in left:
                file, key, measure = MEASUREMENTS[name]
                print(f"{cell.name}: {name}", flush=True)
                rows = pd.DataFrame([dict(zip(place, here, strict=True)) | row for row in measure(run)])
                records.merge(flags.folder / file, (*place, *key), rows)


def _command(flags, cell):
    """Where the output of a cell's process goes, and the command."""
    directory = cell.config.run_dir
    data = [] if flags.data_dir is None else ["--data-dir", str(flags.data_dir)]
    command = [
        *(sys.executable, "-m", "experiments.study", flags.study, "--budget", flags.budget),
        *("--settings", cell.setting.name, "--seeds", str(cell.seed), "--steps", "train"),
        *("--runs-dir", str(flags.runs_dir), "--output", str(flags.output), *data),
    ]
    return directory.with_name(f"{directory.name}.log"), command


def _how_far(flags, cells):
    done, total, seconds = progress(cells)
    return f"{done} of {total} models trained; about {_duration(seconds / flags.jobs)} left"


def _duration(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


if __name__ == "__main__":
    main()
