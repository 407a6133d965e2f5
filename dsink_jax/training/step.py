"""One training step and one prediction step as pure functions of one device's share of a batch.

Written against the name of a mapped axis only: the same functions run under `pmap`, `shard_map` or, with
no axis, plain `jit`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsink_jax.collectives import gather, total
from dsink_jax.data.augment import Augmentation, augment, example_keys, normalise
from dsink_jax.methods.base import Batch, Method, Networks, SecondStage
from dsink_jax.models.interface import Model, Variables

Array = jax.Array | np.ndarray
StateDtype = Literal["float32", "float16"]

# Folded into the key of a step, beside the examples' indices, which never get so large.
_SECOND_VIEW, _METHOD = 2**32 - 1, 2**32 - 2


class TrainState(NamedTuple):
    """Everything a training step changes; equal on all devices.

    Attributes:
      step: int32 `[]`, steps done.
      params: parameters.
      collections: what else the network keeps, such as `batch_stats`.
      opt_state: state of the optimiser.
      example_state: the method's per-example state, a pytree of `[M, ...]`, M training examples.
      shared_state: the method's state of the whole training set.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    example_state: Any
    shared_state: Any = ()
    average: Any = ()

    @property
    def variables(self) -> Variables:
        """What `Model.apply` takes."""
        return {"params": self.params, "batch_stats": {}, **self.collections}


class DeviceData(NamedTuple):
    """The training set as it lies on every device.

    Attributes:
      images: `[M, H, W, channels]`, uint8 or float; or an `ImageSource`, which is streamed: the step is then
        given None here, and the images of each batch.
      labels: int32 `[M]`, observed labels.
      noise_robust_logits: float32 `[M, C]`, f_N's logits on the unaugmented images, or None.
      imbalance_robust_logits: float32 `[M, C]`, the same of f_L, or None.
      meta_index: int32 `[K]`, positions of the meta set, class by class, or None. They are left out of the
        order of the epochs.
      meta_labels: int32 `[K]`, its labels, or None.
      meta_images: `[K, H, W, channels]`, its images where the others are streamed, else None.
    """

    images: Any
    labels: Array
    noise_robust_logits: Array | None = None
    imbalance_robust_logits: Array | None = None
    meta_index: Array | None = None
    meta_labels: Array | None = None
    meta_images: Array | None = None


class Auxiliary(NamedTuple):
    """A trained auxiliary model that the step runs on the student's own view: static part."""

    model: Model
    method: Method


class AuxiliaryPair(NamedTuple):
    """f_N and f_L, or their variables."""

    noise_robust: Any
    imbalance_robust: Any


class Preprocessing(NamedTuple):
    """How stored images become inputs."""

    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]


def create_state(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images: Array,
    num_examples: int,
    num_classes: int,
    *,
    state_dtype: StateDtype = "float32",
) -> TrainState:
    """The state before the first step.

    Args:
      model: the network.
      method: what it optimises.
      optimizer: how.
      key: PRNG key of the initial parameters.
      images: one or more inputs `[n, H, W, channels]`, for their shape.
      num_examples: size of the training set.
      num_classes: C.
      state_dtype: type in which per-example state is kept; it is computed with in float32.

    Raises:
      ValueError: if the model is not as many networks as the method trains.
    """
    if model.networks != method.networks:
        raise ValueError(
            f"The method trains {method.networks} networks and the model is {model.networks}. "
            f"Give it several(model, {method.networks})."
        )
    variables = model.init(key, jnp.asarray(images, jnp.float32))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        collections={"batch_stats": variables.get("batch_stats", {})},
        opt_state=optimizer.init(variables["params"]),
        example_state=jax.tree.map(
            # Copies: the state is donated, so no two leaves may share a buffer.
            lambda leaf: jnp.array(leaf, state_dtype),
            method.init(num_examples, num_classes),
        ),
        shared_state=method.init_shared(num_classes),
    )


