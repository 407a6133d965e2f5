"""Measures of predicted classes by the better labels, in the order that intervals want them: labels first."""

import numpy as np

from dsink_jax import evaluation


def balanced_accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in `gold`, int `[T]`, of the share of each predicted right."""
    return evaluation.balanced_accuracy(predicted, gold, _size(gold, predicted))


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in `gold`, int `[T]`, of F1."""
    return evaluation.macro_f1(predicted, gold, _size(gold, predicted))


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Share predicted right."""
    return float(np.mean(gold == predicted))


def l1(shares: np.ndarray, others: np.ndarray) -> float:
    """L1 distance in [0, 2] of shares `[C]` from others."""
    return float(np.abs(np.asarray(shares, float) - others).sum())


def _size(gold, predicted):
    """A number of classes that has all that occur."""
    return int(max(gold.max(), predicted.max())) + 1
