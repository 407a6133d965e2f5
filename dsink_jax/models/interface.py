"""What the rest of the library sees of a network: an (init, apply) pair of pure functions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Variables = dict[str, Any]


class Model(NamedTuple):
    """A network as pure functions.

    Attributes:
      init: `(key, images [N, H, W, channels]) -> variables`, a dict with "params" and, if the network
        normalises by batch, "batch_stats". The last layer's parameters lie in `params["classifier"]` as
        "kernel" `[D, C]` and, if there is one, "bias" `[C]`, where a method is to reach them.
      apply: `(variables, images, train) -> (logits float32 [N, C], batch_stats)`. In training mode batch
        statistics are those of the whole batch over the mapped axis the model was made for, and the
        moving averages are returned updated; in evaluation mode they are returned as they were.
      features: `(variables, images) -> float32 [N, D]` in evaluation mode, what the last layer is given; None
        if the network does not tell.
      networks: how many networks this is; see `several`.
    """

    init: Callable[[jax.Array, jax.Array], Variables]
    apply: Callable[[Variables, Any, bool], tuple[jax.Array, Any]]
    features: Callable[[Variables, jax.Array], jax.Array] | None = None
    networks: int = 1


def from_linen(make_module: Callable[..., nn.Module], axis_name: str | None = None) -> Model:
    """Wraps a Flax Linen module.

    Args:
      make_module: `make_module(axis_name=...)` gives a module called as `module(images, train=bool)` that
        returns logits; batch normalisation must use the axis name it is given. If it also takes
        `features_only=True` and then returns what its last layer is given, methods that need features can
        use it.
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

    def features(variables, images):
        found: Any = module.apply(variables, images, train=False, features_only=True)
        return found.astype(jnp.float32)

    tells = "features_only" in inspect.signature(type(module).__call__).parameters
    return Model(init, apply, features if tells else None)


def several(model: Model, networks: int) -> Model:
    """As many independent networks, trained side by side by one method.

    Args:
      model: one network.
      networks: K, at least 1; 1 gives the model back.

    Returns:
      A `Model` whose variables have a level more, named `network_0` and so on, and whose logits are
      `[K, N, C]`. All networks get the same images, or a tuple of K arrays gives each its own.

    Raises:
      ValueError: for no network.
    """
    if networks < 1:
        raise ValueError(f"networks must be at least 1, got {networks}.")
    if networks == 1:
        return model
    names = [f"network_{k}" for k in range(networks)]

    def init(key, images):
        parts = [model.init(k, images) for k in jax.random.split(key, networks)]
        return {
            collection: dict(zip(names, (part.get(collection, {}) for part in parts), strict=True))
            for collection in ("params", "batch_stats")
        }

    def apply(variables, images, train):
        each = images if isinstance(images, tuple) else (images,) * networks
        # A loop, not vmap: kernels with a batch axis become grouped convolutions, slow on CPU.
        outputs = [
            model.apply({kind: tree[name] for kind, tree in variables.items()}, own, train)
            for name, own in zip(names, each, strict=True)
        ]
        return jnp.stack([logits for logits, _ in outputs]), dict(
            zip(names, (batch_stats for _, batch_stats in outputs), strict=True)
        )

    return Model(init, apply, None, networks)
