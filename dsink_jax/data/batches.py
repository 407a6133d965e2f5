"""The order of examples in an epoch: shuffled by (seed, epoch), padded, split over devices."""

import math
from typing import NamedTuple

import numpy as np

from dsink_jax.errors import InputError


class EpochOrder(NamedTuple):
    """The batches of one epoch.

    Attributes:
      index: int32 `[steps, devices, batch_size / devices]`, positions in the training set.
      where: bool of the same shape, False for padding.
    """

    index: np.ndarray  # type: ignore[assignment]  # hides the tuple's own, which nobody needs
    where: np.ndarray


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Number of batches in which every example comes once; the last one may be padded."""
    return math.ceil(num_examples / batch_size)


def check_length(epochs: int, num_examples: int, batch_size: int) -> None:
    """Raises `InputError` for a training of more steps than can be counted in 32 bits."""
    steps = epochs * steps_per_epoch(num_examples, batch_size)
    if steps >= 2**31:
        raise InputError(
            f"{epochs} epochs are {steps} steps, more than can be counted. Give fewer, or larger batches."
        )


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Raises `InputError` unless the batch splits evenly over the devices."""
    if num_devices < 1:
        raise InputError("At least 1 device is needed.")
    if batch_size < 1 or batch_size % num_devices:
        below = batch_size - batch_size % num_devices
        nearest = max(below, num_devices)
        raise InputError(
            f"Batch size {batch_size} does not split over {num_devices} devices. "
            f"Give a positive multiple of {num_devices}, such as {nearest}."
        )


def training_order(
    num_examples: int, batch_size: int, num_devices: int, *, seed: int, epoch: int
) -> EpochOrder:
    """A shuffled epoch: every example exactly once, none dropped.

    The last batch is filled up with examples from the start of the same epoch, marked False. They carry no
    loss, no update and no mass in Q; but being real examples they keep the batch statistics those of a
    full batch, equal for one device and many.

    Args:
      num_examples: size of the training set.
      batch_size: examples a step over all devices.
      num_devices: devices, which must divide the batch size.
      seed: training seed.
      epoch: number of the epoch; (seed, epoch) alone decide the order.

    Raises:
      InputError: if the batch size does not split over the devices.
    """
    check_batch_size(batch_size, num_devices)
    order = np.random.default_rng((seed, epoch)).permutation(num_examples)
    return _split(order, batch_size, num_devices)


def class_balanced_order(
    labels: np.ndarray, num_classes: int, batch_size: int, num_devices: int, *, seed: int, epoch: int
) -> EpochOrder:
    """As many examples as there are, from every class equally often: rare ones come several times.

    Args:
      labels: integer `[M]`; classes without examples are passed over.
      num_classes: C.
      batch_size: examples a step over all devices.
      num_devices: devices, which must divide the batch size.
      seed: training seed.
      epoch: number of the epoch; (seed, epoch) alone decide the order.

    Raises:
      InputError: if the batch size does not split over the devices.

    Source: class-aware sampling as in Kang et al., ICLR 2020, arXiv 1910.09217.
    """
    check_batch_size(batch_size, num_devices)
    rng = np.random.default_rng((seed, epoch))
    members = [np.flatnonzero(labels == c) for c in range(num_classes)]
    members = [own for own in members if len(own)]
    each = math.ceil(len(labels) / len(members))
    # Every class in a shuffled cycle, and the classes in turn.
    cycles = [
        np.concatenate([rng.permutation(own) for _ in range(math.ceil(each / len(own)))])[:each]
        for own in members
    ]
    turns = np.stack(cycles, axis=1)
    turns = np.take_along_axis(turns, rng.permuted(np.tile(np.arange(len(members)), (each, 1)), axis=1), 1)
    return _split(turns.reshape(-1)[: len(labels)], batch_size, num_devices)


def _split(order, batch_size, num_devices):
    steps = steps_per_epoch(len(order), batch_size)
    shape = (steps, num_devices, batch_size // num_devices)
    index = np.resize(order, steps * batch_size).astype(np.int32)
    where = np.arange(steps * batch_size) < len(order)
    return EpochOrder(index.reshape(shape), where.reshape(shape))
