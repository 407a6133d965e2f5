"""A base loss and a distillation loss together."""

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays
from dsink_jax.losses._checks import check_at_least


def add_distillation(
    base: jax.Array, distillation: jax.Array, alpha: float | jax.Array = 10.0, *, bounded: bool = True
) -> jax.Array:
    """(base + alpha * distillation) / max(1, (1 + alpha) / 2): steps stay as long as with a single loss.

    The paper's sum multiplies the length of a step by about 1 + alpha, and diverges for large alpha at
    learning rates made for one loss. Divided, the two weights sum to 2 from alpha 1 on.

    Args:
      base: floating `[...]`, values or their mean.
      distillation: floating, of the same shape, such as those of `dsink_loss`.
      alpha: weight of the distillation, at least 0.
      bounded: whether to divide; else the paper's sum.

    Returns:
      `[...]`.

    Raises:
      ValueError: for arrays of other shapes, or a negative alpha.

    Source: D-SINK, arXiv 2510.08179; the division is ours.

    >>> import jax.numpy as jnp
    >>> values = add_distillation(jnp.array([1.0, 2.0]), jnp.array([0.1, 0.5]), alpha=9.0)
    >>> [round(float(value), 3) for value in values]
    [0.38, 1.3]
    """
    check_arrays(base=base, distillation=distillation)
    if base.shape != distillation.shape:
        raise ValueError(
            f"base and distillation must have one shape, got {list(base.shape)} and "
            f"{list(distillation.shape)}."
        )
    alpha = check_at_least(alpha, "alpha", 0)
    total = base + alpha * distillation
    return total / jnp.maximum(1.0, 0.5 * (1.0 + alpha)) if bounded else total
