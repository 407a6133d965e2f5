"""The training set as it lies on the devices, and what each call of the step is given of it."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dsink_jax.data import streaming
from dsink_jax.training.arguments import DeviceData


def rounded_up(count: int) -> int:
    """Rows that a training set of `count` examples is filled up to, at most an eighth more.

    >>> [rounded_up(count) for count in (7, 400, 401, 544)]
    [7, 416, 416, 576]
    """
    unit = 2 ** max(count.bit_length() - 4, 0)
    return -(-count // unit) * unit


def placed(data: DeviceData, rows: int, source: Any) -> DeviceData:
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


class Dispatch(NamedTuple):
    """The arguments of one call of the step behind the key, and the number of its steps."""

    arguments: tuple[Any, ...]
    steps: int


def with_inputs(dispatches: Iterable[tuple[tuple[np.ndarray, ...], int]], source: Any) -> Iterator[Dispatch]:
    """The dispatches, with the inputs of each if they are streamed."""
    if source is None:
        return (Dispatch(arguments, steps) for arguments, steps in dispatches)
    dispatches = list(dispatches)
    inputs = streaming.read_batches(source, [arguments[-2] for arguments, _ in dispatches])
    return (
        Dispatch((*arguments, batch), steps)
        for (arguments, steps), batch in zip(dispatches, inputs, strict=True)
    )
