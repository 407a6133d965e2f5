"""Intervals of a difference over seeds and test examples together, by the bootstrap."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A difference in points, with its 95 % interval.

    Attributes:
      mean: of the differences of the seeds.
      low: where the interval begins.
      high: where it ends.
    """

    mean: float
    low: float
    high: float


def bootstrap_difference(
    measure: Callable[[np.ndarray, np.ndarray], float],
    golds: Sequence[np.ndarray],
    ours: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """How far one model is ahead of another, over seeds and test examples that are drawn together.

    Args:
      measure: of labels and predicted classes, both int `[T]`.
      golds: for each seed int `[T]`, the labels.
      ours: for each seed int `[T]`, the classes that the one model predicts.
      others: the same of the other model.
      resamples: how often seeds are drawn, and test examples in each.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)

    def difference(number, rows):
        gold = golds[number][rows]
        return measure(gold, ours[number][rows]) - measure(gold, others[number][rows])

    count = len(golds)
    mean = np.mean([difference(number, slice(None)) for number in range(count)])
    drawn = [
        np.mean(
            [
                difference(number, rng.integers(len(golds[number]), size=len(golds[number])))
                for number in rng.integers(count, size=count)
            ]
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(100 * float(mean), 100 * float(low), 100 * float(high))
