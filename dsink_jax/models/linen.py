"""Flax Linen modules, with batch statistics and dropout masks of the whole batch."""

import contextlib
import inspect
from typing import Any

import flax.linen as nn
import jax

from dsink_jax.models.dropout import check_attention, with_whole_masks
from dsink_jax.models.interface import Model, collections_of
from dsink_jax.models.layers import Classifier
from dsink_jax.models.wrapping import accepted, as_model, remembered


@remembered
def from_linen(module: nn.Module, classifier: Classifier = "linear") -> Model:
    """Wraps a Flax Linen module.

    It is called as `module(inputs, train=bool)`; `training`, `is_training` or `deterministic` in place of
    `train`, or no mode at all, will do. If it takes `features_only=True` and then returns what its last layer
    is given, `[n, D]`, methods that need features can use it. It need not know of devices: its `nn.BatchNorm`
    and `nn.Dropout` layers are made to see the whole batch; code of its own that looks over the batch can
    take `axis_name`, None outside training. Equal modules are one `Model`.

    `classifier="cosine"` makes cosines of its features; `InputError` if it does not tell them.
    """
    call = type(module).__call__

    @jax.jit
    def init(key, inputs):
        found = dict(module.init(key, inputs, **accepted(call, train=False)))
        return {"params": found.pop("params", {}), **found}

    def run(variables, inputs, train, key, axis_name, features_only):
        kept = collections_of(variables)
        rngs = None if key is None else {"params": key, "dropout": jax.random.fold_in(key, 1)}
        options = accepted(call, train=train, axis_name=axis_name, features_only=features_only)

        def apply(inputs, dropout):
            with _whole_batch(axis_name, dropout):
                return module.apply(variables, inputs, rngs=rngs, mutable=list(kept) * train, **options)

        outputs, updated = with_whole_masks(apply, inputs, axis_name)
        return outputs, {**kept, **updated}

    return as_model(init, run, call, classifier)


_DROPOUT = inspect.unwrap(nn.Dropout.__call__)


def _whole_batch(axis_name, dropout):
    """Layers called in this context see the whole batch of a mapped axis."""
    if axis_name is None:
        return contextlib.nullcontext()

    def intercept(next_call, args, kwargs, context):
        layer: Any = context.module
        if isinstance(layer, nn.BatchNorm) and layer.axis_name is None:
            object.__setattr__(layer, "axis_name", axis_name)
            try:
                return next_call(*args, **kwargs)
            finally:
                object.__setattr__(layer, "axis_name", None)
        # The layer's own code, also where a subclass calls it.
        if getattr(context.orig_method, "func", None) is _DROPOUT:
            inputs = args[0] if args else kwargs.pop("inputs")
            return dropout(lambda x: next_call(x, *args[1:], **kwargs), inputs, layer.rate)
        if isinstance(layer, nn.MultiHeadDotProductAttention):
            check_attention(layer)
        return next_call(*args, **kwargs)

    return nn.intercept_methods(intercept)
