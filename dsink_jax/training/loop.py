"""The training loop: order the epoch, dispatch steps, evaluate, save, stop."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import batches, streaming
from dsink_jax.data.corruption import check_labels
from dsink_jax.errors import InputError, check_known
from dsink_jax.methods.base import Method
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training import parallel, processes
from dsink_jax.training.checkpoint import Checkpoint, Checkpointer
from dsink_jax.training.epoch_metrics import EpochMetrics
from dsink_jax.training.optimizer import OptimizerSettings, build_optimizer
from dsink_jax.training.order import TrainingOrder
from dsink_jax.training.predict import make_predictor
from dsink_jax.training.progress import Progress, SilentProgress
from dsink_jax.training.step import (
    Auxiliary,
    AuxiliaryPair,
    DeviceData,
    Preprocessing,
    StateDtype,
    create_state,
    make_train_step,
    repeat_step,
)

Record = dict[str, Any]
ShouldStop = Callable[[int], bool]  # from the number of steps done


def never(step: int) -> bool:
    """Does not ask a training to stop."""
    del step
    return False


class TrainingStoppedError(Exception):
    """Raised when a training was asked to stop, after it was saved where it can be."""


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How long and in what steps to train.

    Attributes:
      epochs: passes over the training set, at least 1.
      batch_size: examples a step over all devices.
      optimizer: how to step.
      evaluate_every: epochs between evaluations; the last epoch is always evaluated.
      checkpoint_every: epochs between checkpoints; the last epoch is always saved.
      steps_per_dispatch: training steps in one call to the device. More than 1 hides the host's time on
        accelerators; on CPU a convolution inside the loop this needs is many times slower.
      state_dtype: type in which per-example state is kept.
      on_nan: what to do with a step whose loss or gradient is not finite: `stop` the training at the end of
        the epoch, or `skip` the step, which then changes nothing.
      end_after: epochs after which to end all the same, with the learning rate as it is then; None for all.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerSettings
    evaluate_every: int = 1
    checkpoint_every: int = 10
    steps_per_dispatch: int = 1
    state_dtype: StateDtype = "float32"
    on_nan: Literal["stop", "skip"] = "stop"
    end_after: int | None = None

    def __post_init__(self):
        for name in ("epochs", "batch_size", "evaluate_every", "checkpoint_every", "steps_per_dispatch"):
            _check_count(name, getattr(self, name))
        if self.end_after is not None:
            _check_count("end_after", self.end_after)
        check_known("state type", self.state_dtype, get_args(StateDtype))
        check_known("on_nan", self.on_nan, ("stop", "skip"))

    @property
    def last_epoch(self) -> int:
        """Number of epochs that are trained."""
        return self.epochs if self.end_after is None else min(self.end_after, self.epochs)


def _check_count(name, value):
    if not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}.")


class TrainedAuxiliary(NamedTuple):
    """An auxiliary model after training."""

    model: Model
    method: Method
    variables: Variables


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
      variables: what `Model.apply` takes, NumPy arrays.
      history: a record for each evaluated epoch: `epoch`, `train` (mean metrics) and what `evaluate` gave.
      seconds: time spent training, evaluation and earlier, interrupted attempts included.
    """

    variables: Variables
    history: list[Record]
    seconds: float


