"""D-SINK in JAX: learning from data that is long-tailed and mislabelled at once.

For a trainer of one's own there are `dsink_loss` and `surrogate_labels`, and `multilabel_dsink_loss` for
several labels an example, `open_set_dsink_loss` for examples of no class; `fit` and `DSinkClassifier` take
arrays, and `audit` finds wrong labels. Importing the package costs little more than importing JAX and Optax;
OTT-JAX is imported when the first problem is solved, and the rest when it is first named.
"""

import importlib
from typing import TYPE_CHECKING

from dsink_jax import losses
from dsink_jax.allocation import Allocation, class_marginal, surrogate_labels
from dsink_jax.errors import InputError
from dsink_jax.losses import (
    dsink_loss,
    multilabel_dsink_loss,
    naive_distillation_loss,
    open_set_dsink_loss,
)
from dsink_jax.multilabel import (
    MultilabelAllocation,
    multilabel_class_marginal,
    multilabel_surrogate_labels,
)
from dsink_jax.open_set import (
    OpenSetAllocation,
    estimate_known_share,
    open_set_class_marginal,
    open_set_surrogate_labels,
)

if TYPE_CHECKING:  # what __getattr__ imports when it is named
    from dsink_jax.estimator import FittedDSink, fit
    from dsink_jax.estimator.classifier import DSinkClassifier

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "DSinkClassifier",
    "FittedDSink",
    "InputError",
    "MultilabelAllocation",
    "OpenSetAllocation",
    "class_marginal",
    "dsink_loss",
    "estimate_known_share",
    "fit",
    "losses",
    "multilabel_class_marginal",
    "multilabel_dsink_loss",
    "multilabel_surrogate_labels",
    "naive_distillation_loss",
    "open_set_class_marginal",
    "open_set_dsink_loss",
    "open_set_surrogate_labels",
    "surrogate_labels",
]

_LAZY_SUBPACKAGES = ("audit", "data", "estimator", "evaluation", "methods", "models", "report", "training")
_LAZY_NAMES = {
    "DSinkClassifier": "dsink_jax.estimator.classifier",
    "FittedDSink": "dsink_jax.estimator",
    "fit": "dsink_jax.estimator",
}


def __getattr__(name):
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    if name in _LAZY_SUBPACKAGES:
        return importlib.import_module(f"dsink_jax.{name}")
    raise AttributeError(f"module 'dsink_jax' has no attribute {name!r}")
