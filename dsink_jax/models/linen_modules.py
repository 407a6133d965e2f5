"""Flax Linen modules: batch statistics and dropout masks of the whole batch, whoever wrote the module."""

import contextlib
import functools
import inspect
from typing import Any

import flax.linen as nn
import jax

from dsink_jax.models.adapted import Adapted, to_model
from dsink_jax.models.call_arguments import mode, parameters, taken
from dsink_jax.models.interface import Model, collections_of, same_structure
from dsink_jax.models.keys import Keyed
from dsink_jax.models.layers import Classifier
from dsink_jax.models.whole_batch import Dropout, check_attention, run_as_whole_batch


def from_linen(module: nn.Module, classifier: Classifier = "linear") -> Model:
    """Wraps a Flax Linen module.

    It is called as `module(inputs, train=bool)`; `training`, `is_training` or `deterministic` in place of
    `train`, or no mode at all, will do. If it also takes `features_only=True` and then returns what its last
    layer is given, `[n, D]`, methods that need features can use it. It need not know of devices: its
    `nn.BatchNorm` and `nn.Dropout` layers are made to see the whole batch. A layer of its own that looks over
    the batch can take `axis_name` in `__call__`, None outside training.

    Collections that a step would give another structure, such as values that are sown, stay as they were.

    Args:
      module: a module, not bound to variables.
      classifier: `cosine` makes cosines of its features; see `adapted.to_model`.

    Returns:
      The same `Model` for an equal module.

    Raises:
      InputError: for cosines of a module that does not tell its features.
    """
    return _model(Keyed(module), classifier)


@functools.lru_cache(maxsize=64)
def _model(module, classifier):
    return to_model(adapt(module.value), classifier)


def adapt(module: nn.Module) -> Adapted:
    """The module behind one function."""
    call = type(module).__call__
    evaluation: dict[str, Any] = mode(call, False)

    @jax.jit
    def init(key, inputs):
        found = dict(module.init(key, inputs, **evaluation))
        return {"params": found.pop("params", {}), **found}

    def run(variables, inputs, *, train, key, axis_name, features_only):
        kept = collections_of(variables)
        rngs = None
        if train and key is not None:
            rngs = {"params": key, "dropout": jax.random.fold_in(key, 1)}

        def applied(inputs, dropout):
            offered = taken(call, axis_name=axis_name if train else None)
            options: dict[str, Any] = {**mode(call, train), **offered}
            if features_only:
                options["features_only"] = True
            with _as_whole_batch(axis_name, dropout) if train and axis_name else contextlib.nullcontext():
                if train and kept:
                    return module.apply(variables, inputs, rngs=rngs, mutable=list(kept), **options)
                return module.apply(variables, inputs, rngs=rngs, **options), kept

        outputs, updated = run_as_whole_batch(applied, inputs, axis_name if train else None)
        return outputs, {name: _unless_changed(tree, updated.get(name)) for name, tree in kept.items()}

    return Adapted(init, run, "features_only" in parameters(call))


def _unless_changed(before, after):
    """What is after a step, if it has the structure of what was before."""
    return after if same_structure(before, after) else before


_BATCH_NORM = inspect.unwrap(nn.BatchNorm.__call__)
_DROPOUT = inspect.unwrap(nn.Dropout.__call__)
_ATTENTION = inspect.unwrap(nn.MultiHeadDotProductAttention.__call__)


def _as_whole_batch(axis_name: str, dropout: Dropout | None):
    """Layers called in this context see the whole batch of a mapped axis."""

    def intercept(next_call, args, kwargs, context):
        # The layer's own code, also where a subclass calls it.
        code = getattr(context.orig_method, "func", None)
        layer: Any = context.module
        if code is _BATCH_NORM and layer.axis_name is None:
            object.__setattr__(layer, "axis_name", axis_name)
            try:
                return next_call(*args, **kwargs)
            finally:
                object.__setattr__(layer, "axis_name", None)
        if dropout is None:
            return next_call(*args, **kwargs)
        if code is _DROPOUT:
            bound = inspect.signature(code).bind(layer, *args, **kwargs).arguments
            if not _either(layer.deterministic, bound.get("deterministic")) and layer.rate > 0:
                given = {name: bound[name] for name in ("deterministic", "rng") if name in bound}
                return dropout(functools.partial(next_call, **given), bound["inputs"], layer.rate)
        elif code is _ATTENTION:
            off = _either(layer.deterministic, kwargs.get("deterministic"))
            check_attention(layer.dropout_rate, off, layer.broadcast_dropout)
        return next_call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _either(attribute, argument):
    return argument if attribute is None else attribute
