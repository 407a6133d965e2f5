"""What a person may give for a network, and the `Model` that it becomes."""

import functools
from collections.abc import Callable
from typing import Any, Final

import flax.linen as nn
import jax
from flax import nnx

from dsink_jax.errors import InputError
from dsink_jax.models.interface import Model, collections_of, several
from dsink_jax.models.layers import Classifier
from dsink_jax.models.linen import from_linen
from dsink_jax.models.nnx import from_nnx
from dsink_jax.models.registry import build_model
from dsink_jax.models.wrapping import NO_COSINES, accepted, as_model, parameters, remembered

Pair = tuple[Callable[..., Any], Callable[..., Any]]
Network = str | nn.Module | nnx.Module | Model | Pair | Callable[..., Any]

_KINDS: Final = (
    "a name, a Flax Linen or NNX module, a Model, a pair of functions (init, apply), or a function that "
    "makes one of them and takes no more than num_classes, classifier, axis_name and rngs"
)


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

    Equal arguments give equal models, so that what was compiled for one training serves the next. A function
    counts as equal to itself alone, while the numbers, strings, lists and dicts that it looks up outside are
    the same; but functions that make equal Linen modules give equal models too.

    Args:
      network: one of
        a name of `MODELS`;
        a Linen module, see `from_linen`, or an NNX module, with whose present values the model starts;
        a pair `(init, apply)`: `init(key, inputs) -> variables`, a dict with "params" and, if there are any,
          other collections; `apply(variables, inputs, train) -> logits` or `(logits, collections)`. It is
          given `key`, `axis_name` and `features_only` too if it takes them, and the mode as a module is;
        a `Model`;
        a function, or a class, that makes one of these, called with those of `num_classes`, `classifier`,
          `axis_name` (None) and `rngs` (`nnx.Rngs`) that it takes. With `rngs` it must make an NNX module,
          and every model starts anew.
      num_classes: C.
      classifier: `cosine` if the method needs logits that are cosines. A function that takes `classifier`
        sees to it; else they are computed of features and `params["classifier"]["kernel"]`.
      networks: K, see `several`.
      compute_dtype: only for names; see `build_model`.
      final_norm: likewise.

    Raises:
      InputError: for something else, or a network that cannot do what is asked of it.
    """
    if callable(network) and not isinstance(network, nn.Module | nnx.Module):
        network, classifier = _made(network, num_classes, classifier)
    if isinstance(network, str):
        named: dict[str, Any] = {"compute_dtype": compute_dtype, "final_norm": final_norm}
        model = build_model(network, num_classes, classifier=classifier, **named)
    elif isinstance(network, Model):
        model = network
        if classifier == "cosine":
            raise InputError(NO_COSINES)
    elif isinstance(network, nn.Module):
        model = from_linen(network, classifier)
    elif isinstance(network, nnx.Module | functools.partial):
        model = from_nnx(network, classifier)
    elif isinstance(network, tuple | list) and len(network) == 2 and all(map(callable, network)):
        model = _from_pair(tuple(network), classifier)
    else:
        raise InputError(f"A network must be {_KINDS}, got {network!r:.80}.")
    return several(model, networks)


def _made(factory, num_classes, classifier):
    """What a factory makes, or of `rngs` what makes it, and the classifier that is still to be made of it."""
    takes = parameters(factory)
    options = accepted(factory, num_classes=num_classes, classifier=classifier, axis_name=None)
    needs = [name for name, one in takes.items() if one.default is one.empty and name not in options]
    to_do = "linear" if "classifier" in options else classifier
    if any(name != "rngs" for name in needs):
        raise InputError(f"A network must be {_KINDS}, and {factory!r:.80} needs {', '.join(needs)}.")
    if "rngs" in takes:
        return functools.partial(factory, **options), to_do
    made = _made_once(functools.partial(factory, **options))
    return made, classifier if isinstance(made, str) else to_do


@remembered
def _made_once(make, _):
    return make()


@remembered
def _from_pair(pair: Pair, classifier: Classifier) -> Model:
    init, apply = pair

    @jax.jit
    def checked_init(key, inputs):
        variables = init(key, inputs) if len(parameters(init)) != 1 else init(key)
        if not isinstance(variables, dict) or "params" not in variables:
            found = sorted(variables) if isinstance(variables, dict) else type(variables).__name__
            raise InputError(f'init must return a dict with "params", and other collections, got {found}.')
        return dict(variables)

    def run(variables, inputs, train, key, axis_name, features_only):
        before = collections_of(variables)
        options = accepted(apply, train=train, key=key, axis_name=axis_name, features_only=features_only)
        result = apply(variables, inputs, **options)
        outputs, updated = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        after = {name: updated.get(name, tree) for name, tree in before.items()} if train else before
        if axis_name is not None and "axis_name" not in options and jax.lax.axis_size(axis_name) > 1:
            leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
            if "key" in options or any(one is not other for one, other in leaves):
                raise InputError(
                    "On several devices apply sees only a part of the batch, and it draws random numbers or "
                    "changes collections: let it take axis_name (a mapped axis or None)."
                )
        return outputs, after

    return as_model(checked_init, run, apply, classifier)