def fit(
    model: Model,
    method: Method,
    data: DeviceData,
    preprocessing: Preprocessing,
    settings: FitSettings,
    *,
    num_classes: int,
    seed: int,
    devices: Sequence[jax.Device],
    auxiliaries: AuxiliaryPair | None = None,
    start_from: Variables | None = None,
    evaluate: Callable[[Variables], Record] = lambda variables: {},
    checkpointer: Checkpointer | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
    should_stop: ShouldStop = never,
    progress: Progress | None = None,
) -> Fitted:
    """Trains a model, or goes on with its training, or returns it if it is done.

    Args:
      model: the network, made for the axis `parallel.AXIS`.
      method: what it optimises.
      data: training set, host arrays, its images perhaps an `ImageSource` to stream from; with the
        auxiliaries' logits if they are to be looked up.
      preprocessing: augmentation and normalisation.
      settings: how long and in what steps.
      num_classes: C.
      seed: decides initial parameters, order and augmentation.
      devices: devices of this process to train on; with several processes, all it has.
      auxiliaries: a pair of `TrainedAuxiliary` to run on the student's own view, or None.
      start_from: for a method of two stages, the variables that a `fit` of its `first_stage` gave, with the
        settings of `first_stage_settings`. What the second stage trains with follows from `settings`.
      evaluate: called with variables on the devices; what it returns joins the record of the epoch.
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
    _check_data(method, data, preprocessing, num_classes, seed, auxiliaries)
    stage = method.second_stage
    if (stage is None) != (start_from is None):
        raise ValueError(
            "start_from must be given for a method with a second stage, and for no other: it is what a "
            "`fit` of the method's first_stage trained."
        )
    if stage is not None:
        settings = _second_stage_settings(settings, stage)
    order = TrainingOrder(data, settings.batch_size, devices, num_classes, seed, stage)
    batches.check_length(settings.epochs, order.num_examples, settings.batch_size)
    optimizer = build_optimizer(
        settings.optimizer,
        order.steps * settings.epochs,
        only="classifier" if stage is not None and stage.only_classifier else None,
    )
    init_key, step_key = jax.random.split(jax.random.key(seed))
    state = create_state(
        model,
        method,
        optimizer,
        init_key,
        streaming.gather(data.images, np.arange(1)),
        len(data.labels),
        num_classes,
        state_dtype=settings.state_dtype,
    )
    if start_from is not None:
        # Copies, because the state is donated and the caller's arrays are not ours to give away.
        start = jax.tree.map(jnp.array, method.start(start_from, state.variables))
        state = state._replace(params=start["params"], collections={"batch_stats": start["batch_stats"]})
        state = state._replace(opt_state=optimizer.init(state.params))
    saved = _restored(checkpointer, state)
    state, epoch, history, seconds, done, partial = saved
    history, sums, partial = list(history), partial, {}
    for name, value in sums.items():
        partial.setdefault(name.split("/")[0], []).append(value)
    if epoch >= settings.last_epoch:
        return Fitted(jax.device_get(state.variables), history, seconds)

    source = data.images if streaming.is_streamed(data.images) else None
    train_step = _mapped_step(
        model, method, optimizer, preprocessing, order.steps, settings, auxiliaries, stage, devices, source
    )
    outputs = make_predictor(model, None, preprocessing, devices)
    weights = None if auxiliaries is None else AuxiliaryPair(*(a.variables for a in auxiliaries))
    if source is not None:
        meta = None if data.meta_index is None else streaming.gather(source, data.meta_index)
        data = data._replace(images=None, meta_images=meta)
    state, data, weights, step_key = parallel.replicate((state, data, weights, step_key), devices)
    images = data.images if source is None else source
    progress = progress or SilentProgress()
    progress.start(settings.last_epoch, epoch, order.num_examples)
    started = time.monotonic() - seconds

    def check(collected):
        none = "none" if processes.is_first() else "as the first process tells"
        last_good = checkpointer.newest if checkpointer is not None else lambda: none
        collected.check(state.params, order.steps, last_good)

    def save(done=0, partial=None):
        if checkpointer is not None:
            seconds = time.monotonic() - started
            sums = {f"{name}/{i}": v for name, vs in (partial or {}).items() for i, v in enumerate(vs)}
            checkpointer.save(Checkpoint(state, epoch, history, seconds, done, sums))

    try:
        while epoch < settings.last_epoch:
            if not done and method.refresh_before(epoch):
                state = _refreshed(state, method, images, data.labels, outputs, devices)
            collected = EpochMetrics(epoch + 1, partial)
            for batch in _with_images(order.dispatches(epoch, settings.steps_per_dispatch, done), source):
                state, metrics = train_step(state, data, weights, step_key, *batch)
                collected.add(metrics)
                done = min(done + settings.steps_per_dispatch, order.steps)
                if parallel.must_read(done // settings.steps_per_dispatch, devices):
                    jax.block_until_ready(metrics)
                progress.step_dispatched(done / order.steps, metrics)
                if done < order.steps and should_stop(epoch * order.steps + done):
                    check(collected)
                    save(done, collected.lists())
                    raise TrainingStoppedError(f"epoch {epoch + 1}, step {done} of {order.steps}")
            check(collected)
            epoch, done, partial = epoch + 1, 0, {}
            record = {"epoch": epoch, "train": collected.means()}
            last = epoch == settings.last_epoch
            if last or epoch % settings.evaluate_every == 0:
                record |= evaluate(state.variables)
                history.append(record)
                on_record(record)
            progress.epoch_done(epoch, record)
            stop = should_stop(epoch * order.steps)
            if last or stop or epoch % settings.checkpoint_every == 0 or _is_best(history, epoch):
                save()
            if stop and not last:
                raise TrainingStoppedError(f"epoch {epoch}")
    finally:
        progress.stop()
    return Fitted(jax.device_get(state.variables), history, time.monotonic() - started)


def _check_data(method, data, preprocessing, num_classes, seed, auxiliaries):
    """Raises `InputError` for what would end in an error inside the step, or in none."""
    images, labels = data.images, check_labels(data.labels, num_classes, "Labels")
    if not len(labels) or len(images.shape) != 4 or len(images) != len(labels):
        raise InputError(
            f"Images must be [M, H, W, channels] for {len(labels)} labels, got {list(images.shape)}."
        )
    if not len(preprocessing.mean) == len(preprocessing.std) == images.shape[3]:
        raise InputError(f"Mean and std must be given for each of {images.shape[3]} channels.")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InputError(f"The seed must be an integer in [0, 2^32), got {seed!r}.")
    if method.meta_per_class and (data.meta_index is None or data.meta_labels is None):
        raise InputError("The method learns from a meta set: give the data meta_index and meta_labels.")
    looked_up = data.noise_robust_logits is not None and data.imbalance_robust_logits is not None
    if method.needs_auxiliaries and auxiliaries is None and not looked_up:
        raise InputError(
            "The method distils two auxiliary models: give auxiliaries, or their logits in the data."
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


def first_stage_settings(settings: FitSettings, method: Method) -> FitSettings:
    """The settings to train a method's `first_stage` with."""
    stage = method.second_stage
    if stage is None or not stage.cuts_first:
        return settings
    return dataclasses.replace(settings, end_after=max(settings.epochs - stage.epochs, 1))


