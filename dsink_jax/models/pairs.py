"""A network as two functions of a person's own, (init, apply), from whatever library."""

from collections.abc import Callable
from typing import Any

import jax

from dsink_jax.errors import InputError
from dsink_jax.models.adapted import Adapted
from dsink_jax.models.call_arguments import mode, parameters, taken
from dsink_jax.models.interface import collections_of


def adapt(init: Callable, apply: Callable) -> Adapted:
    """The pair behind one function.

    Args:
      init: `(key, inputs) -> variables`, a dict with "params" and other collections, if there are any.
      apply: `(variables, inputs, train)`, and `key`, `axis_name` and `features_only` if it takes them, `->
        logits` or `(logits, collections)`. The mode may have another name, or not be taken.
    """
    named = mode(apply, True)
    # Two are the variables and the inputs.
    by_place = not named and len(parameters(apply).keys() - {"key", "axis_name", "features_only"}) > 2

    @jax.jit
    def initial(key, inputs):
        variables = init(key, inputs) if len(parameters(init)) != 1 else init(key)
        if not isinstance(variables, dict) or "params" not in variables:
            raise InputError(
                'init must return a dict with "params" (and other collections, if any), got '
                f"{sorted(variables) if isinstance(variables, dict) else type(variables).__name__}."
            )
        return dict(variables)

    def run(variables, inputs, *, train, key, axis_name, features_only):
        before = collections_of(variables)
        offered = taken(apply, key=key if train else None, axis_name=axis_name if train else None)
        if features_only:
            offered["features_only"] = True
        place = (train,) if by_place else ()
        result = apply(variables, inputs, *place, **mode(apply, train), **offered)
        outputs, collections = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not train:
            return outputs, before
        after = {name: collections.get(name, tree) for name, tree in before.items()}
        if axis_name is not None and "axis_name" not in offered and jax.lax.axis_size(axis_name) > 1:
            _check_alone("key" in offered, before, after)
        return outputs, after

    return Adapted(initial, run, "features_only" in parameters(apply))


def _check_alone(draws: bool, before: Any, after: Any) -> None:
    """Raises `InputError` for a network that would see, or draw, only its own device's part of the batch."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    if draws or any(one is not other for one, other in pairs):
        does = "draws random numbers" if draws else "changes collections in training"
        raise InputError(
            f"apply {does} and takes no axis_name: on several devices it would see only a part of the batch. "
            "Let it take axis_name (a mapped axis or None), or train on one device."
        )
