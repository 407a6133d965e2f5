"""The training loop: order the epoch, dispatch steps, evaluate, save, stop."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import batches
from dsink_jax.methods.base import Method
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training import parallel
from dsink_jax.training.checkpoint import Checkpoint, Checkpointer
from dsink_jax.training.optimizer import OptimizerSettings, build_optimizer
from dsink_jax.training.progress import Progress, SilentProgress
from dsink_jax.training.step import (
    Auxiliary,
    AuxiliaryPair,
    DeviceData,
    Preprocessing,
    StateDtype,
    create_state,
    make_predict_step,
    make_train_step,
    repeat_step,
)

Record = dict[str, Any]


class TrainingDivergedError(RuntimeError):
    """Raised when the loss of an epoch, or a parameter after it, is not finite."""


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
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerSettings
    evaluate_every: int = 1
    checkpoint_every: int = 10
    steps_per_dispatch: int = 1
    state_dtype: StateDtype = "float32"


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
    progress: Progress | None = None,
) -> Fitted:
    """Trains a model, or goes on with its training, or returns it if it is done.

    Args:
      model: the network, made for the axis `parallel.AXIS`.
      method: what it optimises.
      data: training set, host arrays; with the auxiliaries' logits if they are to be looked up.
      preprocessing: augmentation and normalisation.
      settings: how long and in what steps.
      num_classes: C.
      seed: decides initial parameters, order and augmentation.
      devices: devices to train on.
      auxiliaries: a pair of `TrainedAuxiliary` to run on the student's own view, or None.
      start_from: for a method of two stages, the variables that a `fit` of its `first_stage` with the same
        settings gave. Length and learning rate of the second stage follow from the settings.
      evaluate: called with variables on the devices; what it returns joins the record of the epoch.
      checkpointer: where to save and resume, or None.
      on_record: called with each new record.
      progress: where to show progress.

    Raises:
      InputError: if the batch size does not split over the devices.
      ValueError: if the model, or `start_from`, does not go with the method.
      TrainingDivergedError: if the loss of an epoch, or a parameter after it, is not finite.
    """
    batches.check_batch_size(settings.batch_size, len(devices))
    stage = method.second_stage
    if (stage is None) != (start_from is None):
        raise ValueError(
            "start_from must be given for a method with a second stage, and for no other: it is what a "
            "`fit` of the method's first_stage trained."
        )
    if stage is not None:
        settings = _second_stage_settings(settings, stage)
    order = _Order(data, settings.batch_size, len(devices), num_classes, seed, stage)
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
        data.images[:1],
        len(data.labels),
        num_classes,
        state_dtype=settings.state_dtype,
    )
    if start_from is not None:
        # Copies, because the state is donated and the caller's arrays are not ours to give away.
        start = jax.tree.map(jnp.array, method.start(start_from, state.variables))
        state = state._replace(params=start["params"], batch_stats=start["batch_stats"])
        state = state._replace(opt_state=optimizer.init(state.params))
    epoch, history, seconds = 0, [], 0.0
    if checkpointer is not None and (saved := checkpointer.restore(state)) is not None:
        state, epoch, history, seconds = saved
    if epoch >= settings.epochs:
        return Fitted(jax.device_get(state.variables), history, seconds)

    train_step = _mapped_step(
        model, method, optimizer, preprocessing, order.steps, settings, auxiliaries, stage, devices
    )
    outputs = make_predictor(model, None, preprocessing, devices)
    weights = None if auxiliaries is None else AuxiliaryPair(*(a.variables for a in auxiliaries))
    state, data, weights, step_key = parallel.replicate((state, data, weights, step_key), devices)
    progress = progress or SilentProgress()
    progress.start(settings.epochs, epoch, order.num_examples)
    started = time.monotonic() - seconds
    try:
        while epoch < settings.epochs:
            if method.refresh_before(epoch):
                state = _refreshed(state, method, data, outputs, devices)
            collected = []
            dispatches = _dispatches(order.of_epoch(epoch), settings.steps_per_dispatch)
            for step, (index, where) in enumerate(dispatches, start=1):
                state, metrics = train_step(state, data, weights, step_key, index, where)
                collected.append(metrics)
                if parallel.must_read(step, devices):
                    jax.block_until_ready(metrics)
                progress.step_dispatched(min(step * settings.steps_per_dispatch / order.steps, 1.0), metrics)
            epoch += 1
            record = {"epoch": epoch, "train": _mean_metrics(collected)}
            _check_finite(record, state.params)
            last = epoch == settings.epochs
            if last or epoch % settings.evaluate_every == 0:
                record |= evaluate(state.variables)
                history.append(record)
                on_record(record)
            progress.epoch_done(epoch, record)
            if checkpointer is not None and (last or epoch % settings.checkpoint_every == 0):
                checkpointer.save(Checkpoint(state, epoch, history, time.monotonic() - started))
    finally:
        progress.stop()
    return Fitted(jax.device_get(state.variables), history, time.monotonic() - started)


def make_predictor(
    model: Model,
    method: Method | None,
    preprocessing: Preprocessing,
    devices: Sequence[jax.Device],
    batch_size: int = 512,
) -> Callable[[Variables, Any], np.ndarray]:
    """Builds `predict(variables, images [M, H, W, channels]) -> logits float32 [M, C]` over all devices.

    Evaluation mode, no augmentation; the softmax of the logits is the method's prediction. Arrays already
    on the devices (`parallel.replicate`) are not copied again.

    Args:
      model: the network.
      method: what it was trained with; None for the networks' outputs as `Method.refresh` gets them.
      preprocessing: its normalisation is used, its augmentation is not.
      devices: devices to predict on.
      batch_size: largest number of images on each device at once.
    """
    step = parallel.parallel_predict_step(make_predict_step(model, method, preprocessing), devices)

    def predict(variables, images):
        variables, images = parallel.replicate((variables, images), devices)
        per_device = min(batch_size, -(-len(images) // len(devices)))
        order = batches.evaluation_order(len(images), per_device * len(devices), len(devices))
        logits = []
        for number, index in enumerate(order.index, start=1):
            logits.append(step(variables, images, index))
            if parallel.must_read(number, devices):
                jax.block_until_ready(logits[-1])
        logits = np.stack([np.asarray(part) for part in logits])
        return logits.reshape(order.where.size, *logits.shape[3:])[: len(images)]

    return predict


class _Order:
    """The order of the epochs of one training."""

    def __init__(self, data, batch_size, num_devices, num_classes, seed, stage):
        kept = np.arange(len(data.labels))
        if data.meta_index is not None:
            kept = np.setdiff1d(kept, data.meta_index)
        self._kept, self._labels = kept.astype(np.int32), np.asarray(data.labels)[kept]
        self._split, self._seed, self._num_classes = (batch_size, num_devices), seed, num_classes
        self._class_balanced = stage is not None and stage.class_balanced
        self.num_examples = len(kept)
        self.steps = batches.steps_per_epoch(len(kept), batch_size)

    def of_epoch(self, epoch):
        """Index and where of an epoch's steps."""
        if self._class_balanced:
            order = batches.class_balanced_order(
                self._labels, self._num_classes, *self._split, seed=self._seed, epoch=epoch
            )
        else:
            order = batches.training_order(self.num_examples, *self._split, seed=self._seed, epoch=epoch)
        return order._replace(index=self._kept[order.index])


