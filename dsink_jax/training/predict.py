"""Predictions of a trained model on many images."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dsink_jax.data import batches, streaming
from dsink_jax.methods.base import Method
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training import parallel
from dsink_jax.training.step import Preprocessing, make_predict_step


@functools.lru_cache(maxsize=8)  # compiled once for all trainings of one kind, such as the folds of an audit
def _steps(model, method, preprocessing, devices):
    predict_step = make_predict_step(model, method, preprocessing)
    return (
        parallel.parallel_predict_step(predict_step, devices),
        parallel.streamed_predict_step(predict_step, devices),
    )


def make_predictor(
    model: Model,
    method: Method | None,
    preprocessing: Preprocessing,
    devices: Sequence[jax.Device],
    batch_size: int = 512,
) -> Callable[[Variables, Any], np.ndarray]:
    """Builds `predict(variables, images [M, H, W, channels]) -> logits float32 [M, C]` over all devices.

    Evaluation mode, no augmentation; the softmax of the logits is the method's prediction. Arrays already
    on the devices (`parallel.replicate`) are not copied again; an `ImageSource` is streamed.

    Args:
      model: the network.
      method: what it was trained with; None for the networks' outputs as `Method.refresh` gets them.
      preprocessing: its normalisation is used, its augmentation is not.
      devices: devices of this process to predict on.
      batch_size: largest number of images on each device at once.
    """
    step, streamed_step = _steps(model, method, preprocessing, tuple(devices))

    def dispatches(variables, images, order):
        if streaming.is_streamed(images):
            for batch in streaming.read_batches(images, order.index):
                yield streamed_step(variables, batch)
        else:
            images = parallel.replicate(images, devices)
            for index in order.index:
                yield step(variables, images, index)

    def predict(variables, images):
        variables = parallel.replicate(variables, devices)
        per_device = min(batch_size, -(-len(images) // len(devices)))
        order = batches.evaluation_order(len(images), per_device * len(devices), len(devices))
        parts = []
        for number, batch in enumerate(dispatches(variables, images, order), start=1):
            parts.append(batch)
            if parallel.must_read(number, devices):
                jax.block_until_ready(parts[-1])
        logits = np.stack([np.asarray(part) for part in parts])
        return logits.reshape(order.where.size, *logits.shape[3:])[: len(images)]

    return predict
