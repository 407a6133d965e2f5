"""Predictions of a trained model for many inputs, in batches of a few sizes."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from dsink_jax.data import streaming
from dsink_jax.models.interface import Variables
from dsink_jax.training import parallel
from dsink_jax.training.arguments import PredictionNumbers, Predictor, Standardization
from dsink_jax.training.step import make_feature_step, make_output_step, make_predict_step

# Examples on each device at once: so few programs serve any number of them.
BATCH_SIZES = (512, 128, 32, 8)
Wanted = Literal["predictions", "outputs", "features"]


def predict(
    predictor: Predictor,
    variables: Variables,
    numbers: PredictionNumbers,
    standardization: Standardization | None,
    inputs: Any,
    devices: Sequence[jax.Device],
    *,
    wanted: Wanted = "predictions",
) -> np.ndarray:
    """Logits float32 `[M, C]`, whose softmax is the method's prediction: evaluation mode, no augmentation.

    Programs are compiled once for a network, a method, the shape of an example and each of `BATCH_SIZES`;
    rows are filled up to one of these, and never is more than one batch copied to the devices.

    Args:
      predictor: network and method, the latter without its numbers.
      variables: of the network.
      numbers: what it predicts by.
      standardization: of the inputs, or None.
      inputs: `[M, ...]`, an array on the host or a source to stream from.
      devices: devices of this process to predict on.
      wanted: `predictions` of the method; or what `refresh` gets: the networks' `outputs`, `[M, C]` or, of
        K networks, `[M, K, C]`, or their `features`, `[M, D]` or `[M, K, D]`.

    Raises:
      ValueError: if features are wanted of a network that does not tell them.
    """
    step = _mapped_step(predictor, tuple(devices), wanted)
    fixed = parallel.replicate((variables, numbers, standardization), devices)
    parts = []
    for count, batch in _batches(inputs, len(devices)):
        parts.append((count, step(*fixed, batch)))
        if parallel.must_read(len(parts), devices):
            jax.block_until_ready(parts[-1][1])
    return np.concatenate([np.asarray(part).reshape(-1, *part.shape[2:])[:count] for count, part in parts])


def batch_sizes(count: int, num_devices: int) -> Iterator[int]:
    """Examples on each device in each of the batches that `count` examples are predicted in.

    At most half of a batch is filled up, but for the smallest.

    >>> list(batch_sizes(544, 1)), list(batch_sizes(400, 1)), list(batch_sizes(37, 1))
    ([512, 32], [512], [32, 8])
    """
    while count > 0:
        fits = [size for size in BATCH_SIZES if count <= size * num_devices <= 2 * count]
        full = [size for size in BATCH_SIZES if size * num_devices <= count]
        size = min(fits) if fits else full[0] if full else BATCH_SIZES[-1]
        yield size
        count -= size * num_devices


@functools.lru_cache(maxsize=64)  # compiled once for all trainings of one kind, such as the folds of an audit
def _mapped_step(predictor, devices, wanted):
    if wanted == "predictions":
        step = make_predict_step(predictor)
    else:
        step = {"outputs": make_output_step, "features": make_feature_step}[wanted](predictor.model)
    return parallel.parallel_predict_step(step, devices)


def _batches(inputs, num_devices):
    """Number of examples, and the inputs `[devices, n, ...]`, of each batch."""
    sizes = list(batch_sizes(len(inputs), num_devices))
    stops = np.cumsum([size * num_devices for size in sizes])
    counts = np.diff(np.minimum(stops, len(inputs)), prepend=0)
    # What is filled up repeats the last example.
    rows = [
        np.minimum(np.arange(stop - size * num_devices, stop), len(inputs) - 1).reshape(num_devices, size)
        for stop, size in zip(stops, sizes, strict=True)
    ]
    if streaming.is_streamed(inputs):
        return zip(counts, streaming.read_batches(inputs, rows), strict=True)
    return ((count, np.asarray(inputs)[index]) for count, index in zip(counts, rows, strict=True))
