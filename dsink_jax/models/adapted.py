"""A person's network behind one function, and the `Model` made of it, with the last layer a method needs."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.errors import InputError
from dsink_jax.models.interface import Model, Variables
from dsink_jax.models.layers import Classifier, cosines

COSINES_WANTED: Final = (
    "The method needs logits that are cosines, and the network does not tell how. Give a function that takes "
    'classifier ("linear" or "cosine"), or let the network take features_only=True, with its last layer\'s '
    'kernel [D, C] in params["classifier"]["kernel"].'
)


class Adapted(NamedTuple):
    """A network of any kind.

    Attributes:
      init: `(key, inputs) -> variables`.
      run: `(variables, inputs, *, train, key, axis_name, features_only) -> (outputs, collections)`.
      tells: whether it may be run with `features_only`.
    """

    init: Callable[[jax.Array, Any], Variables]
    run: Callable[..., tuple[Any, dict[str, Any]]]
    tells: bool


def to_model(network: Adapted, classifier: Classifier = "linear") -> Model:
    """The network as a `Model`.

    Args:
      network: of any kind.
      classifier: `linear` leaves the network's outputs as they are; `cosine` makes logits of its features and
        the kernel of its last layer, cosines in [-1, 1], in training too; a bias of that layer is not used.

    Raises:
      InputError: for cosines of a network that does not tell its features.
    """

    def apply(variables, inputs, *, train=False, key=None, axis_name=None):
        outputs, collections = network.run(
            variables, inputs, train=train, key=key, axis_name=axis_name, features_only=False
        )
        return _floats(outputs, "logits [n, C]"), collections

    def features(variables, inputs):
        outputs, _ = network.run(variables, inputs, train=False, key=None, axis_name=None, features_only=True)
        return _floats(outputs, "features [n, D]")

    def cosine_init(key, inputs):
        variables = network.init(key, inputs)
        if kernel_of(variables["params"]) is None:
            raise InputError(COSINES_WANTED)
        return variables

    def cosine_apply(variables, inputs, *, train=False, key=None, axis_name=None):
        outputs, collections = network.run(
            variables, inputs, train=train, key=key, axis_name=axis_name, features_only=True
        )
        kernel = variables["params"]["classifier"]["kernel"]
        return cosines(_floats(outputs, "features [n, D]"), kernel, jnp.float32), collections

    if classifier == "cosine":
        if not network.tells:
            raise InputError(COSINES_WANTED)
        return Model(cosine_init, cosine_apply, features)
    return Model(network.init, apply, features if network.tells else None)


def kernel_of(params: Any) -> Any | None:
    """The last layer's kernel `[D, C]`, if it lies where a method can reach it."""
    layer = params.get("classifier") if isinstance(params, dict) else None
    kernel = layer.get("kernel") if isinstance(layer, dict) else None
    return kernel if getattr(kernel, "ndim", None) == 2 else None


def _floats(outputs, expected):
    """Outputs as float32, if they are numbers that may be taken for it."""
    dtype = getattr(outputs, "dtype", None)
    if dtype is None:
        raise InputError(f"The network must return one array, {expected}, got {type(outputs).__name__}.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"The network must return floating {expected}, got {dtype} {list(outputs.shape)}.")
    return outputs.astype(jnp.float32)