def _second_stage_settings(settings, stage):
    rate = settings.optimizer.learning_rate * stage.learning_rate_factor
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
    return dataclasses.replace(settings, epochs=stage.epochs, optimizer=optimizer)


def _refreshed(state, method, data, outputs, devices):
    """The state after the method has looked at the whole training set."""
    logits = outputs(state.variables, data.images)
    example_state, shared_state = jax.device_get((state.example_state, state.shared_state))
    new = method.refresh(logits, np.asarray(data.labels), example_state, shared_state)
    # In the types it had.
    new = jax.tree.map(lambda to, of: np.asarray(to, of.dtype), new, (example_state, shared_state))
    example_state, shared_state = parallel.replicate(new, devices)
    return state._replace(example_state=example_state, shared_state=shared_state)


@jax.jit
def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _check_finite(record, params):
    loss = record["train"]["loss"]
    what = "the loss" if not np.isfinite(loss) else "a parameter" if not _all_finite(params) else None
    if what is not None:
        raise TrainingDivergedError(
            f"Training diverged: {what} was not finite in epoch {record['epoch']}. "
            "Try a lower learning rate, a lower alpha, or the loss scale `bounded`."
        )


def _mapped_step(model, method, optimizer, preprocessing, steps, settings, auxiliaries, stage, devices):
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
        axis_name=parallel.AXIS,
    )
    if settings.steps_per_dispatch > 1:
        step = repeat_step(step)
    return parallel.parallel_train_step(step, devices)


def _dispatches(order, steps_per_dispatch):
    """Index and where of each call: `[devices, n]`, or `[devices, k, n]` for k steps in a call."""
    for start in range(0, len(order.index), steps_per_dispatch):
        stop = start + steps_per_dispatch
        if steps_per_dispatch == 1:
            yield order.index[start], order.where[start]
        else:
            yield order.index[start:stop].swapaxes(0, 1), order.where[start:stop].swapaxes(0, 1)


def _mean_metrics(collected):
    """Means over the examples of an epoch: the one place where the loop waits for the devices."""
    host = jax.device_get(collected)
    columns = {name: np.concatenate([np.atleast_1d(m[name]) for m in host]) for name in host[0]}
    examples = columns.pop("examples")
    return {name: float(np.average(values, weights=examples)) for name, values in columns.items()}
