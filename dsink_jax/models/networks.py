"""What a person may give for a network, and the `Model` that it becomes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, cast

import flax.linen as nn
from flax import nnx

from dsink_jax.errors import InputError
from dsink_jax.models import nnx_modules, pairs
from dsink_jax.models.adapted import COSINES_WANTED, to_model
from dsink_jax.models.call_arguments import parameters, takes_any
from dsink_jax.models.interface import Model, several
from dsink_jax.models.keys import Keyed
from dsink_jax.models.layers import Classifier
from dsink_jax.models.linen_modules import from_linen
from dsink_jax.models.registry import build_model

Pair = tuple[Callable[..., Any], Callable[..., Any]]
Network = str | nn.Module | nnx.Module | Model | Pair | Callable[..., Any]

_KINDS: Final = (
    "a name, a Flax Linen or NNX module, a Model, a pair of functions (init, apply), or a function "
    "that makes one of them from num_classes, classifier or rngs"
)
_OFFERED: Final = ("num_classes", "classifier", "axis_name", "rngs")


def make_model(
    network: Network,
    num_classes: int,
    *,
    classifier: Classifier = "linear",
    networks: int = 1,
    compute_dtype: str = "float32",
    final_norm: bool = True,
) -> Model:
    """The network that a person gives, as the library sees it.

    Equal arguments give the same `Model`, so that what was compiled for one training serves the next. What
    cannot be compared, such as a function, counts as equal to itself alone; functions that make equal Linen
    modules give the same.

    Args:
      network: one of
        a name of `MODELS`;
        a Linen module, see `from_linen`;
        an NNX module: every model starts from the values that it has then. Batch statistics and dropout
          masks are those of the whole batch here too, and `__call__` may take what a Linen module's may;
        a pair `(init, apply)`: `init(key, inputs) -> variables`, a dict with "params" and, if there are any,
          other collections; `apply(variables, inputs, train) -> logits` or `(logits, collections)`. It is
          given `key`, `axis_name` and `features_only` too if it takes them;
        a `Model`;
        a function, or a class, that makes one of these, called with those of `num_classes`, `classifier`,
          `axis_name` (None) and `rngs` (`nnx.Rngs`) that it takes. With `rngs` it must make an NNX module,
          and every model starts anew.
      num_classes: C.
      classifier: `cosine` if the method needs logits that are cosines. A function that takes `classifier`
        is told; of other networks with `features_only` and a kernel `[D, C]` in
        `params["classifier"]["kernel"]` they are computed from those.
      networks: K, see `several`.
      compute_dtype: only for names; see `build_model`.
      final_norm: likewise.

    Raises:
      InputError: for something else, or a network that cannot do what is asked of it.
    """
    if isinstance(network, str):
        model = build_model(
            network, num_classes, compute_dtype=compute_dtype, final_norm=final_norm, classifier=classifier
        )
        return several(model, networks)
    if _is_factory(network):
        network = _made(network, num_classes, classifier, networks)
        if isinstance(network, Model):
            return several(network, networks)
    elif isinstance(network, Model) and classifier == "cosine":
        raise InputError(COSINES_WANTED)
    if isinstance(network, nnx.Module):
        _check_starts_anew(networks)
    return several(_adapted(network, num_classes, classifier), networks)


def _is_factory(network):
    return callable(network) and not isinstance(network, (nn.Module, nnx.Module))


def _made(factory, num_classes, classifier, networks):
    """What a factory makes: a `Model` if it starts anew or cannot be compared, else the module."""
    options = _options(factory, num_classes, classifier)
    if "rngs" in options:
        return _from_rngs(Keyed(factory), num_classes, classifier)
    made = factory(**options)
    if isinstance(made, nn.Module | str):
        # Told already, if it takes that.
        told = "classifier" in options
        return _adapted(made, num_classes, classifier if isinstance(made, str) or not told else "linear")
    if isinstance(made, nnx.Module):
        _check_starts_anew(networks)
    return _from_factory(Keyed(factory), num_classes, classifier)


@functools.lru_cache(maxsize=64)
def _from_rngs(factory, num_classes, classifier):
    options = _options(factory.value, num_classes, classifier)
    told = "classifier" in options
    del options["rngs"]
    adapted = nnx_modules.adapt_factory(lambda rngs: factory.value(**options, rngs=rngs))
    return to_model(adapted, "linear" if told else classifier)


@functools.lru_cache(maxsize=64)
def _from_factory(factory, num_classes, classifier):
    options = _options(factory.value, num_classes, classifier)
    made = factory.value(**options)
    if "classifier" in options:
        classifier = "linear"
    if _is_factory(made):
        raise InputError(f"A function that makes a network made {made!r:.80}; expected {_KINDS}.")
    return _adapted(made, num_classes, classifier)


def _adapted(network, num_classes, classifier):
    """The `Model` of anything but a factory."""
    if isinstance(network, str):
        return build_model(network, num_classes, classifier=classifier)
    if isinstance(network, Model):
        if classifier == "cosine":
            raise InputError(COSINES_WANTED)
        return network
    if isinstance(network, nn.Module):
        return from_linen(network, classifier)
    if isinstance(network, nnx.Module):
        return _from_nnx(Keyed(network), classifier)
    if isinstance(network, tuple | list) and len(network) == 2 and all(map(callable, network)):
        init, apply = cast(Pair, network)
        return _from_pair(Keyed(init), Keyed(apply), classifier)
    raise InputError(f"A network must be {_KINDS}, got {network!r:.80}.")


@functools.lru_cache(maxsize=64)
def _from_nnx(module, classifier):
    return to_model(nnx_modules.adapt(module.value), classifier)


@functools.lru_cache(maxsize=64)
def _from_pair(init, apply, classifier):
    return to_model(pairs.adapt(init.value, apply.value), classifier)


def _options(factory, num_classes, classifier):
    """Arguments for a factory, with None for rngs.

    Raises:
      InputError: if it needs others.
    """
    values = (num_classes, classifier, None, None)
    found = parameters(factory)
    options = {name: value for name, value in zip(_OFFERED, values, strict=True) if name in found}
    if takes_any(factory):
        bound = getattr(factory, "keywords", {})
        options |= {
            name: value for name, value in zip(_OFFERED[:3], values, strict=False) if name not in bound
        }
    missing = [
        name
        for name, parameter in found.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]
    if missing:
        name = getattr(factory, "__name__", type(factory).__name__)
        raise InputError(
            f"{name} needs {', '.join(missing)}, and a function that makes a network is given those of "
            f"{', '.join(_OFFERED)} that it takes. Bind the rest, or give a pair (init, apply)."
        )
    return options


def _check_starts_anew(networks):
    if networks > 1:
        raise InputError(
            f"The method trains {networks} networks, and an NNX module would start them with equal values. "
            "Give a function that takes rngs and makes the module, such as its class."
        )
