"""Examples that are only padding: no value, no gradient, whatever they hold."""

from typing import Any

import jax
import jax.numpy as jnp


def without_padding(where: jax.Array | None, *arrays: Any) -> tuple[Any, ...]:
    """The arrays `[...]` or `[..., C]` with 0 where `where`, bool `[...]`, is False.

    Cleaned before the arithmetic, so that NaN in padding reaches neither value nor gradient.
    """
    if where is None:
        return arrays
    return tuple(
        jnp.where(where if array.ndim == where.ndim else where[..., None], array, jnp.zeros((), array.dtype))
        for array in arrays
    )


def zero_padding(values: jax.Array, where: jax.Array | None) -> jax.Array:
    """The values `[...]`, 0 for padding."""
    return values if where is None else jnp.where(where, values, 0.0)
