"""D-SINK in JAX: learning from data that is long-tailed and mislabelled at once.

The two functions most people need are `dsink_loss` and `surrogate_labels`. Importing the package costs
little more than importing JAX and Optax; OTT-JAX is imported when the first problem is solved, and the
subpackages `data`, `methods`, `models`, `training` and `report` when they are first named.
"""

import importlib

from dsink_jax import losses
from dsink_jax.allocation import Allocation, class_marginal, surrogate_labels
from dsink_jax.errors import InputError
from dsink_jax.losses import dsink_loss, naive_distillation_loss

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "InputError",
    "class_marginal",
    "dsink_loss",
    "losses",
    "naive_distillation_loss",
    "surrogate_labels",
]

_LAZY_SUBPACKAGES = ("data", "evaluation", "methods", "models", "report", "training")


def __getattr__(name):
    if name in _LAZY_SUBPACKAGES:
        return importlib.import_module(f"dsink_jax.{name}")
    raise AttributeError(f"module 'dsink_jax' has no attribute {name!r}")
