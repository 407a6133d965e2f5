"""The training loop: order the epoch, dispatch steps, evaluate, save, stop."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import batches, streaming
from dsink_jax.data.augment import Preprocess
from dsink_jax.data.corruption import check_labels
from dsink_jax.errors import InputError, check_known
from dsink_jax.methods.base import Method, TrainingFacts, numbers_of, static_part
from dsink_jax.methods.distillation import Distillation
from dsink_jax.methods.hooks import LooksAtTrainingSet, TwoStages, UsesMetaSet
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training import parallel, processes
from dsink_jax.training.checkpoint import Checkpoint, Checkpointer
from dsink_jax.training.epoch_metrics import EpochMetrics
from dsink_jax.training.optimizer import OptimizerSettings
from dsink_jax.training.order import TrainingOrder
from dsink_jax.training.predict import predict
from dsink_jax.training.progress import Progress, SilentProgress
from dsink_jax.training.step import (
    DeviceData,
    PredictionNumbers,
    Predictor,
    Standardization,
    StateDtype,
    StepNumbers,
    StepProgram,
    create_state,
    make_train_step,
    repeat_step,
)

Record = dict[str, Any]
ShouldStop = Callable[[int], bool]  # from the number of steps done

# Steps in one dispatch where `steps_per_dispatch` is None: of networks on vectors, which take less time than
# a dispatch does, and of any network on accelerators. A convolution inside the loop that this needs is many
# times slower on CPU.
_STEPS_OF_VECTORS, _STEPS_ON_ACCELERATORS = 32, 8


def never(step: int) -> bool:
    """Does not ask a training to stop."""
    del step
    return False


class TrainingStoppedError(Exception):
    """Raised when a training was asked to stop, after it was saved where it can be."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How long and in what steps to train.

    Attributes:
      epochs: passes over the training set, at least 1.
      batch_size: examples a step over all devices.
      optimizer: how to step.
      preprocess: augmentation of training inputs, `(key, batch) -> batch`; see `data.augment`. None for none.
      average_decay: share of the moving average of the parameters that is kept a step, in (0, 1), by which the
        model then predicts; None for no average.
      evaluate_every: epochs between evaluations; the last epoch is always evaluated.
      checkpoint_every: epochs between checkpoints; the last epoch is always saved.
      checkpoint_minutes: minutes after which to save in the middle of an epoch too; None for never.
      steps_per_dispatch: training steps in one call to the device, which hides the host's time; None for what
        suits the platform.
      state_dtype: type in which per-example state is kept.
      on_nan: what to do with a step whose loss or gradient is not finite: `stop` the training a step later,
        or `skip` the step, which then changes nothing.
      end_after: epochs after which to end all the same, with the learning rate as it is then; None for all.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerSettings
    preprocess: Preprocess | None = None
    average_decay: float | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 10
    checkpoint_minutes: float | None = None
    steps_per_dispatch: int | None = None
    state_dtype: StateDtype = "float32"
    on_nan: Literal["stop", "skip"] = "stop"
    end_after: int | None = None

    def __post_init__(self):
        for name in ("epochs", "batch_size", "evaluate_every", "checkpoint_every"):
            _check_count(name, getattr(self, name))
        for name in ("end_after", "steps_per_dispatch"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        check_known("state type", self.state_dtype, get_args(StateDtype))
        check_known("on_nan", self.on_nan, ("stop", "skip"))
        if self.preprocess is not None and not callable(self.preprocess):
            raise InputError(
                "preprocess must be a function (key, batch) -> batch, such as dsink_jax.data.RandomFlip(), "
                f"got {self.preprocess!r}."
            )
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise InputError(f"average_decay must be in (0, 1), got {self.average_decay!r}.")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise InputError(f"checkpoint_minutes must be positive, got {self.checkpoint_minutes!r}.")

    @property
    def last_epoch(self) -> int:
        """Number of epochs that are trained."""
        return self.epochs if self.end_after is None else min(self.end_after, self.epochs)


def _check_count(name, value):
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}.")


