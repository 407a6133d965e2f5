"""Label-noise models: transition matrices and draws, each convention of the field under its own name.

Conventions differ in what "40 % noise" means; the name of a kind says which one it is. Sources of each are
in the docstring of `transition_matrix`.
"""

import numbers
from typing import Literal, get_args

import numpy as np

from dsink_jax.errors import InputError

NoiseKind = Literal[
    "none",
    "symmetric",
    "symmetric_others",
    "asymmetric",
    "asymmetric_dividemix",
    "joint",
    "joint_inclusive",
    "human_aggre",
    "human_random1",
    "human_random2",
    "human_random3",
    "human_worse",
    "human_noisy",
]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)
HUMAN_KINDS = {
    "cifar10": ("human_aggre", "human_random1", "human_random2", "human_random3", "human_worse"),
    "cifar100": ("human_noisy",),
}
# truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse.
_DIVIDEMIX_MAP = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}


def random_class_map(num_classes: int, map_seed: int) -> np.ndarray:
    """One other class for each class, `[C]`, as TABASCO draws it.

    NumPy's legacy generator, seeded, draws for each class in turn one of the others. Seed 1 is the one of
    TABASCO's training script, seed 25 the one of its second loader.

    Source: github.com/Wakings/TABASCO, datas/data_utils.py and data_utils_N.py.

    >>> random_class_map(10, 1).tolist()
    [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]
    """
    generator = np.random.RandomState(map_seed)
    classes = np.arange(num_classes)
    return np.array([generator.choice(np.delete(classes, c)) for c in classes])


def transition_matrix(
    noise: str,
    rate: float,
    num_classes: int,
    *,
    map_seed: int = 1,
    class_counts: np.ndarray | None = None,
) -> np.ndarray:
    """Probabilities of the observed label given the true one.

    Kinds:
      none: the identity.
      symmetric: with probability `rate` a label uniform over all classes, the true one included, so the
        share of wrong labels is rate * (C - 1) / C (TABASCO's `unif`).
      symmetric_others: with probability `rate` a label uniform over the other classes.
      asymmetric: with probability `rate` the one other class of `random_class_map` (TABASCO's `flip`).
      asymmetric_dividemix: CIFAR-10 only; with probability `rate` truck -> automobile, bird -> airplane,
        cat <-> dog, deer -> horse (DivideMix, Patrini et al.); the other classes stay clean.
      joint: with probability `rate` another class, in proportion to the class counts (RoLT's `imb`, SFA).
      joint_inclusive: with probability `rate` any class in proportion to the counts, the true one
        included (CBS).

    Args:
      noise: one of the kinds above. Human kinds have no matrix.
      rate: nominal rate in [0, 1].
      num_classes: C, at least 2.
      map_seed: seed of the class map of `asymmetric`; 1 and 25 are the published ones.
      class_counts: `[C]` clean counts, needed by the joint kinds; two or more positive.

    Returns:
      float64 `[C, C]`, rows P(observed | true) summing to 1.

    Raises:
      InputError: for an unknown kind, a rate outside [0, 1], or a kind that does not fit.

    >>> transition_matrix("symmetric", 0.4, 10)[0, :2].round(2).tolist()
    [0.64, 0.04]
    """
    check_noise(noise, rate)
    if rate is None and noise != "none":
        raise InputError(f"Noise {noise!r} needs a rate in [0, 1].")
    if num_classes < 2:
        raise InputError(f"Label noise needs at least 2 classes, got {num_classes}.")
    identity = np.eye(num_classes)
    if noise == "none":
        return identity
    if noise == "symmetric":
        target = np.full((num_classes, num_classes), 1.0 / num_classes)
    elif noise == "symmetric_others":
        target = (1.0 - identity) / (num_classes - 1)
    elif noise == "asymmetric":
        target = identity[random_class_map(num_classes, map_seed)]
    elif noise == "asymmetric_dividemix":
        if num_classes != 10:
            raise InputError(
                "Noise 'asymmetric_dividemix' is defined for the ten classes of CIFAR-10, "
                f"got {num_classes} classes. Use 'asymmetric'."
            )
        target = identity[[_DIVIDEMIX_MAP.get(c, c) for c in range(10)]]
    elif noise in ("joint", "joint_inclusive"):
        if class_counts is None:
            raise InputError(f"Noise {noise!r} needs class_counts.")
        counts = np.asarray(class_counts, np.float64)
        if counts.shape != (num_classes,) or not (counts >= 0).all() or (counts > 0).sum() < 2:
            raise InputError(
                f"class_counts must be {num_classes} numbers, none negative and two of them positive, got "
                f"{np.array2string(counts, threshold=10).replace(chr(10), '')}."
            )
        target = np.broadcast_to(counts, (num_classes, num_classes))
        if noise == "joint":
            target = target * (1.0 - identity)
        target = target / target.sum(1, keepdims=True)
    else:
        raise InputError(f"Noise {noise!r} is a set of labels, not a matrix.")
    return (1.0 - rate) * identity + rate * target


def draw_labels(
    labels: np.ndarray, matrix: np.ndarray, seed: int | tuple[int, ...], *, exact_count: int | None = None
) -> np.ndarray:
    """Observed labels drawn for true ones.

    Each label is drawn on its own, so the share of wrong labels fluctuates around its expectation. With
    `exact_count`, that many labels chosen at random are replaced, by rows of `matrix` without their
    diagonal (RoLT).

    Args:
      labels: integer `[M]` in [0, C).
      matrix: `[C, C]`, rows P(observed | true).
      seed: seed of the draw.
      exact_count: number of labels to replace, or None.

    Returns:
      int32 `[M]`.
    """
    generator = np.random.default_rng(seed)
    observed = np.array(labels, np.int32)
    if exact_count == 0:
        return observed
    if exact_count is None:
        chosen = np.arange(len(observed))
    else:
        chosen = generator.permutation(len(observed))[:exact_count]
        matrix = matrix * (1.0 - np.eye(len(matrix)))
        matrix = matrix / matrix.sum(1, keepdims=True)
    edges = matrix.cumsum(1)[observed[chosen]]
    edges /= edges[:, -1:]
    observed[chosen] = (generator.random((len(chosen), 1)) >= edges).sum(1)
    return observed


def check_noise(noise: str, rate: float | None) -> None:
    """Raises `InputError` for an unknown kind or a rate outside [0, 1]."""
    if noise not in NOISE_KINDS:
        raise InputError(f"Unknown noise {noise!r}. Known kinds: {', '.join(NOISE_KINDS)}.")
    if rate is not None and not (isinstance(rate, numbers.Real) and 0.0 <= rate <= 1.0):
        raise InputError(f"The noise rate must be in [0, 1], got {rate}.")
