"""The page of the comparison on natural sets, and its figure, from the rows and the predictions."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from dsink_jax.report import MissingMatplotlibError, align, figures
from experiments.environments import COLUMN, environments_in_words
from experiments.natural import predictions
from experiments.natural.measures import accuracy, balanced_accuracy, l1, macro_f1
from experiments.natural.models import AS_PUBLISHED, DSINK
from experiments.natural.predictions import Predictions
from experiments.study.intervals import Interval, bootstrap_difference
from experiments.study.paired import spread

ON_GOLD = "on gold labels"
"""What balanced logistic regression makes of the better labels: how far one can get, and no rival."""

# The column of a measure, what it is called, the shares of the classes that predictions are for, and itself.
MEASURES: dict[str, tuple[str, str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "balanced_accuracy": ("balanced accuracy", "balanced", balanced_accuracy),
    "macro_f1": ("macro-F1", "estimated", macro_f1),
    "accuracy": ("accuracy", "estimated", accuracy),
}
_HEADLINE = ("balanced_accuracy", "macro_f1")
_NO_RIVALS = (DSINK, AS_PUBLISHED, ON_GOLD)
_DRAWN = "fer"  # the set whose shares are drawn
_FIGURE = "fer-class-shares.svg"


def write_table(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes natural.md, and draws the shares of the classes of faces if they are among the sets.

    Args:
      folder: where they go, and where the predictions are.
      rows: of natural.csv.

    Raises:
      InputError: if predictions are missing or damaged.
    """
    kept = {name: _predictions(folder, name, here) for name, here in rows.groupby("setting", sort=False)}
    lines = [*_introduction(folder, rows), *("", "## D-SINK beside the best of the others")]
    for measure in _HEADLINE:
        lines += ["", _headline(rows, kept, measure)]
    for name, here in rows.groupby("setting", sort=False):
        lines += ["", f"## {name}", "", _describe(here), "", _all_models(here, kept[name])]
    lines += ["", "## Shares of the classes", "", *_shares(kept)]
    if _DRAWN in kept:
        with contextlib.suppress(MissingMatplotlibError):
            draw_shares(folder / _FIGURE, kept[_DRAWN])
            lines += ["", f"![shares of the classes of faces: true, given and estimated]({_FIGURE})"]
    (folder / "natural.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def difference(kept: Sequence[Predictions], measure: str, other: str) -> Interval:
    """By how many points D-SINK is ahead of another model, with the interval over seeds and test examples.

    Seeds that the other model was not trained with are left out.
    """
    _, prior, of = MEASURES[measure]
    kept = [one for one in kept if (other, prior) in one.predicted]
    ours, others = ([one.predicted[model, prior] for one in kept] for model in (DSINK, other))
    return bootstrap_difference(of, [one.gold for one in kept], ours, others)


def best_rival(rows: pd.DataFrame, measure: str) -> str:
    """The model with the highest mean over seeds, D-SINK and what is trained on better labels left out."""
    rivals = rows[~rows["model"].isin(_NO_RIVALS)]
    return rivals.groupby("model", sort=False)[measure].mean().idxmax()


def average(intervals: Iterable[Interval]) -> Interval:
    """The mean of differences of sets that have nothing in common: their half-widths add up as squares."""
    found = list(intervals)
    mean = sum(one.mean for one in found) / len(found)
    low, high = (
        math.sqrt(sum((end - one.mean) ** 2 for one, end in pairs)) / len(found)
        for pairs in ([(one, one.low) for one in found], [(one, one.high) for one in found])
    )
    return Interval(mean, mean - low, mean + high)


def draw_shares(path: pathlib.Path, kept: Sequence[Predictions]) -> None:
    """Draws the shares of the classes as an SVG file: true, given, and D-SINK's estimate of each seed.

    Raises:
      MissingMatplotlibError: if nothing can be drawn.
    """
    first = kept[0].shares
    values = {name: [[float(share)] for share in first[name]] for name in ("true", "given")}
    values["estimated"] = np.stack([one.shares["estimated"] for one in kept], axis=1).tolist()
    label = "share of the training set"
    figures.points_figure(values, kept[0].class_names, path, value_label=label, group_label="class")


def _introduction(folder, rows):
    return [
        "# Labels that nobody made wrong",
        "",
        "Sets with two labels of each example: those that came with it, which alone models are trained and "
        "chosen by, and better ones, by which they are judged. Percent on the half of the test examples that "
        "no default was chosen by, mean ± standard deviation over seeds. Balanced accuracy is that of "
        "predictions that count all classes alike; macro-F1 and accuracy are those of predictions for "
        "classes as frequent as in the training set, whose true shares D-SINK estimates (`prior=`). What "
        "knows no shares, such as logistic regression, is taken as it is for all three. D-SINK and its parts "
        "are trained by `dsink_jax.fit` with its defaults: `naive distillation` learns from the same f_L and "
        "f_N, `ensemble` is the mean of their log probabilities, each for the same shares, and `f_L, stopped "
        "early` has its epochs chosen by a tenth of the given labels. Logistic regression has its C "
        "chosen by five folds on given labels, and cleanlab's `CleanLearning` takes that C. "
        f"`{ON_GOLD}` is balanced logistic regression on the better labels.",
        "",
        "Differences are in points, with a 95 % interval over seeds and test examples together (bootstrap). "
        "The best of the others is the best on the very examples that are reported, which favours it.",
        "",
        f"By `python -m experiments.study natural` on {environments_in_words(folder, rows[COLUMN])}.",
    ]


def _predictions(folder, name, rows):
    seeds = sorted(set(rows["seed"]))
    return [predictions.read(predictions.path_of(folder, name, seed)) for seed in seeds]


def _headline(rows, kept, measure):
    """A measure of all sets: D-SINK, the best of the others, and the difference."""
    table = [("set", MEASURES[measure][0], "best of the others", "its own", "D-SINK is ahead by")]
    found, ours, theirs = [], [], []
    for name, here in rows.groupby("setting", sort=False):
        rival = best_rival(here, measure)
        found.append(difference(kept[name], measure, rival))
        ours.append(here[here["model"] == DSINK][measure])
        theirs.append(here[here["model"] == rival][measure])
        table.append((name, spread(ours[-1]), rival, spread(theirs[-1]), str(found[-1])))
    if len(found) > 1:
        means = (f"{100 * np.mean([one.mean() for one in of]):.1f}" for of in (ours, theirs))
        mine, other = means
        table.append(("mean of the sets", mine, "", other, str(average(found))))
    return _fenced(table, left=1)


def _all_models(rows, kept):
    titles = [title for title, _, _ in MEASURES.values()]
    table = [("model", *titles, *(f"ahead, {MEASURES[one][0]}" for one in _HEADLINE), "chosen", "s")]
    for model, of_model in rows.groupby("model", sort=False):
        ahead = ("" if model == DSINK else str(difference(kept, one, model)) for one in _HEADLINE)
        chosen = ", ".join(dict.fromkeys(of_model["chosen"].dropna()))
        shown = (*(spread(of_model[measure]) for measure in MEASURES), *ahead, chosen)
        table.append((model, *shown, f"{of_model['seconds'].mean():.0f}"))
    return _fenced(table, left=1)


def _shares(kept):
    """How far given and estimated shares are from the true ones."""
    table = [("set", "given", "estimated")]
    for name, of_seeds in kept.items():
        off = {
            which: np.mean([l1(one.shares[which], one.shares["true"]) for one in of_seeds])
            for which in ("given", "estimated")
        }
        table.append((name, f"{off['given']:.3f}", f"{off['estimated']:.3f}"))
    return [
        "L1 distance from the true shares in the training set (0 to 2): of the shares among given labels, "
        "and of D-SINK's estimate, `fitted.class_shares`, mean over seeds.",
        "",
        _fenced(table, left=1),
    ]


def _describe(rows):
    first = rows.iloc[0]
    seeds = sorted(set(rows["seed"]))
    return (
        f"{first['examples']:,} examples of {first['classes']} classes, {100 * first['wrong']:.0f} % of the "
        f"labels wrong, seeds {seeds}."
    )


def _fenced(table, left):
    return "\n".join(["```", align(table, left=left), "```"])
