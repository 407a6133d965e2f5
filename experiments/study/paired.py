"""Numbers of models side by side: means, spreads, and differences that are paired by seed."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy import stats

from experiments.study.records import Row


class Difference(NamedTuple):
    """A paired difference over seeds, in points.

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
        return f"{self.mean:+.1f}{interval} ({self.ahead} of {self.seeds})"


def paired(ones: Sequence[float], others: Sequence[float]) -> Difference:
    """The mean of the paired differences of shares, with its 95 % interval by Student's t.

    >>> str(paired([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]))
    '+10.0 ± 0.0 (3 of 3)'
    """
    differences = [100 * (one - other) for one, other in zip(ones, others, strict=True)]
    count = len(differences)
    half = None
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5
    return Difference(statistics.mean(differences), half, sum(d > 0 for d in differences), count)


def by_seed(rows: Sequence[Row], model: str, measure: str = "last") -> dict[int, float]:
    """A measure of one model, by seed."""
    return {row["seed"]: row[measure] for row in rows if row["model"] == model}


def ahead(ones: dict[int, float], others: dict[int, float]) -> str:
    """The difference over the seeds that both have, in words."""
    seeds = [seed for seed in ones if seed in others]
    return str(paired([ones[seed] for seed in seeds], [others[seed] for seed in seeds])) if seeds else "-"


def spread(shares: Iterable[float | None]) -> str:
    """Mean and standard deviation in percent; `-` if nothing is known."""
    shares = [100 * share for share in shares if share is not None]
    if not shares:
        return "-"
    deviation = f" ± {statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{statistics.mean(shares):.1f}{deviation}"
