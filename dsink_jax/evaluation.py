"""Measures of a classifier on test data, and on its own corrupted training set. NumPy only."""

from typing import NamedTuple

import numpy as np


class ClassGroups(NamedTuple):
    """Classes by how many training examples they have: a third each, the middle one takes the rest.

    Attributes:
      many: indices of the most frequent classes.
      medium: indices of the classes in between.
      few: indices of the rarest classes.
    """

    many: np.ndarray
    medium: np.ndarray
    few: np.ndarray


def class_groups(counts: np.ndarray) -> ClassGroups:
    """Splits classes into thirds by true training count; ties go by class index.

    The fixed limits of 100 and 20 images that ImageNet-LT uses would leave groups empty on CIFAR-10.

    >>> class_groups([50, 40, 30, 20, 10]).few.tolist()
    [4]
    """
    if np.ndim(counts) != 1:
        raise ValueError(f"counts must have shape [C], got {list(np.shape(counts))}.")
    order = np.argsort(-np.asarray(counts), kind="stable")
    third = max(len(order) // 3, 1) if len(order) > 1 else 0
    end = len(order) - third
    return ClassGroups(np.sort(order[:third]), np.sort(order[third:end]), np.sort(order[end:]))


def per_class_accuracy(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class predicted right: float64 `[C]` in [0, 1], NaN for a class without examples.

    Raises:
      ValueError: unless both are `[M]` alike and the labels in [0, C).
    """
    _check_rows(predictions, labels)
    _check_range(labels, num_classes)
    correct = np.bincount(labels[predictions == labels], minlength=num_classes)
    total = np.bincount(labels, minlength=num_classes)
    return np.divide(correct, total, out=np.full(num_classes, np.nan), where=total > 0)


def balanced_accuracy(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Mean of the accuracies of the classes that have examples, in [0, 1]; NaN without examples.

    Raises:
      ValueError: unless both are `[M]` alike and the labels in [0, C).

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    0.75
    """
    per_class = per_class_accuracy(predictions, labels, num_classes)
    return group_accuracy(per_class, np.flatnonzero(~np.isnan(per_class)))


def macro_f1(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Mean F1 score of the classes that have examples, in [0, 1]; NaN without examples.

    A class's is 2 TP / (2 TP + FP + FN). Those that are only predicted lower the others' alone.

    Raises:
      ValueError: unless both are `[M]` alike and in [0, C).

    >>> macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)  # 4/5 and 2/3
    0.7333333333333334
    """
    matrix = confusion_matrix(predictions, labels, num_classes)
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    occurs = true > 0
    return float(np.mean(2 * right[occurs] / (true + predicted)[occurs])) if occurs.any() else float("nan")


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of true (rows) against predicted classes (columns): int64 `[C, C]`.

    Raises:
      ValueError: unless both are `[M]` alike and in [0, C).

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    _check_rows(predictions, labels)
    _check_range(labels, num_classes)
    _check_range(predictions, num_classes)
    pairs = np.bincount(labels.astype(np.int64) * num_classes + predictions, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def group_accuracy(per_class: np.ndarray, group: np.ndarray) -> float:
    """Mean accuracy of a group's classes; NaN for an empty group."""
    return float(np.mean(per_class[group])) if len(group) else float("nan")


def noisy_corrected(predictions: np.ndarray, observed: np.ndarray, true: np.ndarray) -> float:
    """Share of the mislabelled training examples whose true label is predicted; NaN if none is mislabelled.

    Args:
      predictions: integer `[M]`, predicted classes of the training examples.
      observed: integer `[M]`, the labels trained on.
      true: integer `[M]`, the true labels.

    Raises:
      ValueError: unless all three have the same shape.
    """
    return _share_where_wrong(predictions, true, observed, true)


def noisy_memorised(predictions: np.ndarray, observed: np.ndarray, true: np.ndarray) -> float:
    """Share of the mislabelled training examples whose wrong label is predicted; NaN if none is mislabelled.

    The accuracy on the labels that are wrong: how far a model has learnt them by heart. Arguments and errors
    are those of `noisy_corrected`.
    """
    return _share_where_wrong(predictions, observed, observed, true)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in [0, 1]: mean gap of confidence and accuracy over equal-width bins.

    Args:
      probabilities: `[N, C]`, rows summing to 1.
      labels: integer `[N]`.
      bins: number of confidence bins, at least 1.

    Raises:
      ValueError: for other shapes, values or labels, or no example.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv 1706.04599, equation 3.
    """
    if probabilities.ndim != 2 or probabilities.size == 0:
        raise ValueError(f"probabilities must have shape [N, C], got {list(probabilities.shape)}.")
    _check_rows(probabilities[:, 0], labels)
    _check_range(labels, probabilities.shape[1])
    if not ((probabilities >= 0) & (probabilities <= 1.001)).all():
        raise ValueError("probabilities must be in [0, 1], and hold no NaN.")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    confidence = probabilities.max(-1)
    correct = probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def _share_where_wrong(predictions, expected, observed, true):
    """Share of the mislabelled examples for which `expected`, one of the labels, is predicted."""
    _check_rows(predictions, observed)
    _check_rows(predictions, true)
    wrong = observed != true
    return float(np.mean(predictions[wrong] == expected[wrong])) if wrong.any() else float("nan")


def _check_rows(one, other):
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(
            f"Predictions and labels must have one shape [M], got {list(one.shape)} and {list(other.shape)}."
        )


def _check_range(labels, num_classes):
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"Labels must be in [0, {num_classes}), got {labels.min()} to {labels.max()}. Check num_classes."
        )
