"""Numbers of models side by side: means, spreads, and differences that are paired by seed."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from scipy import stats


class Difference(NamedTuple):
    """A paired difference over seeds, in points; written as `-` if there are none.

    Attributes:
      mean: of the differences.
      half_width: of the 95 % interval of the mean; None for a single seed.
      ahead: seeds in which it is above 0.
      seeds: how many there are.
    """

    mean: float
    half_width: float | None
    ahead: int
    seeds: int

    def __str__(self):
        interval = "" if self.half_width is None else f" ± {self.half_width:.1f}"
        return f"{self.mean:+.1f}{interval} ({self.ahead} of {self.seeds})" if self.seeds else "-"


def paired(ones: pd.Series | Sequence[float], others: pd.Series | Sequence[float]) -> Difference:
    """The mean of the paired differences of shares, with its 95 % interval by Student's t.

    Series are paired by their index, as far as both are known.

    >>> str(paired([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]))
    '+10.0 ± 0.0 (3 of 3)'
    """
    found = 100 * (pd.Series(ones) - pd.Series(others)).dropna()
    half = stats.t.ppf(0.975, len(found) - 1) * found.sem() if len(found) > 1 else None
    return Difference(_mean(found), half, int((found > 0).sum()), len(found))


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
