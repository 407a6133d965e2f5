"""Flax NNX modules as pure functions, with batch statistics and dropout masks of the whole batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from dsink_jax.errors import InputError
from dsink_jax.models.dropout import Dropout, check_attention, with_whole_masks
from dsink_jax.models.interface import Model, collections_of
from dsink_jax.models.layers import Classifier
from dsink_jax.models.wrapping import accepted, as_model, remembered

_split: Any = nnx.split


@remembered
def from_nnx(network: Any, classifier: Classifier = "linear") -> Model:
    """Wraps an NNX module, or a function of `rngs` that makes one.

    Variables are plain arrays by path, `nnx.Param` in "params", `nnx.BatchStat` in "batch_stats", what else
    there is in "others". The state of random number generators is not among them: they start anew from the
    key of each step. All layers are put in training or evaluation mode. `__call__` may take what a Linen
    module's may, see `from_linen`, and `rngs`.

    Args:
      network: a module, with whose values of then `init` starts, or `(rngs) -> module`, called with its key;
        `InputError` if it makes something else.
      classifier: `cosine` makes cosines of its features; `InputError` if it does not tell them.
    """

    def make(key):
        if isinstance(made := network(rngs=nnx.Rngs(key)), nnx.Module):
            return made
        raise InputError(f"A function that takes rngs must make an NNX module, got {type(made).__name__}.")

    is_module = isinstance(network, nnx.Module)
    module = network if is_module else nnx.eval_shape(make, jax.random.key(0))
    graph, generators, state = _split(module, nnx.RngState, ...)
    names, structure = [_name(*item) for item in nnx.to_flat_state(state)], jax.tree.structure(state)
    call = type(module).__call__

    def variables_of(module):
        state = _split(module, nnx.RngState, ...)[2]
        arrays = [jnp.array(leaf, copy=True) for leaf in jax.tree.leaves(state)]  # the module keeps its own
        return {"params": {}, **traverse_util.unflatten_dict(dict(zip(names, arrays, strict=True)))}

    @jax.jit
    def init_anew(key, inputs):
        return variables_of(make(key))

    def run(variables, inputs, train, key, axis_name, features_only):
        if train and key is None and jax.tree.leaves(generators):
            raise InputError("The network has random layers: in training it has to be given a key.")
        values = traverse_util.flatten_dict(variables)

        def apply(inputs, dropout):
            filled = jax.tree.unflatten(structure, [values[name] for name in names])
            started = _started(generators, jax.random.key(0) if key is None else key)
            module: Any = nnx.merge(graph, started, filled)
            module.train() if train else module.eval()
            if axis_name is not None:
                _see_whole_batch(module, axis_name, dropout)
            offered = {"axis_name": axis_name, "rngs": None if key is None else nnx.Rngs(key)}
            outputs = module(inputs, **accepted(call, train=train, features_only=features_only, **offered))
            nnx.pop(module, nnx.Intermediate)  # what it has sown
            return outputs, collections_of(variables_of(module) if train else variables)

        return with_whole_masks(apply, inputs, axis_name)

    init = (lambda key, inputs: variables_of(network)) if is_module else init_anew
    return as_model(init, run, call, classifier)


def _name(path, leaf):
    """Collection and path of a variable; a number in a path becomes a string, as files have it."""
    other = "batch_stats" if isinstance(leaf, nnx.BatchStat) else "others"
    return ("params" if isinstance(leaf, nnx.Param) else other, *map(str, path))


def _started(generators, key):
    """Random number generators that start from the key."""
    leaves, structure = jax.tree.flatten(generators)
    for number, leaf in enumerate(leaves):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        own = jax.random.fold_in(key, number)
        leaves[number] = jax.random.split(own, leaf.shape) if is_key else jnp.zeros(leaf.shape, leaf.dtype)
    return jax.tree.unflatten(structure, leaves)


class _DropoutOfWholeBatch(nnx.Dropout):
    dropout: Dropout  # which calls the layer

    def __call__(self, inputs, **options):
        return self.dropout(functools.partial(super().__call__, **options), inputs, self.rate)


def _see_whole_batch(module, axis_name, dropout):
    """Makes a module's layers see the whole batch of a mapped axis."""
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.BatchNorm) and layer.axis_name is None:
            layer.axis_name = axis_name
        elif type(layer) is nnx.Dropout:
            object.__setattr__(layer, "__class__", _DropoutOfWholeBatch)
            layer.dropout = dropout  # type: ignore[attr-defined]
        elif isinstance(layer, nnx.Dropout):
            raise InputError("On several devices dropout must be nnx.Dropout itself, not a subclass of it.")
        elif isinstance(layer, nnx.MultiHeadAttention):
            check_attention(layer)
