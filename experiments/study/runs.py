"""A study as cells: all models of one corrupted set and one seed, in one run directory."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from dsink_jax.training.loop import ShouldStop, never
from experiments.config import Config
from experiments.run import run
from experiments.study.budgets import BUDGETS, Budget, Setting
from experiments.study.catalogue import Study
from experiments.study.models import Declared, with_needs


class Cell(NamedTuple):
    """What is trained together.

    Attributes:
      budget: what it runs on.
      setting: the corrupted set.
      seed: decides the corrupted set's draw and the training.
      config: the settings of the run.
      models: what is trained, in order.
    """

    budget: Budget
    setting: Setting
    seed: int
    config: Config
    models: tuple[Declared, ...]

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.setting.name} seed {self.seed}"


def make_cells(
    study: Study,
    budget: str,
    settings: Sequence[str],
    seeds: Sequence[int],
    runs_dir: pathlib.Path,
    data_dir: pathlib.Path | None = None,
) -> list[Cell]:
    """The cells of a study, one seed after the other, so that what is done first is a whole.

    Args:
      study: which.
      budget: name of a budget that the study has.
      settings: names of the corrupted sets, all if empty.
      seeds: which.
      runs_dir: runs of the same corrupted set and seed are shared by all studies in it.
      data_dir: where the data sets are.
    """
    models = tuple(with_needs(study.models))
    return [
        Cell(BUDGETS[budget], setting, seed, _config(budget, setting, seed, runs_dir, data_dir), models)
        for seed in seeds
        for setting in study.settings[budget]
        if not settings or setting.name in settings
    ]


def _config(budget, setting, seed, runs_dir, data_dir):
    return dataclasses.replace(
        BUDGETS[budget].preset,
        seed=seed,
        data_seed=seed,
        data_dir=data_dir,
        run_dir=runs_dir / budget / setting.name / f"seed-{seed}",
        **setting.changes,
    )


def train(cell: Cell, should_stop: ShouldStop = never) -> dict[str, Any]:
    """Trains what is not trained yet of a cell; see `run`."""
    required = cell.budget.required_options
    return run(
        cell.config, lambda dataset: [model.make(dataset, required) for model in cell.models], should_stop
    )


def stored(cell: Cell) -> dict[str, Any] | None:
    """The results of a cell so far, with its models in order; None if there are none."""
    try:
        results = json.loads((cell.config.run_dir / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not begun; a damaged one is named when the cell is trained
        return None
    names = [model.name for model in cell.models]
    results["models"] = {name: results["models"][name] for name in names if name in results["models"]}
    return results


def curves(cell: Cell) -> list[dict[str, Any]]:
    """The evaluations of a cell's models, epoch by epoch."""
    names = {model.name for model in cell.models}
    try:
        lines = (cell.config.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [record for record in map(json.loads, lines) if record["model"] in names]


class Progress(NamedTuple):
    """How far a study is.

    Attributes:
      done: models trained.
      total: models in all.
      seconds_left: estimated time of the others, one after the other.
    """

    done: int
    total: int
    seconds_left: float


def progress(cells: Sequence[Cell], others: Sequence[Cell] = ()) -> Progress:
    """How far the cells are, and how long the rest takes if it is as fast as what is done.

    Args:
      cells: which.
      others: cells that tell how fast too.
    """
    done, total, left, spent, expected = 0, 0, 0.0, 0.0, 0.0
    for cell in {cell.name: cell for cell in (*cells, *others)}.values():
        results = stored(cell)
        trained = {} if results is None else results["models"]
        seconds = _expected(cell, results)
        known = [name for name in seconds if name in trained]
        spent += sum(trained[name]["seconds"] for name in known)
        expected += sum(seconds[name] for name in known)
        if cell in cells:
            done, total = done + len(known), total + len(seconds)
            left += sum(seconds.values()) - sum(seconds[name] for name in known)
    return Progress(done, total, left * (spent / expected if expected else 1.0))


def _expected(cell, results):
    """Estimated seconds of each model, before anything is known."""
    of_cross_entropy = _images(cell, results) * cell.config.epochs * cell.budget.seconds_per_image
    return {model.name: model.effort * of_cross_entropy for model in cell.models}


def _images(cell, results):
    """Training images of a cell; before it is drawn, those of a long tail with the protocol's head class."""
    if results is not None:
        return results["data"]["train_images"]
    head, num_classes = _HEAD[cell.config.dataset]
    ratio = cell.config.imbalance_ratio
    return sum(int(head * ratio ** (-c / (num_classes - 1))) for c in range(num_classes))


# Images of the largest class, and classes.
_HEAD = {"digits": (143, 10), "cifar10": (5000, 10), "cifar100": (500, 100)}
