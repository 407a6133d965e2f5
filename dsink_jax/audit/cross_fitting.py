"""Predictions of examples by models that have not seen them."""

from typing import Any, NamedTuple

import numpy as np

from dsink_jax.audit.label_errors import LabelErrors, find_label_errors
from dsink_jax.errors import InputError
from dsink_jax.estimator import Settings, fit
from dsink_jax.estimator.inputs import check_inputs, check_observed
from dsink_jax.estimator.settings import changed

_STREAM = 7


class OutOfSample(NamedTuple):
    """What models say that have not seen the example. Minus infinity for classes that they have not seen.

    Attributes:
      noise_robust: float32 `[M, C]`, f_N's.
      imbalance_robust: float32 `[M, C]`, f_L's.
      judged: bool `[M]`, False where they have not seen the class that is given.
    """

    noise_robust: np.ndarray
    imbalance_robust: np.ndarray
    judged: np.ndarray


def out_of_sample_logits(
    inputs: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    folds: int = 5,
    settings: Settings | None = None,
    verbose: bool = False,
    **changes: Any,
) -> OutOfSample:
    """Trains f_L and f_N once for each fold, on the other folds, and predicts for it.

    Args:
      inputs: `[M, D]` or `[M, H, W, channels]`; see `dsink_jax.fit`.
      labels: integers `[M]` in 0..C-1, as given.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.
      folds: into how many the examples are split, every class evenly; at least 2.
      settings: how to train; see `dsink_jax.fit`.
      verbose: whether to show progress.
      **changes: fields of `Settings` to change.

    Raises:
      InputError: as `dsink_jax.fit`, or for a number of folds that does not go.
    """
    settings = changed(settings, changes)
    # Once for all folds, in the shape it had: vectors are no images yet.
    inputs = check_inputs(inputs).reshape(np.shape(inputs))
    count = len(inputs)
    labels, num_classes = check_observed(labels, count, num_classes)
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= count:
        raise InputError(f"folds must be between 2 and the number of examples, {count}, got {folds!r}.")
    fold = make_folds(labels, folds, settings.seed)
    shape = (count, num_classes)
    found = OutOfSample(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(count, bool))
    for number in range(folds):
        if verbose:
            print(f"fold {number + 1} of {folds}")
        held_out = fold == number
        fitted = fit(
            inputs[~held_out],
            labels[~held_out],
            num_classes=num_classes,
            settings=settings,
            target=False,
            verbose=verbose,
        )
        unseen = np.bincount(labels[~held_out], minlength=num_classes) == 0
        for role in ("noise_robust", "imbalance_robust"):
            predicted = fitted.logits(inputs[held_out], role)
            getattr(found, role)[held_out] = np.where(unseen, -np.inf, predicted)
        found.judged[held_out] = ~unseen[labels[held_out]]
    return found


def audit_labels(inputs: Any, labels: Any, **how: Any) -> LabelErrors:
    """Finds labels that are probably wrong, from the examples themselves.

    Args:
      inputs: `[M, D]` or `[M, H, W, channels]`; see `dsink_jax.fit`.
      labels: integers `[M]` in 0..C-1, as given.
      **how: see `out_of_sample_logits`.

    Raises:
      InputError: as `out_of_sample_logits`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(90) % 3
    >>> features = np.eye(3)[labels] + 0.1 * rng.standard_normal((90, 3))
    >>> labels[0] = 1  # was 0
    >>> found = audit_labels(features, labels, folds=2, epochs=10, batch_size=16)
    >>> found.ranking[0].item(), found.proposed[0].item()
    (0, 0)
    """
    found = out_of_sample_logits(inputs, labels, **how)
    return find_label_errors(
        np.asarray(labels), found.noise_robust, found.imbalance_robust, judged=found.judged
    )


def make_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Int `[M]`, the fold of each example: those of a class are dealt out in turn, in random order."""
    rng = np.random.default_rng((seed, _STREAM))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold
