"""Several trainings at once on one device: one program, other numbers, and other rows of one training set.

Small networks on vectors spend their time between steps, not in them. Here candidates and folds are axes of
one program, so that forty trainings take little longer than one. Each gives what `train` gives for its rows.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import batches, streaming
from dsink_jax.methods.base import Method, TrainingFacts, numbers_of
from dsink_jax.methods.hooks import LooksAtTrainingSet, TwoStages, UsesMetaSet
from dsink_jax.models.interface import Model
from dsink_jax.training.arguments import DeviceData, Standardization, StepNumbers, StepProgram
from dsink_jax.training.epoch_metrics import TrainingDivergedError
from dsink_jax.training.placement import placed, rounded_up
from dsink_jax.training.programs import make_program
from dsink_jax.training.settings import TrainingSettings
from dsink_jax.training.step import create_state, make_train_step
from dsink_jax.training.trained import TrainedModel

_STEPS = 32  # in a dispatch


def can_train_together(method: Method, inputs: Any, facts: TrainingFacts) -> bool:
    """Whether trainings by a method can go side by side: without looks at the training set in between.

    Args:
      method: what is optimised.
      inputs: of the training set; those that are streamed cannot be shared.
      facts: what the method knows of the training set.
    """
    looks = isinstance(method, LooksAtTrainingSet) and any(
        method.refresh_before(epoch, facts) for epoch in range(int(facts.epochs))
    )
    is_simple = not looks and not isinstance(method, TwoStages | UsesMetaSet)
    return is_simple and not streaming.is_streamed(inputs) and jax.process_count() == 1


def train_together(
    model: Model,
    methods: Sequence[Method],
    settings: Sequence[TrainingSettings],
    data: DeviceData,
    parts: Sequence[np.ndarray],
    facts: Sequence[Sequence[TrainingFacts]],
    *,
    seed: int,
    device: jax.Device,
    standardization: Standardization | None = None,
) -> list[list[TrainedModel]]:
    """Trains a model by each of K methods on each of F parts of a training set.

    Args:
      model: the network.
      methods: K methods that differ by their numbers alone; see `can_train_together`.
      settings: K settings that differ by the optimiser's numbers alone.
      data: the whole training set, host arrays.
      parts: for each part the positions of its examples, int `[m]`.
      facts: for each part, what each method knows of it.
      seed: decides initial parameters and order, of all alike.
      device: to train on.
      standardization: of the inputs, or None.

    Returns:
      For each part, the K models, without history.

    Raises:
      TrainingDivergedError: if a parameter is not finite in the end.
    """
    common = settings[0]
    programs = {
        make_program(model, method, None, how, None, None)
        for method, how in zip(methods, settings, strict=True)
    }
    if len(programs) != 1:
        raise ValueError("Trainings side by side must differ by numbers alone.")
    (program,) = programs
    steps = [batches.steps_per_epoch(len(part), common.batch_size) for part in parts]
    numbers = [
        [
            StepNumbers(
                numbers_of(method),
                {},
                how.optimizer.numbers(in_epoch * common.epochs),
                own,
                np.float32(in_epoch),
                average_decay=np.float32(how.average_decay or 0.0),
            )
            for method, how, own in zip(methods, settings, of_part, strict=True)
        ]
        for in_epoch, of_part in zip(steps, facts, strict=True)
    ]
    init_key, step_key = jax.random.split(jax.random.key(seed))
    rows = rounded_up(len(data.labels))
    first = numbers[0][0]._replace(standardization=standardization)
    state = create_state(program, first, init_key, data.inputs[:1], rows, state_dtype=common.state_dtype)
    shape = (len(parts), len(methods))
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), state)
    if isinstance(methods[0], LooksAtTrainingSet):
        state = state._replace(shared_state=_stacked([map(_shared, methods, own) for own in facts]))
    data = placed(data, rows, None)
    state, *fixed = jax.device_put((state, _stacked(numbers), data, standardization, step_key), device)
    run = _compiled(program._replace(model=model.kind))
    for index, where in _dispatches(parts, max(steps), common, seed):
        state = run(state, *fixed, index, where)
    variables = jax.device_get(state.variables)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
        raise TrainingDivergedError(
            "Training diverged: a parameter was not finite after the last step. Try a lower learning rate."
        )

    def trained(part, k):
        own = jax.tree.map(lambda leaf: leaf[part, k], variables)
        return TrainedModel(model, methods[k], facts[part][k], own)

    return [[trained(part, k) for k in range(len(methods))] for part in range(len(parts))]


def _shared(method, facts):
    return method.init_shared(facts)


def _stacked(trees):
    """Trees of arrays, K for each of F parts, as one with leaves `[F, K, ...]`."""
    parts = [jax.tree.map(lambda *leaves: np.stack(leaves), *of_part) for of_part in trees]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


@functools.lru_cache(maxsize=16)
def _compiled(program: StepProgram) -> Callable:
    """Several steps of all trainings: index int32 and where bool are `[k, F, n]`."""
    step = make_train_step(program)

    def one(state, numbers, data, standardization, key, index, where):
        new, _ = step(state, data, numbers._replace(standardization=standardization), None, key, index, where)
        active = where.any()  # a part with fewer steps than the others waits for them
        return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state)

    of_part = jax.vmap(one, (0, 0, None, None, None, None, None))
    of_all = jax.vmap(of_part, (0, 0, None, None, None, 0, 0))

    def steps(state, numbers, data, standardization, key, index, where):
        def body(state, now):
            return of_all(state, numbers, data, standardization, key, *now), None

        return jax.lax.scan(body, state, (index, where))[0]

    return jax.jit(steps, donate_argnums=0)


def _dispatches(parts, steps, settings, seed):
    """Index and where of the steps of all parts, some at a time, the last ones filled up."""
    shape = (_STEPS, len(parts), settings.batch_size)
    index, where, filled = np.zeros(shape, np.int32), np.zeros(shape, bool), 0
    for epoch in range(settings.epochs):
        for step in zip(*_epoch(parts, steps, settings.batch_size, seed, epoch), strict=True):
            index[filled], where[filled] = step
            filled += 1
            if filled == _STEPS:
                yield index, where
                index, where, filled = np.zeros(shape, np.int32), np.zeros(shape, bool), 0
    if filled:
        yield index, where


def _epoch(parts, steps, batch_size, seed, epoch):
    """Index and where `[k, F, n]` of the steps of an epoch, the largest part's."""
    index = np.zeros((steps, len(parts), batch_size), np.int32)
    where = np.zeros(index.shape, bool)
    for number, part in enumerate(parts):
        order = batches.training_order(len(part), batch_size, 1, seed=seed, epoch=epoch)
        own = len(order.index)
        index[:own, number], where[:own, number] = part[order.index[:, 0]], order.where[:, 0]
    return index, where
