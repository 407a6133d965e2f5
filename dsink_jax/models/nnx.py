"""Flax NNX modules as pure functions, with batch statistics and dropout masks of the whole batch."""

import copy
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


def from_nnx(network: Any, classifier: Classifier = "linear") -> Model:
    """Wraps an NNX module, or a function of `rngs` that makes one.

    Variables are plain arrays by path, `nnx.Param` in "params", `nnx.BatchStat` in "batch_stats", what else
    there is in "others". The state of random number generators is not among them: they start anew from the
    key of each step. All layers are put in training or evaluation mode. `__call__` may take what a Linen
    module's may, see `from_linen`, and `rngs`. Modules with equal layers are equal models.

    Args:
      network: a module, with whose present values `init` starts, or `(rngs) -> module`, called with its key;
        `InputError` if it makes something else.
      classifier: `cosine` makes cosines of its features; `InputError` if it does not tell them.
    """
    if not isinstance(network, nnx.Module):
        return _from_function(network, classifier)
    values, wrapped = _variables_of(network), _wrapped(_Graph(network), classifier)

    def init(key, inputs):
        return jax.tree.map(lambda one: jnp.array(one, copy=True), values)  # training gives them away

    init.without_values = wrapped.init  # type: ignore[attr-defined]
    return wrapped._replace(init=init)


@remembered
def _from_function(network, classifier):
    def make(key):
        if isinstance(made := network(rngs=nnx.Rngs(key)), nnx.Module):
            return made
        raise InputError(f"A function that takes rngs must make an NNX module, got {type(made).__name__}.")

    @jax.jit
    def init(key, inputs):
        return _variables_of(make(key))

    return _wrapped(_Graph(nnx.eval_shape(make, jax.random.key(0))), classifier)._replace(init=init)


class _Graph:
    """A module without its values; two are equal if the same program can run them."""

    def __init__(self, module):
        self.call = type(module).__call__
        self.graph, *states = _split(module, nnx.RngState, ...)
        leaves, structure = jax.tree.flatten(states)
        self.shapes = tuple(jax.eval_shape(list, leaves))
        self.generators, self.state = jax.tree.unflatten(structure, self.shapes)
        try:
            hash(self.graph)
        except TypeError:  # it has lists or dicts, which the person may change
            self.graph = copy.deepcopy(self.graph)
        self.key = (self.shapes, structure, self.graph)

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.shapes)


@functools.lru_cache(maxsize=64)
def _wrapped(of, classifier):
    """The model of a graph, which starts with zeros."""
    names, structure = _names(of.state), jax.tree.structure(of.state)

    def init(key, inputs):
        return jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), _by_name(of.state))

    def run(variables, inputs, train, key, axis_name, features_only):
        if train and key is None and jax.tree.leaves(of.generators):
            raise InputError("The network has random layers: in training it has to be given a key.")
        values = traverse_util.flatten_dict(variables)

        def apply(inputs, dropout):
            filled = jax.tree.unflatten(structure, [values[name] for name in names])
            started = _started(of.generators, jax.random.key(0) if key is None else key)
            module: Any = nnx.merge(of.graph, started, filled)
            module.train() if train else module.eval()
            if axis_name is not None:
                _see_whole_batch(module, axis_name, dropout)
            offered = {"axis_name": axis_name, "rngs": None if key is None else nnx.Rngs(key)}
            outputs = module(inputs, **accepted(of.call, train=train, features_only=features_only, **offered))
            nnx.pop(module, nnx.Intermediate)  # what it has sown
            return outputs, collections_of(_variables_of(module) if train else variables)

        return with_whole_masks(apply, inputs, axis_name)

    return as_model(init, run, of.call, classifier)


def _variables_of(module):
    found = _by_name(_split(module, nnx.RngState, ...)[2])
    return jax.tree.map(lambda one: one if isinstance(one, jax.Array) else jnp.array(one), found)


def _by_name(state):
    leaves = dict(zip(_names(state), jax.tree.leaves(state), strict=True))
    return {"params": {}, **traverse_util.unflatten_dict(leaves)}


def _names(state):
    """Collection and path of each variable; a number in a path becomes a string, as files have it."""
    kinds = {nnx.Param: "params", nnx.BatchStat: "batch_stats", object: "others"}
    flat = nnx.to_flat_state(state)
    return [
        (next(kinds[one] for one in kinds if isinstance(leaf, one)), *map(str, path)) for path, leaf in flat
    ]


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
