"""Intervals of means and differences over seeds and test images together.

Few trainings share one test set, so both are random: another seed would train another model, and other test
images would be judged otherwise. An interval over seeds alone misses what all seeds have in common: that
these images favour one of the models.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# What is told of predictions, as a share: from the true classes [M] and the predicted ones [M].
Measure = Callable[[np.ndarray, np.ndarray], float]

_LEVEL = 0.975  # of the upper end of a 95 % interval
_AT_ONCE = 2**20  # images drawn at once


class Interval(NamedTuple):
    """A mean with its 95 % interval, in points.

    Attributes:
      mean: of the seeds.
      low: lower end.
      high: upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self):
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


class Accuracy:
    """The share of images whose class is predicted: a measure that is resampled fast."""

    def __init__(self, classes: Sequence[int] | np.ndarray | None = None):
        """The measure of all images, or of those of some classes."""
        self._classes = classes

    def __call__(self, gold: np.ndarray, predicted: np.ndarray) -> float:
        """The share."""
        return float(self.scores(gold, predicted).mean())

    def scores(self, gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """What each image adds to the share, `[M]`; their mean is the share."""
        right = (gold == predicted).astype(np.float32)
        if self._classes is None:
            return right
        counted = np.isin(gold, self._classes)
        return right * counted * (len(gold) / counted.sum())


accuracy = Accuracy()


def bootstrap_difference(
    measure: Measure,
    golds: Sequence[np.ndarray],
    ours: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
    same_images: bool | None = None,
) -> Interval:
    """How far one model is ahead of another, mean over seeds, with an interval over seeds and test images.

    Both are resampled with replacement, images within their classes. The bootstrap over n seeds makes
    deviations too small by sqrt((n - 1) / n) and knows nothing of how little n tells (Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, sections 5.3 and 12.3 to 12.5; Davison & Hinkley, Bootstrap Methods
    and their Application, 1997, section 3.8 on data in levels). So what varies is taken apart:

    - seeds: the variance of the mean when seeds are resampled, which needs no draws, times n / (n - 1). What
      an image is for one seed alone is in it too;
    - images: with test images of its own each seed's part is in the above, and there is no more. When all
      seeds share them, what the images do to all seeds alike comes on top: (n / (n - 1)) times the variance
      over resamples of one draw for all seeds, less that of a draw for each seed. Adding the whole variance
      over images would count the part of a single seed twice.

    The half-width is sqrt(seeds + images) times the mean of the 97.5 % quantiles of Student's t with n - 1
    degrees of freedom and of the normal distribution, weighted by the two variances (Cochran's approximation,
    Biometrics 1964): t's interval where images do not matter, the binomial one where seeds do not, and in
    simulations between 95 and 98 % in between, where Satterthwaite's degrees of freedom go down to 92 % for
    three seeds. It is never less than what the images alone give for these very models. With one seed it is
    that, and says nothing about other seeds.

    Args:
      measure: a share, from the true and the predicted classes; `accuracy` and `Accuracy` are fast.
      golds: true classes of the test images, an array for each seed.
      ours: predicted classes by one model, an array for each seed.
      others: by the other.
      resamples: of the images.
      seed: of the draws.
      same_images: whether all seeds have the same test images; None to see whether the true classes are.

    Raises:
      ValueError: if the arrays do not belong together.
    """
    _check(golds, ours, others)
    return _interval(measure, golds, [ours, others], resamples, seed, same_images)


def bootstrap_mean(
    measure: Measure,
    golds: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
    same_images: bool | None = None,
) -> Interval:
    """What a measure of one model is, mean over seeds, with its interval; see `bootstrap_difference`."""
    _check(golds, predictions)
    return _interval(measure, golds, [predictions], resamples, seed, same_images)


def _check(golds, *models):
    if not len(golds) or any(len(golds) != len(model) for model in models):
        raise ValueError("An array is needed for each seed, of the true classes and of each model.")
    for gold, *predicted in zip(golds, *models, strict=True):
        if not len(gold) or any(np.shape(one) != np.shape(gold) for one in predicted):
            raise ValueError("A class is needed for each test image, true and predicted by each model.")


def _interval(measure, golds, models, resamples, seed, same_images):
    golds = [np.asarray(gold) for gold in golds]
    models = [[np.asarray(one) for one in model] for model in models]
    if same_images is None:
        same_images = all(np.array_equal(gold, golds[0]) for gold in golds)
    found = _less([[measure(*pair) for pair in zip(golds, model, strict=True)] for model in models])
    drawn = _less(_resampled(measure, golds, models, resamples, seed, same_images))
    n = len(golds)
    seeds = np.var(found, ddof=1) / n if n > 1 else 0.0
    alone = np.var(drawn.mean(0))  # over images for these models
    each = np.var(drawn, axis=1).sum() / n**2
    shared = max(0.0, alone - each) * n / (n - 1) if n > 1 and same_images else 0.0
    normal = stats.norm.ppf(_LEVEL)
    half = normal * math.sqrt(alone)
    if seeds > 0:
        student = stats.t.ppf(_LEVEL, n - 1)
        half = max(half, (student * seeds + normal * shared) / math.sqrt(seeds + shared))
    mean = float(np.mean(found))
    return Interval(100 * mean, 100 * (mean - half), 100 * (mean + half))


def _less(values):
    """The first, less the second if there is one."""
    return np.subtract(*values) if len(values) == 2 else np.asarray(values[0])


def _resampled(measure, golds, models, resamples, seed, same_images):
    """The measure of each model and seed on resampled images `[models, N, resamples]`."""
    if same_images:
        return _Draws(golds[0], (seed,)).measure(measure, golds, models, resamples)
    parts = []
    for i, gold in enumerate(golds):
        own = [[model[i]] for model in models]
        parts.append(_Draws(gold, (seed, i)).measure(measure, [gold], own, resamples))
    return np.concatenate(parts, axis=1)


class _Draws:
    """Resamples of the images of one test set, each class as often as it is there."""

    def __init__(self, gold, seed):
        self._order = np.argsort(gold, kind="stable")
        _, counts = np.unique(gold, return_counts=True)
        self._sizes = np.repeat(counts, counts)
        self._starts = np.repeat(np.cumsum(counts) - counts, counts)
        self._rng = np.random.default_rng(seed)

    def measure(self, measure, golds, models, resamples):
        """The measure of each model and seed in each resample, which is the same for all of them."""
        size, rows = len(self._order), []
        pairs = [pair for model in models for pair in zip(golds, model, strict=True)]
        at_once = max(1, _AT_ONCE // size)
        scores = getattr(measure, "scores", None)
        if scores is not None:
            scored = np.stack([scores(*pair)[self._order] for pair in pairs], axis=1)
        for start in range(0, resamples, at_once):
            count = min(at_once, resamples - start)
            places = self._places(count)
            if scores is not None:  # a mean over images: how often each was drawn is enough
                flat = (places + size * np.arange(count)[:, None]).ravel()
                often = np.bincount(flat, minlength=count * size).reshape(count, size)
                rows.append(often.astype(np.float32) @ scored / size)
            else:
                drawn = self._order[places]
                rows.append([[measure(gold[at], one[at]) for gold, one in pairs] for at in drawn])
        return np.concatenate(rows).T.reshape(len(models), len(golds), resamples).astype(float)

    def _places(self, count):
        return self._starts + (self._rng.random((count, len(self._order))) * self._sizes).astype(np.int64)
