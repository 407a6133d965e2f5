"""One training step and one prediction step as pure functions of one device's share of a batch.

Written against the name of a mapped axis only: the same functions run under `pmap`, `shard_map` or, with
no axis, plain `jit`. What a program is compiled for is a `StepProgram`; what may change without a new one is
an array: the `StepNumbers`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsink_jax.collectives import all_gather, psum
from dsink_jax.data.augment import apply_to_each, normalize
from dsink_jax.errors import InputError
from dsink_jax.methods.base import Batch, Context, MethodLoss, with_numbers
from dsink_jax.methods.hooks import (
    LooksAtTrainingSet,
    MakesInputs,
    Networks,
    UsesMetaSet,
    variables_to_predict_with,
)
from dsink_jax.models.interface import Model
from dsink_jax.training.arguments import (
    Array,
    Predictor,
    Standardization,
    StateDtype,
    StepNumbers,
    StepProgram,
    TrainState,
)
from dsink_jax.training.optimizer import build_optimizer

# Folded into the key of a step, beside the examples' indices, which never get so large.
_SECOND_VIEW, _METHOD, _NETWORK = 2**32 - 1, 2**32 - 2, 2**32 - 3


def create_state(
    program: StepProgram,
    numbers: StepNumbers,
    key: jax.Array,
    inputs: Array,
    num_examples: int,
    *,
    state_dtype: StateDtype = "float32",
) -> TrainState:
    """The state before the first step.

    Args:
      program: network, method and optimiser.
      numbers: what they work with.
      key: PRNG key of the initial parameters.
      inputs: one or more examples `[n, ...]`, for their shape.
      num_examples: rows of the training set.
      state_dtype: type in which per-example state is kept; it is computed with in float32.

    Raises:
      ValueError: if the model is not as many networks as the method trains.
    """
    model, method = program.model, program.method
    if model.networks != method.networks:
        raise ValueError(
            f"The method trains {method.networks} networks and the model is {model.networks}. "
            f"Give it several(model, {method.networks})."
        )
    collections = dict(model.init(key, jnp.asarray(standardized(inputs, numbers.standardization))))
    params = collections.pop("params")
    shared = method.init_shared(numbers.facts) if isinstance(method, LooksAtTrainingSet) else ()
    # Copies: the state is donated, so no two leaves may share a buffer.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        opt_state=build_optimizer(program.optimizer, numbers.optimizer).init(params),
        example_state=jax.tree.map(
            lambda leaf: jnp.array(leaf, state_dtype), method.init(num_examples, numbers.facts.num_classes)
        ),
        shared_state=shared,
        average=jax.tree.map(jnp.array, params) if program.averages else (),
    )


def standardized(inputs: Any, standardization: Standardization | None) -> Any:
    """Stored inputs as the network gets them."""
    if standardization is None:
        return inputs
    return normalize(inputs, jnp.asarray(standardization.mean), jnp.asarray(standardization.scale))


def make_train_step(program: StepProgram, axis_name: str | None = None) -> Callable:
    """Builds the training step.

    Args:
      program: what it does.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      `step(state, data, numbers, auxiliary_variables, key, index, where, inputs=None) -> (state, metrics)`:
      index int32 `[n]` and where bool `[n]` are this device's share, and inputs `[n, ...]` if they are
      streamed; metrics are float32 scalars over the whole batch, equal on all devices: `loss`, `accuracy`
      (against observed labels), `examples` and the method's own.
    """
    model = program.model

    def make_batch(method, data, numbers, key, index, where, stored):
        def view(key):
            own = stored
            if program.preprocess is not None:
                own = apply_to_each(program.preprocess, key, index, stored)
            return standardized(own, numbers.standardization)

        batch = Batch(view(key), data.labels[index], where)
        if isinstance(method, MakesInputs) and method.views == 2:
            batch = batch._replace(second_view=view(jax.random.fold_in(key, _SECOND_VIEW)))
        if isinstance(method, UsesMetaSet):
            meta = data.inputs[data.meta_index] if data.meta_inputs is None else data.meta_inputs
            meta = standardized(meta, numbers.standardization)
            batch = batch._replace(meta_inputs=meta, meta_labels=data.meta_labels)
        return batch

    def train_step(state, data, numbers, auxiliary_variables, key, index, where, inputs=None):
        key = jax.random.fold_in(key, state.step)
        method = with_numbers(program.method, numbers.method)
        term = with_numbers(program.term, numbers.term)
        optimizer = build_optimizer(program.optimizer, numbers.optimizer)
        stored = data.inputs[index] if inputs is None else inputs
        batch = make_batch(method, data, numbers, key, index, where, stored)
        if term is not None:
            batch = _with_auxiliaries(batch, data, program, numbers, auxiliary_variables, index)
        rows = jax.tree.map(lambda s: s[index].astype(jnp.float32), state.example_state)
        count = psum(where.sum(), axis_name).astype(jnp.float32)
        epoch = state.step.astype(jnp.float32) / numbers.steps_per_epoch
        context = Context(numbers.facts, epoch, state.shared_state, axis_name)
        if isinstance(method, MakesInputs):
            networks = _present_networks(model, {"params": state.params, **state.collections})
            method_key = jax.random.fold_in(key, _METHOD)
            batch = method.prepare(batch, rows, networks, method_key, context)
        fed = _fed(batch, term)
        network_key = jax.random.fold_in(key, _NETWORK)

        def local_loss(params):
            if program.optimizer.only is not None:
                trained = program.optimizer.only
                params = {**jax.lax.stop_gradient(params), trained: params[trained]}
            logits, collections = model.apply(
                {"params": params, **state.collections},
                fed,
                train=not program.is_second_stage,
                key=network_key,
                axis_name=axis_name,
            )
            result = _losses(method, term, logits, batch, rows, context)
            return jnp.where(where, result.values, 0.0).sum() / count, (result, collections)

        gradient, (result, collections) = jax.grad(local_loss, has_aux=True)(state.params)
        gradient = psum(gradient, axis_name)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        opt_state = _in_types_of(state.opt_state, opt_state)
        params = optax.apply_updates(state.params, updates)
        correct = _correct(result.predictions, batch.labels)
        metrics = {"loss": result.values, "accuracy": correct.astype(jnp.float32), **result.metrics}
        metrics = {
            name: psum(jnp.where(where, value, 0.0).sum(), axis_name) / count if value.ndim else value
            for name, value in metrics.items()
        }
        metrics["examples"] = count
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            collections=collections,
            opt_state=opt_state,
            example_state=_write_rows(state.example_state, result.example_state, index, where, axis_name),
            shared_state=state.shared_state,
            average=_averaged(state, params, numbers.average_decay) if program.averages else (),
        )
        if program.skips_not_finite:
            return _unless_finite(gradient, metrics, state, new_state)
        return new_state, metrics

    return train_step


def make_predict_step(predictor: Predictor) -> Callable:
    """Builds `predict(variables, numbers, standardization, inputs [n, ...]) -> logits [n, C]`.

    In evaluation mode, without augmentation; the softmax of the logits is the method's prediction.
    """

    def predict_step(variables, numbers, standardization, inputs):
        return _predict(predictor, numbers, variables, standardized(inputs, standardization))

    return predict_step


def make_output_step(model: Model) -> Callable:
    """The same for the networks' outputs as `refresh` gets them, `[n, C]` or `[n, K, C]`."""
    return _example_by_example(lambda variables, inputs: model.apply(variables, inputs)[0])