class TrainedModel(NamedTuple):
    """A model after training, and all that it predicts by.

    Attributes:
      model: the network.
      method: what it was trained with.
      facts: what the method knew of the training set.
      variables: what `Model.apply` takes, NumPy arrays.
      history: a record for each evaluated epoch: `epoch`, `train` (mean metrics) and what `evaluate` gave.
      seconds: time spent training, evaluation and earlier, interrupted attempts included.
    """

    model: Model
    method: Method
    facts: TrainingFacts
    variables: Variables
    history: Sequence[Record] = ()
    seconds: float = 0.0

    @property
    def predictor(self) -> Predictor:
        """The static part of its predictions."""
        return Predictor(self.model, static_part(self.method))

    @property
    def numbers(self) -> PredictionNumbers:
        """The numbers of its predictions."""
        return PredictionNumbers(numbers_of(self.method), self.facts)

    def logits(
        self, inputs: Any, standardization: Standardization | None, devices: Sequence[jax.Device]
    ) -> np.ndarray:
        """Logits float32 `[M, C]` of inputs `[M, ...]`; see `predict`."""
        return predict(self.predictor, self.variables, self.numbers, standardization, inputs, devices)


class Auxiliaries(NamedTuple):
    """The two trained auxiliary models that a term distils."""

    noise_robust: TrainedModel
    imbalance_robust: TrainedModel


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

    Compiled programs are kept for the process: another training with equal network, method, kind of optimiser,
    devices and shapes compiles nothing, whatever its numbers and data. Rows of the training set are filled up
    to one of a few numbers, so that sets of about the same size have the same shapes.

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
        settings = _second_stage_settings(settings, stage)
        if term is not None:  # it has set in already
            term = dataclasses.replace(term, warmup_epochs=0.0, ramp_epochs=0.0)
    if (stage is None) != (start_from is None):
        raise ValueError(
            "start_from must be given for a method with a second stage, and for no other: it is what "
            "training the method's first_stage gave."
        )
    order = TrainingOrder(data, settings.batch_size, devices, facts.num_classes, seed, stage)
    batches.check_length(settings.epochs, order.num_examples, settings.batch_size)
    program = _program(model, method, term, settings, auxiliaries, stage)
    numbers = StepNumbers(
        numbers_of(method),
        numbers_of(term),
        settings.optimizer.numbers(order.steps * settings.epochs),
        facts,
        np.float32(order.steps),
        standardization,
        np.float32(settings.average_decay or 0.0),
        None if auxiliaries is None else tuple(one.numbers for one in auxiliaries),
    )
    count = len(data.labels)
    rows = rounded_up(count)
    init_key, step_key = jax.random.split(jax.random.key(seed))
    state = create_state(
        program,
        numbers,
        init_key,
        streaming.read_rows(data.inputs, np.arange(1)),
        rows,
        state_dtype=settings.state_dtype,
    )
    if start_from is not None:
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
    together = settings.steps_per_dispatch or _steps_per_dispatch(data.inputs, devices)
    train_step = _mapped_step(program, tuple(devices), together, source is not None)
    weights = None if auxiliaries is None else tuple(one.variables for one in auxiliaries)
    on_device = _padded(data, rows, source)
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
            for dispatch in _with_inputs(order.dispatches(epoch, together, done), source):
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


def first_stage_settings(settings: TrainingSettings, method: Method) -> TrainingSettings:
    """The settings to train the first stage of a method with."""
    if not isinstance(method, TwoStages):
        return settings
    stage = method.second_stage(settings.epochs)
    if not stage.cuts_first:
        return settings
    return dataclasses.replace(settings, end_after=max(settings.epochs - stage.epochs, 1))


