"""Checks of arguments that are to be arrays, for every public function that takes some."""

from typing import Any

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
