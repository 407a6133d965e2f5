"""What the rest of the library sees of a network: an (init, apply) pair of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Variables = dict[str, Any]


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: `(key, images [N, H, W, channels]) -> variables`, a dict with "params" and, if the network
        normalises by batch, "batch_stats".
      apply: `(variables, images, train) -> (logits float32 [N, C], batch_stats)`. In training mode batch
        statistics are those of the whole batch over the mapped axis the model was made for, and the
        moving averages are returned updated; in evaluation mode they are returned as they were.
    """

    init: Callable[[jax.Array, jax.Array], Variables]
    apply: Callable[[Variables, jax.Array, bool], tuple[jax.Array, Any]]


def from_linen(make_module: Callable[..., nn.Module], axis_name: str | None = None) -> Model:
    """Wraps a Flax Linen module.

    Args:
      make_module: `make_module(axis_name=...)` gives a module called as `module(images, train=bool)` that
        returns logits; batch normalisation must use the axis name it is given.
      axis_name: mapped axis over which a batch is split in training, or None.

    Returns:
      The `Model`. Its variables are the same whatever the axis name.
    """
    module = make_module(axis_name=axis_name)
    # Shapes and initial values do not depend on the axis, which is not mapped at initialisation.
    initial = make_module(axis_name=None)

    @jax.jit
    def init(key, images):
        return dict(initial.init(key, images, train=False))

    def apply(variables, images, train):
        if train and "batch_stats" in variables:
            logits, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
            batch_stats = updated["batch_stats"]
        else:
            logits = module.apply(variables, images, train=train)
            batch_stats = variables.get("batch_stats", {})
        return logits.astype(jnp.float32), batch_stats

    return Model(init, apply)
