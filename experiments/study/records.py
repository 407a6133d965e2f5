"""Results of studies as tidy CSV files, one row a model and seed, which accumulate from call to call."""

import json
import pathlib
import statistics
from collections.abc import Sequence

import pandas as pd

from experiments.environments import COLUMN, identify, remember
from experiments.kept_rows import merged, read_rows, write_rows
from experiments.study import predictions, runs
from experiments.study.runs import Cell

PLACE = ("budget", "setting", "seed")
_KEY = (*PLACE, "model")
_MEASURES = (
    *("last", "mean_last_10", "best", "many", "medium", "few"),
    *("noisy_corrected", "noisy_memorised", "calibration_error"),
)
# What the solver did in training, means over the epochs that were evaluated.
_SOLVER = {
    "iterations": "sinkhorn_iterations",
    "converged": "sinkhorn_converged",
    "marginal_error": "marginal_error",
}
RESULT_FIELDS = (
    *_KEY,
    *("role", "method", "dataset", "train_images", "imbalance_ratio", "noise", "noise_rate", "wrong_labels"),
    *_MEASURES,
    *_SOLVER,
    *("seconds", COLUMN),
)
CURVE_FIELDS = (*_KEY, "epoch", "accuracy", "few", "noisy_corrected", "noisy_memorised")


def gather(folder: pathlib.Path, budget: str, studied: Sequence[Cell]) -> list[str]:
    """Adds what the cells have to results.csv, curves.csv, environments.json and predictions/ of a folder.

    All rows of a cell are of one run: differences between models of two trainings are not paired. Rows of
    another run of the cell are replaced where this one has all its models, and else they stay.

    Returns:
      Names of the cells that were left as they are.
    """
    rows, points, environments, predicted = [], [], [], []
    kept, replaced, added = [], set(), set()
    there = read(folder, "results.csv", budget).to_dict("records")
    for cell in studied:
        results = runs.stored(cell)
        if results is None:
            continue
        key = {"budget": budget, "setting": cell.setting.name, "seed": cell.seed}
        environment, evaluated = {"budget": budget, **_environment(cell)}, runs.curves(cell)
        identity = identify(environment)
        made = [
            {
                **{**key, "model": name, COLUMN: identity},
                **{**_facts(results["data"]), **_measures(entry), **_solver(name, evaluated)},
            }
            for name, entry in results["models"].items()
        ]
        before = {row["model"]: row for row in there if key.items() <= row.items()}
        new = [row for row in made if row["model"] not in before]
        other = [row for row in made if row not in new and not _same_training(row, before[row["model"]])]
        if other:
            if before.keys() - results["models"].keys():
                kept.append(cell.name)
                continue
            replaced.add(tuple(key.values()))
        environments.append(environment)
        if new or other:
            added.add(identity)
        file = predictions.file_of(folder, **key)
        predicted.append(
            (file, predictions.of_run(cell.config.run_dir, results["data"], results["models"]), bool(other))
        )
        rows += made
        points += ({**key, **record} for record in evaluated if record["model"] in results["models"])
    _drop(folder, replaced)
    merge(folder / "results.csv", _KEY, pd.DataFrame(rows, columns=RESULT_FIELDS))
    merge(folder / "curves.csv", (*_KEY, "epoch"), pd.DataFrame(points, columns=CURVE_FIELDS))
    for file, found, anew in predicted:
        predictions.keep(file, found, anew=anew)
    remember(folder, environments, added)
    return kept


def _same_training(one, other):
    """Whether two rows of a model tell of the same training: no two take the same time."""
    return all(_digits(one[name]) == _digits(other[name]) for name in ("last", "seconds"))


def _drop(folder, places):
    """Takes what was told of some cells beside their results, measurements included, out of the CSV files."""
    for path in set(folder.glob("*.csv")) - {folder / "results.csv"} if places else ():
        rows = read_rows(path)
        gone = pd.MultiIndex.from_frame(rows[[*PLACE]]).isin(places)
        write_rows(path, rows[~gone], _digits)


def read(folder: pathlib.Path, file: str, budget: str | None = None) -> pd.DataFrame:
    """The rows of a CSV file, of one budget or all; none if there is no file."""
    path = folder / file
    rows = read_rows(path) if path.exists() else pd.DataFrame(columns=_KEY)
    return rows if budget is None else rows[rows["budget"] == budget]


def _environment(cell):
    """Device and versions of a run, each with those of whoever went on with it."""
    config = json.loads((cell.config.run_dir / "config.json").read_text(encoding="utf-8"))
    parts = [config, *config.get("continued", [])]
    names = dict.fromkeys(name for part in parts for name in part["versions"])
    return {
        "device": _in_turn(part["device"] for part in parts),
        "versions": {name: _in_turn(part["versions"].get(name) for part in parts) for name in names},
    }


def _in_turn(values):
    return " and ".join(dict.fromkeys(value for value in values if value is not None))


def _facts(data):
    return {
        "dataset": data["name"],
        "train_images": data["train_images"],
        "imbalance_ratio": data["imbalance_ratio"],
        "noise": data["noise"],
        "noise_rate": None if data["noise"] == "none" else data["nominal_rate"],
        "wrong_labels": data["realised_rate"],
    }


def _measures(entry):
    flat = {**entry["accuracy"], **entry}
    return {name: flat.get(name) for name in (*_MEASURES, "role", "method", "seconds")}


def _solver(model, evaluated):
    told = [record["train"] for record in evaluated if record["model"] == model and "train" in record]
    told = [train for train in told if _SOLVER["iterations"] in train]
    return {name: statistics.mean(train[key] for train in told) for name, key in _SOLVER.items() if told}


def merge(path: pathlib.Path, key: Sequence[str], rows: pd.DataFrame) -> None:
    """Writes rows to a CSV file, over those there that are equal in all of `key`; others stay."""
    write_rows(path, merged(read_rows(path), rows, key), _digits)


def _digits(value):
    # Shares to a hundredth of a percent; what is smaller than that is the error of a marginal.
    return f"{value:.4f}".rstrip("0").rstrip(".") if value == 0 or abs(value) >= 1e-3 else f"{value:.2g}"
