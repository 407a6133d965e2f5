"""A small balanced part of the training set, taken out for methods that learn from one."""

import numpy as np

from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.errors import InputError


def draw_meta_set(labels: np.ndarray, per_class: int, num_classes: int, seed: int) -> np.ndarray:
    """Draws as many examples of every class, without replacement.

    Args:
      labels: integer `[M]`, by which the classes are told: observed labels or true ones.
      per_class: examples of each class, at least 1.
      num_classes: C.
      seed: of the draw.

    Returns:
      int32 `[C * per_class]`, positions, class by class.

    Raises:
      InputError: if a class has no more examples than that, so that none would be left to train on, for
        less than 1, or labels that are no classes.

    >>> draw_meta_set(np.array([0, 1, 1, 0, 0]), 1, 2, seed=0).tolist()
    [4, 2]
    """
    if per_class < 1:
        raise InputError(f"A meta set needs at least 1 image a class, got {per_class}.")
    counts = np.bincount(check_class_numbers(labels, num_classes, "Labels"), minlength=num_classes)
    if per_class >= counts.min():
        most = f"Give at most {counts.min() - 1}, or" if counts.min() > 1 else "Give"
        raise InputError(
            f"A meta set of {per_class} images a class is too large: class {counts.argmin()} has "
            f"{counts.min()}. {most} a lower imbalance ratio."
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(num_classes)]
    return np.concatenate(drawn).astype(np.int32)