def _second_stage_settings(settings, stage):
    rate = settings.optimizer.learning_rate * stage.learning_rate_factor
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
    return dataclasses.replace(settings, epochs=stage.epochs, optimizer=optimizer)


def _with_images(dispatches, source):
    """Index and where of each call, and its images if they are streamed."""
    if source is None:
        return dispatches
    dispatches = list(dispatches)
    images = streaming.read_batches(source, [index for index, _ in dispatches])
    return ((index, where, batch) for (index, where), batch in zip(dispatches, images, strict=True))


def _refreshed(state, method, images, labels, outputs, devices):
    """The state after the method has looked at the whole training set."""
    logits = outputs(state.variables, images)
    example_state, shared_state = jax.device_get((state.example_state, state.shared_state))
    new = method.refresh(logits, np.asarray(labels), example_state, shared_state)
    # In the types it had.
    new = jax.tree.map(lambda to, of: np.asarray(to, of.dtype), new, (example_state, shared_state))
    example_state, shared_state = parallel.replicate(new, devices)
    return state._replace(example_state=example_state, shared_state=shared_state)


def _mapped_step(
    model, method, optimizer, preprocessing, steps, settings, auxiliaries, stage, devices, source
):
    if auxiliaries is not None:
        auxiliaries = AuxiliaryPair(*(Auxiliary(a.model, a.method) for a in auxiliaries))
    step = make_train_step(
        model,
        method,
        optimizer,
        preprocessing,
        steps,
        auxiliaries=auxiliaries,
        stage=stage,
        skip_not_finite=settings.on_nan == "skip",
        axis_name=parallel.AXIS,
    )
    if settings.steps_per_dispatch > 1:
        step = repeat_step(step)
    return parallel.parallel_train_step(step, devices, streamed=source is not None)
