"""Numbers of models side by side: means, spreads, and differences that are paired by seed."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from scipy import stats

from experiments.study.intervals import Interval
from experiments.study.predictions import Predictions


class Difference(NamedTuple):
    """A paired difference over seeds, in points; written as `-` if there are none.

    Attributes:
      mean: of the differences.
      half_width: of the 95 % interval of the mean over seeds; None for a single seed.
      ahead: seeds in which it is above 0.
      seeds: how many there are.
      interval: over seeds and test images together; None where predictions were not kept.
    """

    mean: float
    half_width: float | None
    ahead: int
    seeds: int
    interval: Interval | None = None

    def __str__(self):
        if not self.seeds:
            return "-"
        alone = "" if self.half_width is None else f" ± {self.half_width:.1f}"
        shown = self.interval or f"{self.mean:+.1f}{alone}"
        return f"{shown} ({self.ahead} of {self.seeds})"


def paired(ones: pd.Series | Sequence[float], others: pd.Series | Sequence[float]) -> Difference:
    """The mean of the paired differences of shares, with its 95 % interval by Student's t.

    Series are paired by their index, as far as both are known.

    >>> str(paired([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]))
    '+10.0 ± 0.0 (3 of 3)'
    """
    found = 100 * (pd.Series(ones) - pd.Series(others)).dropna()
    half = stats.t.ppf(0.975, len(found) - 1) * found.sem() if len(found) > 1 else None
    return Difference(_mean(found), half, int((found > 0).sum()), len(found))


def ahead(
    known: pd.DataFrame,
    model: str,
    others: str | Sequence[str],
    kept: Predictions | None = None,
    measure: str = "last",
) -> Difference:
    """How far a model is ahead of another, or of whichever of several is best in each seed.

    Args:
      known: a measure with a line for each seed and a column for each model, see `by_seed`.
      model: its name.
      others: the name of another, or of several; only seeds that have them all count.
      kept: predictions of the corrupted set, for an interval over test images too.
      measure: which it is.
    """
    names = [others] if isinstance(others, str) else list(others)
    here = known.reindex(columns=[model, *(name for name in names if name != model)]).dropna()
    found = paired(here[model], here[names].max(axis=1))
    if kept is None or len(here) < 2:
        return found
    best = {int(seed): name for seed, name in here[names].idxmax(axis=1).items()}
    return found._replace(interval=kept.difference(model, best, measure))


def _mean(values: pd.Series) -> float:
    """The mean, rounded once: shares of a few hundred images often lie where a digit is rounded."""
    return statistics.mean(values) if len(values) else math.nan


def by_seed(rows: pd.DataFrame, measure: str = "last") -> pd.DataFrame:
    """A measure with a line for each seed and a column for each model, NaN where one lacks the other."""
    return rows.pivot_table(measure, "seed", "model", aggfunc="last", sort=False)


def spread(shares: pd.Series) -> str:
    """Mean and standard deviation in percent; `-` if nothing is known."""
    known = 100 * shares.dropna()
    deviation = f" ± {known.std():.1f}" if len(known) > 1 else ""
    return f"{_mean(known):.1f}{deviation}" if len(known) else "-"
