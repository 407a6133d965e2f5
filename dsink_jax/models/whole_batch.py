"""Dropout masks of a batch that is split over devices: each device's rows of the whole batch's mask."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsink_jax.collectives import own_rows
from dsink_jax.errors import InputError

# `(drop, inputs, rate) -> outputs`: what stands in for a dropout layer that drops.
Dropout = Callable[[Callable[[jax.Array], jax.Array], jax.Array, float], jax.Array]


class _DropsError(Exception):
    """The network has a dropout layer that drops."""


def run_as_whole_batch(
    run: Callable[[Any, Dropout | None], Any], inputs: jax.Array, axis_name: str | None
) -> Any:
    """Runs a network in training mode with the dropout masks that one device with the whole batch would draw.

    At its first dropout layer the network is traced with inputs of the shape of the whole batch, which
    computes nothing: the layers' inputs tell which axis is the batch's. Then it is run again, and the same
    layers are called, in the same order, with ones of the whole shape, of which a device takes its own rows.

    Args:
      run: `(inputs, dropout) -> outputs`, a call of the network in which layers that drop are replaced by
        `dropout(drop, inputs, rate)`, where `drop(inputs)` is the layer itself; None replaces nothing.
      inputs: this device's `[n, ...]`.
      axis_name: mapped axis, or None.

    Raises:
      InputError: if a layer's inputs do not grow with the batch alone.
    """
    if axis_name is None or (devices := jax.lax.axis_size(axis_name)) == 1:
        return run(inputs, None)

    def stop(drop, inputs, rate):
        raise _DropsError

    try:
        return run(inputs, stop)
    except _DropsError:
        pass
    shapes: list[tuple[int, ...]] = []

    def note(drop, inputs, rate):
        shapes.append(inputs.shape)
        return drop(inputs)

    def trace(whole):
        run(whole, note)

    jax.eval_shape(trace, jax.ShapeDtypeStruct((devices * len(inputs), *inputs.shape[1:]), inputs.dtype))
    return run(inputs, _own_rows_of(shapes, devices, axis_name))


def _own_rows_of(shapes, devices, axis_name):
    """What gives each layer in turn its rows of the mask of the whole shape."""
    left = iter(shapes)

    def dropout(drop, inputs, rate):
        whole = next(left, ())
        axes = [axis for axis, (n, m) in enumerate(zip(inputs.shape, whole, strict=False)) if n != m]
        if len(whole) != inputs.ndim or any(whole[a] != devices * inputs.shape[a] for a in axes):
            raise InputError(
                "Dropout over several devices: the shape of a layer's inputs must grow with the batch, and "
                f"it is {list(inputs.shape)} on each of {devices} devices, {list(whole)} for all."
            )
        if not axes or rate == 1:
            return drop(inputs)
        mask = drop(jnp.ones(whole, inputs.dtype)) != 0
        for axis in axes:
            rows = own_rows(jnp.moveaxis(mask, axis, 0), inputs.shape[axis], axis_name)
            mask = jnp.moveaxis(rows, 0, axis)
        return jnp.where(mask, inputs / (1.0 - rate), jnp.zeros_like(inputs))

    return dropout


def check_attention(rate: float, deterministic: bool | None, broadcast: bool) -> None:
    """Raises `InputError` for attention that draws a mask for each example on several devices."""
    if rate > 0 and not deterministic and not broadcast:
        raise InputError(
            "Attention with broadcast_dropout=False cannot be trained on several devices: each would "
            "drop the same weights. Leave broadcast_dropout=True, or train on one device."
        )