def make_feature_step(model: Model) -> Callable:
    """The same for the networks' features, `[n, D]` or `[n, K, D]`."""
    return _example_by_example(functools.partial(_features, model))


def _example_by_example(function):
    def step(variables, numbers, standardization, inputs):
        del numbers
        found = function(variables, standardized(inputs, standardization))
        return found if found.ndim == 2 else found.swapaxes(0, 1)

    return step


def repeat_step(train_step: Callable) -> Callable:
    """Several steps in one dispatch: index and where become `[k, n]`, inputs `[k, n, ...]`, metrics `[k]`.

    A step without a valid row is left out: it changes nothing, and its metrics are 0.
    """

    def steps(state, data, numbers, auxiliary_variables, key, active, *order):
        def one(state, order):
            return train_step(state, data, numbers, auxiliary_variables, key, *order)

        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), order)
        shapes = jax.eval_shape(one, state, empty)[1]

        def body(state, now):
            is_active, order = now
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.cond(is_active, one, lambda state, _: (state, nothing), state, order)

        return jax.lax.scan(body, state, (active, order))

    return steps


def _correct(predictions, labels):
    """Whether each example is predicted right; of several labels, the share of them that are."""
    if labels.ndim == 2:
        return ((predictions > 0) == (labels > 0)).mean(-1)
    return predictions.argmax(-1) == labels


class _Losses(NamedTuple):
    """What a step takes from method and term together."""

    values: jax.Array
    example_state: Any
    metrics: dict[str, jax.Array]
    predictions: jax.Array


