"""Dropout masks of a batch that is split over devices: each device's rows of the whole batch's mask."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsink_jax.collectives import own_rows
from dsink_jax.errors import InputError

# `(drop, inputs, rate) -> outputs`: what stands in for a dropout layer that drops.
Dropout = Callable[[Callable[[jax.Array], jax.Array], jax.Array, float], jax.Array]


def whole_batch_dropout(
    run: Callable[[Any, Dropout], Any], inputs: jax.Array, axis_name: str | None
) -> Dropout | None:
    """What makes dropout layers draw the masks that one device with the whole batch would draw.

    The network is traced once with inputs of the shape of the whole batch, and computes nothing: its dropout
    layers' inputs tell which axis is the batch's. In the real run the same layer is called, in the same
    order, with ones of the whole shape, from which a device takes its own rows.

    Args:
      run: `(inputs, dropout) -> anything`, a call of the network in training mode whose dropout layers that
        drop are replaced by `dropout(drop, inputs, rate)`, where `drop(inputs)` is the layer itself.
      inputs: this device's `[n, ...]`.
      axis_name: mapped axis, or None.

    Returns:
      The `dropout` for the real run; None if there is one device or none of the layers drops.
    """
    if axis_name is None or (devices := jax.lax.axis_size(axis_name)) == 1:
        return None
    shapes: list[tuple[int, ...]] = []

    def note(drop, inputs, rate):
        shapes.append(inputs.shape)
        return drop(inputs)

    def trace(whole):
        run(whole, note)

    jax.eval_shape(trace, jax.ShapeDtypeStruct((devices * len(inputs), *inputs.shape[1:]), inputs.dtype))
    if not shapes:
        return None
    left = iter(shapes)

    def dropout(drop, inputs, rate):
        whole = next(left, ())
        axes = [axis for axis, (n, m) in enumerate(zip(inputs.shape, whole, strict=False)) if n != m]
        if len(whole) != inputs.ndim or any(whole[a] != devices * inputs.shape[a] for a in axes):
            raise InputError(
                "Dropout over several devices: the shape of a layer's inputs must grow with the batch, "
                f"and they are {list(inputs.shape)} on each of {devices} devices, {list(whole)} for all."
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
