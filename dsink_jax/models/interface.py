"""What the rest of the library sees of a network: pure functions of its variables."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.errors import InputError

Variables = dict[str, Any]


class Model(NamedTuple):
    """A network as pure functions. Models that differ only in the values that they start with are equal.

    Attributes:
      init: `(key, inputs [n, ...]) -> variables`, plain arrays in a dict with "params" and a collection for
        each other kind, such as "batch_stats". Where a method is to reach the last layer, it is
        `params["classifier"]`, "kernel" `[D, C]` and, if there is one, "bias" `[C]`.
      apply: `(variables, inputs, *, train=False, key=None, axis_name=None) -> (logits float32 [n, C],
        collections)`; `[K, n, C]` for several networks. The collections, all but "params", are updated in
        training mode. There `key`, the same on all devices, is for dropout and other random layers, and
        batch statistics and dropout masks are those of the whole batch over the mapped axis `axis_name`.
      features: `(variables, inputs) -> float32 [n, D]` in evaluation mode, what the last layer is given;
        `[K, n, D]` for several networks. None if the network does not tell.
      networks: how many networks this is; see `several`.
    """

    init: Callable[[jax.Array, Any], Variables]
    apply: Callable[..., tuple[jax.Array, dict[str, Any]]]
    features: Callable[[Variables, Any], jax.Array] | None = None
    networks: int = 1

    @property
    def kind(self) -> "Model":
        """What is compiled depends on, for caches: an NNX module's without its values, `init` gives zeros."""
        return self._replace(init=getattr(self.init, "without_values", self.init))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and tuple(self.kind) == tuple(other.kind)

    def __ne__(self, other: object) -> bool:  # else that of tuples
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self.kind))


def collections_of(variables: Variables) -> dict[str, Any]:
    """All but the parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def several(model: Model, networks: int) -> Model:
    """K independent networks, trained side by side by one method; for K = 1 the model itself.

    Collections have a level more, named `network_0` and so on, logits are `[K, n, C]`, and features, if the
    network tells them, `[K, n, D]`. All networks get the same inputs, or a tuple of K arrays gives each its
    own. Each draws random numbers of its own. The same model gives the same; `InputError` for K < 1, or a
    model that has several already or starts with the values of one NNX module.
    """
    if networks < 1:
        raise InputError(f"networks must be at least 1, got {networks}.")
    if networks == model.networks:
        return model
    if model.networks != 1:
        raise InputError(f"This model is {model.networks} networks already, and {networks} are needed.")
    if hasattr(model.init, "without_values"):
        equal = f"An NNX module would start {networks} networks with equal values"
        raise InputError(f"{equal}: give a function of rngs that makes it, such as its class.")
    return _several(model, networks)


@functools.lru_cache(maxsize=64)
def _several(model, networks):
    names = [f"network_{k}" for k in range(networks)]

    def by_collection(parts):
        return {kind: dict(zip(names, (part[kind] for part in parts), strict=True)) for kind in parts[0]}

    def of_network(variables, name):
        return {kind: tree[name] for kind, tree in variables.items()}

    def init(key, inputs):
        return by_collection([model.init(k, inputs) for k in jax.random.split(key, networks)])

    def apply(variables, inputs, *, train=False, key=None, axis_name=None):
        each = inputs if isinstance(inputs, tuple) else (inputs,) * networks
        outputs = []
        # A loop, not vmap: kernels with a batch axis become grouped convolutions, slow on CPU.
        for k, (name, own) in enumerate(zip(names, each, strict=True)):
            own_key = None if key is None else jax.random.fold_in(key, k)
            of_one = of_network(variables, name)
            outputs.append(model.apply(of_one, own, train=train, key=own_key, axis_name=axis_name))
        logits, collections = zip(*outputs, strict=True)
        return jnp.stack(logits), by_collection(collections)

    def features(variables, inputs):
        return jnp.stack([model.features(of_network(variables, name), inputs) for name in names])

    return Model(init, apply, None if model.features is None else features, networks)
