"""The training loop: order the epoch, dispatch steps, evaluate, save, stop."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import batches, streaming
from dsink_jax.data.corruption import check_observed
from dsink_jax.errors import InputError
from dsink_jax.methods.base import Method, TrainingFacts, numbers_of
from dsink_jax.methods.distillation import Distillation
from dsink_jax.methods.hooks import LooksAtFeatures, LooksAtTrainingSet, TwoStages, UsesMetaSet
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training import parallel, processes
from dsink_jax.training.arguments import DeviceData, Standardization, StepNumbers
from dsink_jax.training.checkpoint import Checkpoint, Checkpointer
from dsink_jax.training.epoch_metrics import EpochMetrics
from dsink_jax.training.optimizer import build_optimizer
from dsink_jax.training.order import TrainingOrder
from dsink_jax.training.placement import placed, rounded_up, with_inputs
from dsink_jax.training.predict import predict
from dsink_jax.training.programs import compiled_step, make_program, steps_per_dispatch
from dsink_jax.training.progress import Progress, SilentProgress
from dsink_jax.training.settings import TrainingSettings, second_stage_settings
from dsink_jax.training.step import create_state
from dsink_jax.training.trained import Auxiliaries, TrainedModel

Record = dict[str, Any]
ShouldStop = Callable[[int], bool]  # from the number of steps done


def never(step: int) -> bool:
    """Does not ask a training to stop."""
    del step
    return False


class TrainingStoppedError(Exception):
    """Raised when a training was asked to stop, after it was saved where it can be."""


def train(
    model: Model,
    method: Method,
    data: DeviceData,
    settings: TrainingSettings,
    *,
    facts: TrainingFacts,
    seed: int,
    devices: Sequence[jax.Device],
    standardization: Standardization | None = None,
    term: Distillation | None = None,
    auxiliaries: Auxiliaries | None = None,
    start_from: Variables | None = None,
    evaluate: Callable[[TrainedModel], Record] = lambda trained: {},
    checkpointer: Checkpointer | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
    should_stop: ShouldStop = never,
    progress: Progress | None = None,
) -> TrainedModel:
    """Trains a model, or goes on with its training, or returns it if it is done.

    Compiled programs are kept for the process: another training with equal network, method, kind of
    optimiser, devices and shapes compiles nothing, whatever its numbers and data. Rows of the training set
    are filled up to one of a few numbers, so that sets of about the same size have the same shapes.

    Args:
      model: the network.
      method: what it optimises.
      data: training set, host arrays, its inputs perhaps a `Source` to stream from; with the auxiliaries'
        logits if they are to be looked up.
      settings: how long and in what steps.
      facts: what is known of the training set.
      seed: decides initial parameters, order and augmentation.
      devices: devices of this process to train on; with several processes, all it has.
      standardization: of the inputs, or None.
      term: distillation beside the method's loss, or None.
      auxiliaries: f_N and f_L to run on the model's own view of the inputs, or None.
      start_from: for a method of two stages, the variables that training its `first_stage` gave, with the
        settings of `first_stage_settings`. What the second stage trains with follows from `settings`.
      evaluate: called with the model as it is; what it returns joins the record of the epoch.
      checkpointer: where to save and resume, or None. With several processes, the first one's.
      on_record: called with each new record.
      should_stop: asked after every dispatch, with the number of steps done since the start; if it says so,
        the training is saved as it is and `TrainingStoppedError` raised.
      progress: where to show progress.

    Raises:
      InputError: if the batch size does not split over the devices, or the data is not as `DeviceData` says
        or lacks what the method needs.
      ValueError: if the model, or `start_from`, does not go with the method.
      TrainingDivergedError: if a loss, or a parameter after an epoch, is not finite.
      TrainingStoppedError: if `should_stop` said so.
      StorageError: if a checkpoint cannot be written.
    """
    batches.check_batch_size(settings.batch_size, parallel.total_devices(devices))
    _check_data(method, term, data, facts.num_classes, seed, auxiliaries)
    stage = None
    if isinstance(method, TwoStages):
        stage = method.second_stage(settings.epochs)
        settings = second_stage_settings(settings, stage)
        if term is not None:  # it has set in already
            term = dataclasses.replace(term, warmup_epochs=0.0, ramp_epochs=0.0)
    if (stage is None) != (start_from is None):
        raise ValueError(
            "start_from must be given for a method with a second stage, and for no other: it is what "
            "training the method's first_stage gave."
        )
    order = TrainingOrder(data, settings.batch_size, devices, facts.num_classes, seed, stage)
    batches.check_length(settings.epochs, order.num_examples, settings.batch_size)
    program = make_program(model, method, term, settings, auxiliaries, stage)
    numbers = StepNumbers(
        numbers_of(method),
        numbers_of(term),
        settings.optimizer.numbers(order.steps * settings.epochs),
        facts,
        np.float32(order.steps),
        standardization,
        np.float32(settings.average_decay or 0.0),
        None if auxiliaries is None else (auxiliaries[0].numbers, auxiliaries[1].numbers),
    )
    count = len(data.labels)
    rows = rounded_up(count) if _is_small(data.inputs) else count
    init_key, step_key = jax.random.split(jax.random.key(seed))
    state = create_state(
        program,
        numbers,
        init_key,
        streaming.read_rows(data.inputs, np.arange(1)),
        rows,
        state_dtype=settings.state_dtype,
    )
    if start_from is not None and isinstance(method, TwoStages):
        # Copies, because the state is donated and the caller's arrays are not ours to give away.
        start = dict(jax.tree.map(jnp.array, method.start(start_from, state.variables)))
        state = _started_from(state, start, program, numbers)
    state, epoch, history, seconds, done, sums = _restored(checkpointer, state)
    history = list(history)

    def present(variables):
        return TrainedModel(model, method, facts, variables, history)

    if epoch >= settings.last_epoch:
        return present(jax.device_get(state.variables))._replace(seconds=seconds)

    source = data.inputs if streaming.is_streamed(data.inputs) else None
    together = settings.steps_per_dispatch or steps_per_dispatch(data.inputs, devices)
    kept = program._replace(model=model.kind)  # for the process
    train_step = compiled_step(kept, tuple(devices), together, source is not None)
    weights = None if auxiliaries is None else tuple(one.variables for one in auxiliaries)
    on_device = placed(data, rows, source)
    state, on_device, numbers, weights, step_key = parallel.replicate(
        (state, on_device, numbers, weights, step_key), devices
    )
    progress = progress or SilentProgress()
    progress.start(settings.last_epoch, epoch, order.num_examples)
    started = time.monotonic() - seconds
    saved_at = time.monotonic()

    def last_good():
        none = "none" if processes.is_first() else "as the first process tells"
        return checkpointer.newest() if checkpointer is not None else none

    def save(done=0, sums=None):
        nonlocal saved_at
        saved_at = time.monotonic()
        if checkpointer is not None:
            checkpointer.save(Checkpoint(state, epoch, history, saved_at - started, done, sums or {}))

    def is_time_to_save():
        minutes = settings.checkpoint_minutes
        return minutes is not None and time.monotonic() - saved_at > 60 * minutes

    try:
        while epoch < settings.last_epoch:
            if not done and isinstance(method, LooksAtTrainingSet) and method.refresh_before(epoch, facts):
                state = _refreshed(state, present(state.variables), data, standardization, devices)
            collected = EpochMetrics(epoch + 1, order.steps, sums, done)
            for dispatch in with_inputs(order.dispatches(epoch, together, done), source):
                state, metrics = train_step(state, on_device, numbers, weights, step_key, *dispatch.arguments)
                collected.add(metrics, dispatch.steps, last_good)
                done += dispatch.steps
                progress.step_dispatched(done / order.steps, metrics)
                if done < order.steps:
                    stop = should_stop(epoch * order.steps + done)
                    if stop or is_time_to_save():
                        collected.check(state.params, last_good)
                        save(done, collected.sums())
                    if stop:
                        raise TrainingStoppedError(f"epoch {epoch + 1}, step {done} of {order.steps}")
            collected.check(state.params, last_good)
            epoch, done, sums = epoch + 1, 0, {}
            record = {"epoch": epoch, "train": collected.means()}
            last = epoch == settings.last_epoch
            if last or epoch % settings.evaluate_every == 0:
                record |= evaluate(present(state.variables))
                history.append(record)
                on_record(record)
            progress.epoch_done(epoch, record)
            stop = should_stop(epoch * order.steps)
            due = epoch % settings.checkpoint_every == 0 or is_time_to_save()
            if last or stop or due or _is_best(history, epoch):
                save()
            if stop and not last:
                raise TrainingStoppedError(f"epoch {epoch}")
    finally:
        progress.stop()
    seconds = time.monotonic() - started
    return present(jax.device_get(state.variables))._replace(seconds=seconds)


def _is_small(inputs):
    """Whether a copy with a few rows more costs nothing next to what the same program is worth."""
    return streaming.is_streamed(inputs) or inputs.nbytes < 2**28


def _check_data(method, term, data, num_classes, seed, auxiliaries):
    """Raises `InputError` for what would end in an error inside the step, or in none."""
    labels = check_observed(data.labels, num_classes)
    shape = list(data.inputs.shape)
    if not len(labels) or len(shape) < 2 or shape[0] != len(labels) or 0 in shape:
        raise InputError(f"Inputs must be [M, ...] for {len(labels)} labels, got {shape}.")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InputError(f"The seed must be an integer in [0, 2^32), got {seed!r}.")
    if isinstance(method, UsesMetaSet) and (data.meta_index is None or data.meta_labels is None):
        raise InputError("The method learns from a meta set: give the data meta_index and meta_labels.")
    tables = (data.noise_robust_logits, data.imbalance_robust_logits)
    if any(table is not None and np.shape(table) != (len(labels), num_classes) for table in tables):
        raise InputError(
            f"Logits to be looked up must be [{len(labels)}, {num_classes}], one row an example."
        )
    looked_up = all(table is not None for table in tables)
    if term is not None and auxiliaries is None and not looked_up:
        raise InputError(
            "The term distils two auxiliary models: give auxiliaries, or their logits in the data."
        )


def _started_from(state, start, program, numbers):
    """The state of a second stage."""
    params = start.pop("params")
    return state._replace(
        params=params,
        collections=start,
        opt_state=build_optimizer(program.optimizer, numbers.optimizer).init(params),
        average=jax.tree.map(jnp.array, params) if program.averages else (),
    )


def _restored(checkpointer, state):
    """Where to start: the newest checkpoint, or the very beginning. The same on all processes."""
    start = Checkpoint(state, 0, [], 0.0)
    if not processes.from_first(lambda: checkpointer is not None):
        return start
    return processes.from_first(lambda: checkpointer.restore(state)) or start


def _is_best(history, epoch):
    """Whether the epoch was evaluated, and has the highest validation accuracy so far."""
    scores = [record.get("validation_accuracy", -1.0) for record in history]
    return bool(scores) and history[-1]["epoch"] == epoch and scores[-1] > max(scores[:-1], default=-1.0)


def _refreshed(state, present, data, standardization, devices):
    """The state after the method has looked at the whole training set."""
    count = len(data.labels)
    what = (present.predictor, present.variables, present.numbers, standardization, data.inputs, devices)
    logits = predict(*what, wanted="outputs")
    more = {}
    if isinstance(present.method, LooksAtFeatures):
        more["features"] = predict(*what, wanted="features")
    example_state, shared_state = jax.device_get((state.example_state, state.shared_state))
    own = jax.tree.map(lambda leaf: leaf[:count], example_state)
    own, new_shared = present.method.refresh(logits, np.asarray(data.labels), own, shared_state, **more)
    # In the types and with the rows they had.
    filled = jax.tree.map(
        lambda new, old: np.concatenate([np.asarray(new, old.dtype), old[count:]]), own, example_state
    )
    new_shared = jax.tree.map(lambda new, old: np.asarray(new, old.dtype), new_shared, shared_state)
    example_state, shared_state = parallel.replicate((filled, new_shared), devices)
    return state._replace(example_state=example_state, shared_state=shared_state)
