"""Flax NNX modules as pure functions, with batch statistics and dropout masks of the whole batch."""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from dsink_jax.errors import InputError
from dsink_jax.models.adapted import Adapted
from dsink_jax.models.call_arguments import mode, parameters, taken
from dsink_jax.models.interface import Variables, collections_of
from dsink_jax.models.whole_batch import Dropout, check_attention, run_as_whole_batch

_dropout: contextvars.ContextVar[Dropout | None] = contextvars.ContextVar("dropout", default=None)


def adapt(module: nnx.Module) -> Adapted:
    """A module behind one function; every model starts from the values that the module has then.

    Its variables are plain arrays by path, `nnx.Param` in "params", `nnx.BatchStat` in "batch_stats", what
    else there is in "others". The state of random number generators is not among them: they start anew from
    the key of each step. In training all layers are in training mode, in evaluation in evaluation mode.
    """
    graph, state = nnx.split(module)

    def init(key, inputs):
        # Copies: a training may give the memory of its state to another.
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), _variables(nnx.state(module)))

    return _adapted(type(module), graph, state, init)


def adapt_factory(make: Callable[[nnx.Rngs], nnx.Module]) -> Adapted:
    """The same for `make(rngs)`, which is called with the key of `init`, so that each model starts anew.

    Raises:
      InputError: if it makes something else.
    """
    abstract = nnx.eval_shape(lambda: _checked(make(nnx.Rngs(0))))
    graph, state = nnx.split(abstract)

    @jax.jit
    def init(key, inputs):
        return _variables(nnx.state(make(nnx.Rngs(key))))

    return _adapted(type(abstract), graph, state, init)


def _checked(module):
    if not isinstance(module, nnx.Module):
        raise InputError(
            f"A function that takes rngs must make an NNX module, and it made {type(module).__name__}."
        )
    return module


def _adapted(kind, graph, state, init):
    template = nnx.to_flat_state(state)
    call = kind.__call__

    def run(variables, inputs, *, train, key, axis_name, features_only):
        kept = collections_of(variables)

        def called(inputs, dropout):
            filled = _filled(template, variables, jax.random.key(0) if key is None else key)
            counts = _counts(filled)
            module: Any = nnx.merge(graph, nnx.from_flat_state(filled))
            module.train() if train else module.eval()
            if train and axis_name is not None:
                _see_whole_batch(module, axis_name, dropout)
            rngs = nnx.Rngs(key) if train and key is not None else None
            offered = taken(call, axis_name=axis_name if train else None, rngs=rngs)
            options: dict[str, Any] = {**mode(call, train), **offered}
            if features_only:
                options["features_only"] = True
            token = _dropout.set(dropout)
            try:
                outputs = module(inputs, **options)
            finally:
                _dropout.reset(token)
            if not train:
                return outputs, kept
            after = nnx.state(module)
            drawn = _counts(nnx.to_flat_state(after))
            if key is None and any(drawn[path] is not count for path, count in counts.items()):
                raise InputError("The network draws random numbers in training: it has to be given a key.")
            return outputs, _like(kept, _variables(after))

        return run_as_whole_batch(called, inputs, axis_name if train else None)

    return Adapted(init, run, "features_only" in parameters(call))


def _variables(state: Any) -> Variables:
    """Plain arrays by collection and path, without the state of random number generators."""
    found: dict[tuple[str, ...], Any] = {}
    for path, leaf in nnx.to_flat_state(state):
        if not isinstance(leaf, nnx.RngState):
            value = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
            if _is_key(value):
                value = jax.random.key_data(value)
            found[_collection(leaf), *map(str, path)] = jnp.asarray(value)
    return {"params": {}, **traverse_util.unflatten_dict(found)}


def _filled(template, variables, key):
    """The module's state: values of the variables, and generators that start from the key."""
    values = traverse_util.flatten_dict(variables)
    filled = []
    for number, (path, leaf) in enumerate(template):
        old = leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf
        value: Any
        if isinstance(leaf, nnx.RngKey):
            value = jax.random.fold_in(key, number)
            value = jax.random.split(value, old.shape) if old.shape else value
        elif isinstance(leaf, nnx.RngState):
            value = jnp.zeros(old.shape, old.dtype)
        else:
            value = values[_collection(leaf), *map(str, path)]
            if _is_key(old):
                value = jax.random.wrap_key_data(value)
        filled.append((path, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value))
    return filled


def _collection(leaf):
    if isinstance(leaf, nnx.Param):
        return "params"
    return "batch_stats" if isinstance(leaf, nnx.BatchStat) else "others"


def _is_key(value):
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _counts(state):
    """How often each generator has drawn."""
    return {path: leaf.get_value() for path, leaf in state if isinstance(leaf, nnx.RngCount)}


def _like(before, after):
    """The collections of before with the values of after, without what a call adds, such as what it sows."""
    values = traverse_util.flatten_dict(after)
    return traverse_util.unflatten_dict({path: values[path] for path in traverse_util.flatten_dict(before)})


def _see_whole_batch(module, axis_name, dropout):
    """Makes a module's layers see the whole batch of a mapped axis."""
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, nnx.BatchNorm) and layer.axis_name is None:
            layer.axis_name = axis_name
        if dropout is None:
            continue
        if isinstance(layer, nnx.Dropout):
            object.__setattr__(layer, "__class__", _replaceable(type(layer)))
        elif isinstance(layer, nnx.MultiHeadAttention):
            check_attention(layer.dropout_rate, layer.deterministic, layer.broadcast_dropout)


class _Replaceable(nnx.Dropout):
    """A dropout layer for which something else may stand in."""

    def __call__(self, inputs, *, deterministic=None, rngs=None):
        """See `nnx.Dropout`."""
        drop = functools.partial(super().__call__, deterministic=deterministic, rngs=rngs)
        dropout = _dropout.get()
        off = self.deterministic if deterministic is None else deterministic
        if dropout is None or off or self.rate == 0:
            return drop(inputs)
        return dropout(drop, inputs, self.rate)


@functools.cache
def _replaceable(kind):
    """The layer's class with `_Replaceable` between it and `nnx.Dropout`, so that its own code still runs."""
    return _Replaceable if kind is nnx.Dropout else type(kind.__name__, (kind, _Replaceable), {})
