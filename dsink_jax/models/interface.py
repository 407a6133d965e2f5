"""What the rest of the library sees of a network: pure functions of its variables."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.errors import InputError

Variables = dict[str, Any]


class Model(NamedTuple):
    """A network as pure functions.

    It knows no devices: where a batch is split over a mapped axis, the name of the axis is given with it.

    Attributes:
      init: `(key, inputs [n, ...]) -> variables`, a dict with "params" and a collection for each other kind
        of array, such as "batch_stats". All are plain arrays. The last layer's parameters lie in
        `params["classifier"]` as "kernel" `[D, C]` and, if there is one, "bias" `[C]`, where a method is to
        reach them.
      apply: `(variables, inputs, *, train=False, key=None, axis_name=None) -> (logits float32 [n, C],
        collections)`; `[K, n, C]` for several networks. The collections are all but "params", `{}` if there
        are none: updated in training mode, as they were in evaluation mode. In training mode `key`, the same
        on all devices, is for dropout and other random layers, and batch statistics and dropout masks are
        those of the whole batch over the mapped axis `axis_name` (None: not mapped).
      features: `(variables, inputs) -> float32 [n, D]` in evaluation mode, what the last layer is given; None
        if the network does not tell.
      networks: how many networks this is; see `several`.
    """

    init: Callable[[jax.Array, Any], Variables]
    apply: Callable[..., tuple[jax.Array, dict[str, Any]]]
    features: Callable[[Variables, Any], jax.Array] | None = None
    networks: int = 1


def collections_of(variables: Variables) -> dict[str, Any]:
    """All but the parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def same_structure(one: Any, other: Any) -> bool:
    """Whether two trees differ in their leaves at most."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (one, other)]
    return structures[0] == structures[1]


# The same functions for the same model, so that what is compiled for one training serves the next.
@functools.lru_cache(maxsize=64)
def several(model: Model, networks: int) -> Model:
    """As many independent networks, trained side by side by one method.

    Args:
      model: one network.
      networks: K, at least 1; 1 gives the model back.

    Returns:
      A `Model` whose collections have a level more, named `network_0` and so on, and whose logits are
      `[K, n, C]`. All networks get the same inputs, or a tuple of K arrays gives each its own. Each draws
      random numbers of its own.

    Raises:
      InputError: for no network, or a model that has several already.
    """
    if networks < 1:
        raise InputError(f"networks must be at least 1, got {networks}.")
    if networks == model.networks:
        return model
    if model.networks != 1:
        raise InputError(f"This model is {model.networks} networks already, and {networks} are needed.")
    names = [f"network_{k}" for k in range(networks)]

    def init(key, inputs):
        return _by_collection(names, [model.init(k, inputs) for k in jax.random.split(key, networks)])

    def apply(variables, inputs, *, train=False, key=None, axis_name=None):
        each = inputs if isinstance(inputs, tuple) else (inputs,) * networks
        # A loop, not vmap: kernels with a batch axis become grouped convolutions, slow on CPU.
        outputs = [
            model.apply(
                {kind: tree[name] for kind, tree in variables.items()},
                own,
                train=train,
                key=None if key is None else jax.random.fold_in(key, k),
                axis_name=axis_name,
            )
            for k, (name, own) in enumerate(zip(names, each, strict=True))
        ]
        logits, collections = zip(*outputs, strict=True)
        return jnp.stack(logits), _by_collection(names, collections)

    return Model(init, apply, None, networks)


def _by_collection(names, parts):
    """Variables of each network, to `{collection: {network: ...}}`."""
    return {kind: dict(zip(names, (part[kind] for part in parts), strict=True)) for kind in parts[0]}
