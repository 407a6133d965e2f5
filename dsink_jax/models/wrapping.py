"""What the wrappers of Linen modules, NNX modules and pairs of functions share."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Final

import jax.numpy as jnp
from flax import nnx

from dsink_jax.errors import InputError
from dsink_jax.models.interface import Model
from dsink_jax.models.layers import Classifier, cosines

NO_COSINES: Final = (
    "The method needs logits that are cosines: give a function that takes classifier (linear or cosine), or "
    'one that takes features_only=True and has its last kernel [D, C] in params["classifier"]["kernel"].'
)


def remembered(build: Callable[[Any, Classifier], Any]) -> Callable[..., Any]:
    """Makes `build` give the same of equal networks, but for an NNX module: no cache keeps its values."""
    found: dict[Any, Any] = {}

    @functools.wraps(build)
    def once(network, classifier="linear"):
        key = (_key(network), _looked_up(network), classifier)
        built = found[key] if key in found else build(network, classifier)
        if not isinstance(built, nnx.Module) and not hasattr(getattr(built, "init", None), "without_values"):
            found[key] = built
            if len(found) > 64:
                del found[next(iter(found))]
        return built

    return once


def _key(value):
    """A value to compare by: containers and partials by their parts, what has no hash by identity."""
    if isinstance(value, functools.partial):
        return functools.partial, *map(_key, (value.func, value.args, value.keywords))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_key, value))
    if isinstance(value, dict):
        return dict, frozenset((name, _key(one)) for name, one in value.items())
    try:
        return type(value), value, hash(value)
    except TypeError:
        return types.MethodType(id, value)  # which is equal for the same object alone, and keeps it


def _looked_up(factory):
    """The plain values that a function reads outside itself: if they change, it may make something else."""
    factory = factory.func if isinstance(factory, functools.partial) else factory
    if not inspect.isfunction(factory):
        return ()
    nonlocals, others, *_ = inspect.getclosurevars(factory)
    plain = str | int | float | list | tuple | dict | None
    return _key({name: one for name, one in {**others, **nonlocals}.items() if isinstance(one, plain)})


def parameters(call: Callable) -> dict[str, inspect.Parameter]:
    """Parameters that may be given by name and are not bound yet, of a class those of its `__init__`."""
    bound = call if isinstance(call, functools.partial) else functools.partial(call)
    if isinstance(bound.func, type):  # whose metaclass may hide them
        init: Any = inspect.getattr_static(bound.func, "__init__")
        bound = functools.partial(init, None, *bound.args, **bound.keywords)
    found = inspect.signature(bound).parameters
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in found.items() if one.kind in by_name and name not in bound.keywords}


def accepted(call: Callable, *, train: bool | None = None, **offered: Any) -> dict[str, Any]:
    """Those of the offered arguments that a call takes, and the mode under the name that it has for it."""
    if train is not None:
        offered |= {"train": train, "training": train, "is_training": train, "deterministic": not train}
    names = parameters(call)
    return {name: value for name, value in offered.items() if name in names}


def as_model(init: Callable, run: Callable, call: Callable, classifier: Classifier) -> Model:
    """A wrapped network as a `Model`.

    Args:
      init: `(key, inputs) -> variables`.
      run: `(variables, inputs, train, key, axis_name, features_only) -> (outputs, collections)`; key and
        axis_name are None outside training.
      call: what a person wrote; the network tells its features if this takes `features_only`.
      classifier: `cosine` makes logits the cosines of features and last kernel, without the layer's bias.

    Raises:
      InputError: for cosines of a network that does not tell its features or, when applied, its kernel.
    """

    def outputs(features_only, variables, inputs, train=False, key=None, axis_name=None):
        found, collections = run(variables, inputs, train, key, axis_name, features_only)
        if not jnp.issubdtype(getattr(found, "dtype", bool), jnp.floating):
            expected = "features [n, D]" if features_only else "logits [n, C]"
            got = getattr(found, "dtype", type(found).__name__)
            raise InputError(f"The network must return one floating array, {expected}, got {got}.")
        return found.astype(jnp.float32), collections

    def apply(variables, inputs, *, train=False, key=None, axis_name=None):
        during = (train, key, axis_name) if train else ()
        found, collections = outputs(classifier == "cosine", variables, inputs, *during)
        if classifier == "cosine":
            if (kernel := kernel_of(variables["params"])) is None:
                raise InputError(NO_COSINES)
            found = cosines(found, kernel, jnp.float32)
        return found, collections

    has_features = "features_only" in parameters(call)
    if classifier == "cosine" and not has_features:
        raise InputError(NO_COSINES)
    features = (lambda variables, inputs: outputs(True, variables, inputs)[0]) if has_features else None
    return Model(init, apply, features)


def kernel_of(params: Any) -> Any | None:
    """The last layer's kernel `[D, C]`, if it lies where a method can reach it."""
    layer = params.get("classifier") if isinstance(params, dict) else None
    kernel = layer.get("kernel") if isinstance(layer, dict) else None
    return kernel if getattr(kernel, "ndim", None) == 2 else None