def rounded_up(count: int) -> int:
    """Rows that a training set of `count` examples is filled up to, at most an eighth more.

    >>> [rounded_up(count) for count in (7, 400, 401, 544)]
    [7, 416, 416, 576]
    """
    unit = 2 ** max(count.bit_length() - 4, 0)
    return -(-count // unit) * unit


def _second_stage_settings(settings, stage):
    rate = settings.optimizer.learning_rate * stage.learning_rate_factor
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
    return dataclasses.replace(settings, epochs=stage.epochs, optimizer=optimizer)


def _check_data(method, term, data, num_classes, seed, auxiliaries):
    """Raises `InputError` for what would end in an error inside the step, or in none."""
    labels = check_labels(data.labels, num_classes, "Labels")
    shape = list(data.inputs.shape)
    if not len(labels) or len(shape) < 2 or shape[0] != len(labels) or 0 in shape:
        raise InputError(f"Inputs must be [M, ...] for {len(labels)} labels, got {shape}.")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InputError(f"The seed must be an integer in [0, 2^32), got {seed!r}.")
    if isinstance(method, UsesMetaSet) and (data.meta_index is None or data.meta_labels is None):
        raise InputError("The method learns from a meta set: give the data meta_index and meta_labels.")
    looked_up = data.noise_robust_logits is not None and data.imbalance_robust_logits is not None
    if term is not None and auxiliaries is None and not looked_up:
        raise InputError(
            "The term distils two auxiliary models: give auxiliaries, or their logits in the data."
        )


def _program(model, method, term, settings, auxiliaries, stage):
    return StepProgram(
        model,
        static_part(method),
        static_part(term),
        settings.optimizer.kind("classifier" if stage is not None and stage.only_classifier else None),
        settings.preprocess,
        None if auxiliaries is None else tuple(one.predictor for one in auxiliaries),
        is_second_stage=stage is not None,
        skips_not_finite=settings.on_nan == "skip",
        averages=settings.average_decay is not None,
    )


@functools.lru_cache(maxsize=64)
def _mapped_step(program, devices, together, streamed):
    """The compiled step of a program, the same for every training that can share it."""
    step = make_train_step(program, parallel.AXIS)
    split = (0, 0, 0) if streamed else (0, 0)
    if together > 1:
        step, split = repeat_step(step), (None, *split)
    return parallel.parallel_train_step(step, devices, split=split)


def _steps_per_dispatch(inputs, devices):
    if len(inputs.shape) == 2:
        return _STEPS_OF_VECTORS
    return 1 if devices[0].platform == "cpu" else _STEPS_ON_ACCELERATORS


def _started_from(state, start, program, numbers):
    """The state of a second stage."""
    from dsink_jax.training.optimizer import build_optimizer

    params = start.pop("params")
    return state._replace(
        params=params,
        collections=start,
        opt_state=build_optimizer(program.optimizer, numbers.optimizer).init(params),
        average=jax.tree.map(jnp.array, params) if program.averages else (),
    )


def _padded(data, rows, source):
    """The training set for the devices: filled up to a number of rows, without inputs that are streamed."""
    missing = rows - len(data.labels)

    def filled(array):
        if array is None or not missing:
            return array
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

    own = data._replace(
        labels=filled(np.asarray(data.labels, np.int32)),
        noise_robust_logits=filled(data.noise_robust_logits),
        imbalance_robust_logits=filled(data.imbalance_robust_logits),
    )
    if source is None:
        return own._replace(inputs=filled(np.asarray(data.inputs)))
    meta = None if data.meta_index is None else streaming.read_rows(source, data.meta_index)
    return own._replace(inputs=None, meta_inputs=meta)


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


class _Dispatch(NamedTuple):
    """The arguments of one call of the step behind the key, and the number of its steps."""

    arguments: tuple[Any, ...]
    steps: int


def _with_inputs(dispatches, source):
    """The dispatches, with the inputs of each if they are streamed."""
    if source is None:
        return (_Dispatch(arguments, steps) for arguments, steps in dispatches)
    dispatches = list(dispatches)
    inputs = streaming.read_batches(source, [arguments[-2] for arguments, _ in dispatches])
    return (
        _Dispatch((*arguments, batch), steps)
        for (arguments, steps), batch in zip(dispatches, inputs, strict=True)
    )


def _refreshed(state, present, data, standardization, devices):
    """The state after the method has looked at the whole training set."""
    count = len(data.labels)
    logits = predict(
        present.predictor,
        present.variables,
        present.numbers,
        standardization,
        data.inputs,
        devices,
        outputs=True,
    )
    example_state, shared_state = jax.device_get((state.example_state, state.shared_state))
    own = jax.tree.map(lambda leaf: leaf[:count], example_state)
    own, new_shared = present.method.refresh(logits, np.asarray(data.labels), own, shared_state)
    # In the types and with the rows they had.
    filled = jax.tree.map(
        lambda new, old: np.concatenate([np.asarray(new, old.dtype), old[count:]]), own, example_state
    )
    new_shared = jax.tree.map(lambda new, old: np.asarray(new, old.dtype), new_shared, shared_state)
    example_state, shared_state = parallel.replicate((filled, new_shared), devices)
    return state._replace(example_state=example_state, shared_state=shared_state)