def make_train_step(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
    steps_per_epoch: int,
    *,
    auxiliaries: AuxiliaryPair | None = None,
    stage: SecondStage | None = None,
    skip_not_finite: bool = False,
    axis_name: str | None = None,
) -> Callable:
    """Builds the training step.

    Args:
      model: the network, made for the same `axis_name`.
      method: what it optimises.
      optimizer: how.
      preprocessing: augmentation and normalisation.
      steps_per_epoch: to tell the method how far training is.
      auxiliaries: a pair of `Auxiliary` to run in evaluation mode on the same augmented images; None if
        the method needs none or the data carries their logits.
      stage: the method's second stage, if this is it: batch statistics stay as they are.
      skip_not_finite: whether a step whose loss or gradient is not finite is to change nothing. Its metrics
        are 0, `examples` among them, and `skipped` is 1.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      `step(state, data, auxiliary_variables, key, index, where, images=None) -> (state, metrics)`: index
      int32 `[n]` and where bool `[n]` are this device's share, and images `[n, ...]` if they are streamed;
      metrics are float32 scalars over the whole batch, equal
      on all devices: `loss`, `accuracy` (against observed labels), `examples` and the method's own.
    """

    def view(key, index, images):
        images = augment(preprocessing.augmentation, example_keys(key, index), images)
        return normalise(images, preprocessing.mean, preprocessing.std)

    def make_batch(state, data, auxiliary_variables, key, index, where, stored):
        images = view(key, index, stored)
        batch = Batch(images, data.labels[index], where, shared_state=state.shared_state)
        if method.views == 2:
            second_key = jax.random.fold_in(key, _SECOND_VIEW)
            batch = batch._replace(second_view=view(second_key, index, stored))
        if method.meta_per_class:
            meta_images = data.images[data.meta_index] if data.meta_images is None else data.meta_images
            meta_images = normalise(meta_images, preprocessing.mean, preprocessing.std)
            batch = batch._replace(meta_images=meta_images, meta_labels=data.meta_labels)
        return _with_auxiliaries(batch, data, auxiliaries, auxiliary_variables, index)

    def train_step(state, data, auxiliary_variables, key, index, where, images=None):
        key = jax.random.fold_in(key, state.step)
        stored = data.images[index] if images is None else images
        batch = make_batch(state, data, auxiliary_variables, key, index, where, stored)
        rows = jax.tree.map(lambda s: s[index].astype(jnp.float32), state.example_state)
        count = total(where.sum(), axis_name).astype(jnp.float32)
        epoch = state.step / steps_per_epoch
        batch = method.prepare(
            batch,
            rows,
            _present_networks(model, state.variables),
            jax.random.fold_in(key, _METHOD),
            epoch=epoch,
            axis_name=axis_name,
        )
        inputs = batch.images if batch.inputs is None else batch.inputs

        def local_loss(params):
            if stage is not None and stage.only_classifier:
                params = {**jax.lax.stop_gradient(params), "classifier": params["classifier"]}
            logits, batch_stats = model.apply(
                {"params": params, "batch_stats": state.collections["batch_stats"]}, inputs, stage is None
            )
            result = method.loss(logits, batch, rows, epoch=epoch, axis_name=axis_name)
            return jnp.where(where, result.values, 0.0).sum() / count, (result, logits, batch_stats)

        gradient, (result, logits, batch_stats) = jax.grad(local_loss, has_aux=True)(state.params)
        gradient = total(gradient, axis_name)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        predictions = method.predict(logits) if result.predictions is None else result.predictions
        correct = predictions.argmax(-1) == batch.labels
        metrics = {"loss": result.values, "accuracy": correct.astype(jnp.float32), **result.metrics}
        metrics = {
            name: total(jnp.where(where, value, 0.0).sum(), axis_name) / count if value.ndim else value
            for name, value in metrics.items()
        }
        metrics["examples"] = count
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections={"batch_stats": batch_stats},
            opt_state=opt_state,
            example_state=_write_rows(state.example_state, result.example_state, index, where, axis_name),
            shared_state=state.shared_state if result.shared_state is None else result.shared_state,
            average=state.average,
        )
        if skip_not_finite:
            return _unless_finite(gradient, metrics, state, new_state)
        return new_state, metrics

    return train_step


def make_predict_step(model: Model, method: Method | None, preprocessing: Preprocessing) -> Callable:
    """Builds `predict(variables, images, index=None) -> logits [n, C]`, in evaluation mode.

    On unaugmented images: those at `index`, or all that are given. The softmax of the logits is the method's
    prediction. Without a method they are the networks' outputs as `Method.refresh` gets them, `[n, C]` or
    `[n, K, C]`.
    """

    def predict_step(variables, images, index=None):
        inputs = normalise(images if index is None else images[index], preprocessing.mean, preprocessing.std)
        if method is not None:
            return _predict(model, method, variables, inputs)
        logits, _ = model.apply(variables, inputs, False)
        return logits if logits.ndim == 2 else logits.swapaxes(0, 1)

    return predict_step


def repeat_step(train_step: Callable) -> Callable:
    """Several steps in one dispatch: index and where become `[k, n]`, images `[k, n, ...]`, metrics `[k]`."""

    def steps(state, data, auxiliary_variables, key, *order):
        def body(state, order):
            return train_step(state, data, auxiliary_variables, key, *order)

        return jax.lax.scan(body, state, order)

    return steps


def _unless_finite(gradient, metrics, state, new_state):
    """State and metrics of a step that changes nothing, if its loss or gradient is not finite."""
    leaves = [metrics["loss"], *jax.tree.leaves(gradient)]
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
    metrics = jax.tree.map(lambda value: jnp.where(finite, value, 0), metrics)
    skipped = 1.0 - finite.astype(jnp.float32)
    return kept._replace(step=new_state.step), {**metrics, "skipped": skipped}


def _predict(model, method, variables, inputs):
    """The method's prediction, as logits `[n, C]`."""
    logits, _ = model.apply(method.deployed(variables), inputs, False)
    return method.predict(logits)


def _present_networks(model, variables):
    """The networks as they are, in evaluation mode."""

    def features(images):
        if model.features is None:
            raise ValueError("Features are needed, which this model does not tell: see `Model.features`.")
        return model.features(variables, images)

    return Networks(lambda images: model.apply(variables, images, False)[0], features)


def _with_auxiliaries(batch, data, auxiliaries, variables, index):
    """Adds the auxiliary logits: computed on the batch's own view, or looked up."""
    if auxiliaries is not None:
        logits = [
            _predict(auxiliary.model, auxiliary.method, weights, batch.images)
            for auxiliary, weights in zip(auxiliaries, variables, strict=True)
        ]
    elif data.noise_robust_logits is not None:
        logits = [data.noise_robust_logits[index], data.imbalance_robust_logits[index]]
    else:
        return batch
    noise_robust, imbalance_robust = jax.lax.stop_gradient(logits)
    return batch._replace(noise_robust_logits=noise_robust, imbalance_robust_logits=imbalance_robust)


def _write_rows(example_state, rows, index, where, axis_name):
    """Writes the new rows of all devices into the per-example state; padding is not written."""
    if not jax.tree.leaves(example_state):
        return example_state
    rows, index, where = gather((rows, index, where), axis_name)

    def write(state, new):
        # Out of bounds means dropped, so padding rows point past the end.
        target = jnp.where(where, index, state.shape[0])
        return state.at[target].set(jax.lax.stop_gradient(new).astype(state.dtype), mode="drop")

    return jax.tree.map(write, example_state, rows)
