"""Measures of predicted classes by the better labels. NumPy alone, and fast, for a thousand resamples."""

import numpy as np


def balanced_accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in `gold`, int `[T]`, of the share of each predicted right.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))  # 2 of 3, and 1 of 1
    0.8333333333333334
    """
    right, _, there = _counts(gold, predicted)
    return float((right[there > 0] / there[there > 0]).mean())


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in `gold`, int `[T]`, of F1.

    >>> macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))  # 4 / 5 and 2 / 3
    0.7333333333333334
    """
    right, said, there = _counts(gold, predicted)
    return float((2 * right / np.maximum(said + there, 1))[there > 0].mean())


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Share predicted right."""
    return float(np.mean(gold == predicted))


def l1(shares: np.ndarray, others: np.ndarray) -> float:
    """L1 distance in [0, 2] of shares `[C]` from others."""
    return float(np.abs(np.asarray(shares, float) - others).sum())


def _counts(gold, predicted):
    """For each class how many are predicted right, how many it is predicted for, how many there are."""
    size = int(max(gold.max(), predicted.max())) + 1
    return (
        np.bincount(gold[gold == predicted], minlength=size),
        np.bincount(predicted, minlength=size),
        np.bincount(gold, minlength=size),
    )
