"""Checks of arguments, for every public function that takes arrays."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_arrays(**values: Any) -> None:
    """Raises `ValueError` unless all values are arrays, of JAX or NumPy, of a type that JAX has."""
    for name, value in values.items():
        if not (hasattr(value, "shape") and hasattr(value, "dtype")):
            raise ValueError(f"{name} must be an array, got {type(value).__name__}.")
        if isinstance(value, np.ndarray) and not (value.dtype.isnative and value.dtype.itemsize <= 8):
            raise ValueError(f"{name} must have a type that JAX has, such as float32, got {value.dtype.str}.")


def check_where(where: Any, logits: Any) -> None:
    """Raises `ValueError` unless `where` is None or bool `[N]` for `logits` `[N, C]`."""
    if where is None:
        return
    check_arrays(where=where)
    if where.shape != logits.shape[:1] or where.dtype != bool:
        raise ValueError(
            f"where must be bool [N] = [{logits.shape[0]}], got {where.dtype} {list(where.shape)}."
        )


def check_batch(logits: Any, where: Any, *, name: str = "logits", **others: Any) -> None:
    """Raises `ValueError` unless all logits are floating `[N, C]` alike and `where` is bool `[N]`."""
    for key, value in {name: logits, **others}.items():
        check_arrays(**{key: value})
        if value.ndim != 2 or value.size == 0:
            least = " N and C must be at least 1." if value.ndim == 2 else ""
            raise ValueError(f"{key} must have shape [N, C], got {list(value.shape)}.{least}")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{key} must be floating point, got {value.dtype}.")
        if value.shape != logits.shape:
            raise ValueError(
                f"{key} must have the shape of {name}, {list(logits.shape)}, got {list(value.shape)}."
            )
    check_where(where, logits)


def check_class_marginal(class_marginal: Any, logits: Any) -> None:
    """Raises `ValueError` unless `class_marginal` is floating `[C]` for `logits` `[N, C]`."""
    check_arrays(class_marginal=class_marginal)
    if class_marginal.shape != logits.shape[1:]:
        raise ValueError(
            f"class_marginal must have shape [C] = [{logits.shape[1]}] to go with logits "
            f"{list(logits.shape)}, got {list(class_marginal.shape)}."
        )
    if not jnp.issubdtype(class_marginal.dtype, jnp.floating):
        raise ValueError(f"class_marginal must be floating point, got {class_marginal.dtype}.")


def check_positive(**numbers_by_name: Any) -> None:
    """Raises `ValueError` unless all are positive numbers; those that are traced cannot be looked at."""
    for name, value in numbers_by_name.items():
        is_number = isinstance(value, numbers.Real | jax.Array)
        # As a Python number: within `jit` JAX would trace the comparison.
        if not is_number or not (isinstance(value, jax.core.Tracer) or float(value) > 0):
            raise ValueError(f"{name} must be positive, got {value!r}.")


def check_max_iterations(max_iterations: Any) -> None:
    """Raises `ValueError` unless it is an integer that counts iterations."""
    if not isinstance(max_iterations, int | np.integer):
        raise ValueError(f"max_iterations must be an integer, got {max_iterations!r}.")
    if not 1 <= max_iterations < 2**31:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}, and below 2^31.")
