"""What people train on features first: logistic regression, and cleanlab's learning without what it doubts.

Features are standardised. The inverse strength of the regularisation, C, is chosen by five folds on the
labels that are given: by accuracy for plain logistic regression, by balanced accuracy where classes are
weighted. For the choice at most 5,000 rows are taken, every class in proportion; predictions of all folds are
judged together, because a rare class may have no row in some fold.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dsink_jax.audit import make_folds
from experiments.natural.measures import accuracy, balanced_accuracy

LOGISTIC = {"logistic regression": None, "logistic regression, balanced": "balanced"}
"""Weights of the classes, by the name of the rival."""

GRID = tuple(10.0**power for power in range(-4, 3))
"""What C is chosen from."""

_FOLDS = 5
_ROWS_FOR_CHOICE = 5000
_ITERATIONS, _TOLERANCE = 200, 1e-3  # of the choice; what is chosen has more
_FINAL_ITERATIONS, _FINAL_TOLERANCE = 500, 1e-4


class Rival(NamedTuple):
    """A model that was trained.

    Attributes:
      probabilities: float `[T, C]` of the test inputs, 0 for classes that it has not seen.
      chosen: C.
    """

    probabilities: np.ndarray
    chosen: float


def choose_strength(
    features: np.ndarray,
    labels: np.ndarray,
    class_weight: str | None,
    seed: int,
    grid: Sequence[float] = GRID,
) -> float:
    """The C of `grid` that predicts labels of other folds best; the smallest of equals.

    Args:
      features: float `[M, D]`.
      labels: int `[M]` in 0..C-1, as given.
      class_weight: None, judged by accuracy, or `balanced`, judged by balanced accuracy.
      seed: of the rows and the folds.
      grid: values of C, ascending.
    """
    parts = -(-len(labels) // _ROWS_FOR_CHOICE)
    if parts > 1:
        kept = make_folds(labels, parts, seed) == 0
        features, labels = features[kept], labels[kept]
    fold = make_folds(labels, _FOLDS, seed)
    predicted = np.zeros((len(grid), len(labels)), labels.dtype)
    for number in range(_FOLDS):
        seen, held_out = fold != number, fold == number
        scaler = StandardScaler().fit(features[seen])
        train, test = scaler.transform(features[seen]), scaler.transform(features[held_out])
        model = LogisticRegression(
            class_weight=class_weight, max_iter=_ITERATIONS, tol=_TOLERANCE, warm_start=True
        )
        for i, strength in enumerate(grid):
            _fit(model.set_params(C=strength), train, labels[seen])
            predicted[i, held_out] = model.predict(test)
    measure = accuracy if class_weight is None else balanced_accuracy
    return grid[int(np.argmax([measure(labels, one) for one in predicted]))]


def make_model(strength: float, class_weight: str | None) -> Pipeline:
    """Logistic regression on standardised features, not trained yet."""
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(
            C=strength, class_weight=class_weight, max_iter=_FINAL_ITERATIONS, tol=_FINAL_TOLERANCE
        ),
    )


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    *,
    class_weight: str | None,
    seed: int,
    strength: float | None = None,
) -> Rival:
    """Logistic regression, its C chosen unless it is given.

    Args:
      features: float `[M, D]`.
      labels: int `[M]` in 0..C-1.
      test_features: float `[T, D]`.
      num_classes: C.
      class_weight: None or `balanced`.
      seed: of the choice.
      strength: the parameter C; None to choose it.
    """
    if strength is None:
        strength = choose_strength(features, labels, class_weight, seed)
    model = _fit(make_model(strength, class_weight), features, labels)
    found = model.predict_proba(test_features)
    return Rival(_in_all_classes(found, model.classes_, num_classes), strength)


def clean_learning(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    num_classes: int,
    *,
    class_weight: str | None,
    seed: int,
    strength: float,
) -> Rival:
    """The same in cleanlab's `CleanLearning`: trained anew without the labels that it takes for wrong.

    Arguments as for `logistic_regression`; the C is given.
    """
    from cleanlab.classification import CleanLearning

    learner = CleanLearning(
        make_model(strength, class_weight),
        seed=seed,
        cv_n_folds=_FOLDS,
        find_label_issues_kwargs={"n_jobs": 1},
    )
    _fit(learner, features, labels)
    found = learner.predict_proba(test_features)
    return Rival(_in_all_classes(found, learner.clf.classes_, num_classes), strength)


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, num_classes: int, *, class_weight: str | None, seed: int
) -> np.ndarray:
    """Probabilities float64 `[M, C]` of logistic regressions that have not seen the example, five folds.

    Arguments as for `logistic_regression`; C is chosen once, from all of them.
    """
    strength = choose_strength(features, labels, class_weight, seed)
    fold = make_folds(labels, _FOLDS, seed)
    probabilities = np.zeros((len(labels), num_classes))
    for number in range(_FOLDS):
        held_out = fold == number
        model = _fit(make_model(strength, class_weight), features[~held_out], labels[~held_out])
        found = model.predict_proba(features[held_out])
        probabilities[held_out] = _in_all_classes(found, model.classes_, num_classes)
    return probabilities


def _fit(model, features, labels):
    """Trains as many iterations as there are: that it could have been more is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def _in_all_classes(probabilities, classes, num_classes):
    found = np.zeros((len(probabilities), num_classes))
    found[:, classes] = probabilities
    return found