def _losses(method, term, logits, batch, rows, context):
    """The base loss, and the term on the method's prediction for the inputs as they are."""
    of_inputs = logits
    if term is not None and batch.prepared is not None:
        count = logits.shape[-2] - len(batch.labels)
        logits, of_inputs = logits[..., :count, :], logits[..., count:, :]
    base = _checked(method.loss(logits, batch, rows, context), method, len(batch.labels))
    if term is None:
        predicted = base.predictions
        if predicted is None:
            predicted = method.predict(logits, context.facts)
        return _Losses(base.values, base.example_state, dict(base.metrics), predicted)
    # Every network is drawn to a Q of its own; the diagnostics are the last one's.
    each = [of_inputs] if method.networks == 1 else list(of_inputs[:, None])
    found = [term.values(method.predict(one, context.facts), batch, context.axis_name) for one in each]
    distillation = jnp.stack([one.values for one in found]).sum(0)
    own, metrics = base.values, found[-1].metrics
    if found[-1].base_weights is not None:
        own = own * jnp.stack([one.base_weights for one in found]).mean(0)
    return _Losses(
        term.combine(own, distillation, context.epoch),
        base.example_state,
        {**base.metrics, "base": own, "distillation": distillation, **metrics},
        method.predict(of_inputs, context.facts),
    )


def _checked(loss, method, count):
    """What a method's `loss` returned, if that is what it has to be."""
    found = type(loss).__name__
    if isinstance(loss, MethodLoss):
        found = f"values of shape {list(jnp.shape(loss.values))}"
    if not isinstance(loss, MethodLoss) or jnp.shape(loss.values) != (count,):
        raise InputError(
            f"{type(method).__name__}.loss must return MethodLoss(values) with a value for each of {count} "
            f"examples, got {found}."
        )
    return loss


def _fed(batch, term):
    """What the networks are fed: for a term the inputs as they are too, behind what was made of them."""
    if batch.prepared is None:
        return batch.inputs
    if term is None:
        return batch.prepared
    if isinstance(batch.prepared, tuple):
        return tuple(jnp.concatenate([own, batch.inputs]) for own in batch.prepared)
    return jnp.concatenate([batch.prepared, batch.inputs])


def _averaged(state, params, decay):
    """The moving average after a step; a short one at first, which has not much to remember."""
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    average = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.average, params)
    return _in_types_of(state.average, average)


def _in_types_of(old, new):
    """A tree in the types it had: numbers in float32 make float32 of parameters in bfloat16."""
    return jax.tree.map(lambda before, after: jnp.asarray(after, before.dtype), old, new)


def _unless_finite(gradient, metrics, state, new_state):
    """State and metrics of a step that changes nothing, if its loss or gradient is not finite."""
    leaves = [metrics["loss"], *jax.tree.leaves(gradient)]
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
    metrics = jax.tree.map(lambda value: jnp.where(finite, value, 0), metrics)
    skipped = 1.0 - finite.astype(jnp.float32)
    return kept._replace(step=new_state.step), {**metrics, "skipped": skipped}


def _predict(predictor, numbers, variables, inputs):
    """The method's prediction, as logits `[n, C]`."""
    method = with_numbers(predictor.method, numbers.method)
    logits, _ = predictor.model.apply(variables_to_predict_with(method, variables), inputs)
    return method.predict(logits, numbers.facts)


def _present_networks(model, variables):
    """The networks as they are, in evaluation mode."""
    return Networks(
        lambda inputs: model.apply(variables, inputs)[0], functools.partial(_features, model, variables)
    )


def _features(model, variables, inputs):
    if model.features is None:
        raise ValueError("Features are needed, which this model does not tell: see `Model.features`.")
    return model.features(variables, inputs)


def _with_auxiliaries(batch, data, program, numbers, variables, index):
    """Adds the auxiliary logits: computed on the batch's own view, or looked up."""
    if program.auxiliaries is not None:
        logits = [
            _predict(auxiliary, own, weights, batch.inputs)
            for auxiliary, own, weights in zip(
                program.auxiliaries, numbers.auxiliaries, variables, strict=True
            )
        ]
    else:
        logits = [data.noise_robust_logits[index], data.imbalance_robust_logits[index]]
    noise_robust, imbalance_robust = jax.lax.stop_gradient(logits)
    return batch._replace(noise_robust_logits=noise_robust, imbalance_robust_logits=imbalance_robust)


def _write_rows(example_state, rows, index, where, axis_name):
    """Writes the new rows of all devices into the per-example state; padding is not written."""
    if not jax.tree.leaves(example_state):
        return example_state
    rows, index, where = all_gather((rows, index, where), axis_name)

    def write(state, new):
        # Out of bounds means dropped, so padding rows point past the end.
        target = jnp.where(where, index, state.shape[0])
        return state.at[target].set(jax.lax.stop_gradient(new).astype(state.dtype), mode="drop")

    return jax.tree.map(write, example_state, rows)
