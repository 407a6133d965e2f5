"""Dropout over devices: each takes its rows of the masks that one device would draw for the whole batch."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsink_jax.collectives import own_rows
from dsink_jax.errors import InputError

# `(layer, inputs, rate) -> outputs`: how a network calls a dropout layer.
Dropout = Callable[[Callable[[jax.Array], jax.Array], jax.Array, float], jax.Array]


def with_whole_masks(run: Callable[[Any, Dropout], Any], inputs: jax.Array, axis_name: str | None) -> Any:
    """Runs a network whose dropout layers draw the masks of the whole batch.

    It is traced with inputs of the whole batch's shape, which computes nothing, to see what dropout layers
    get there. Then it is run on this device's inputs, and each layer, in the same order, drops ones of that
    shape, of which this device's rows are its mask.

    Args:
      run: `(inputs, dropout) -> outputs`, which calls every dropout layer by `dropout(layer, inputs, rate)`;
        `InputError` if the inputs of one do not grow with the batch along one axis.
      inputs: this device's `[n, ...]`.
      axis_name: mapped axis, or None.
    """
    if axis_name is None or (devices := jax.lax.axis_size(axis_name)) == 1:
        return run(inputs, lambda layer, x, rate: layer(x))
    shapes: list[tuple[int, ...]] = []

    def note(layer, x, rate):
        shapes.append(x.shape)
        return layer(x)

    whole = jax.ShapeDtypeStruct((devices * len(inputs), *inputs.shape[1:]), inputs.dtype)
    jax.eval_shape(lambda inputs: run(inputs, note), whole)
    left = iter(shapes)

    def drop(layer, x, rate):
        shape = next(left, ())
        if shape == x.shape or rate == 1:
            return layer(x)
        axes = [axis for axis, (own, of_all) in enumerate(zip(x.shape, shape, strict=False)) if own != of_all]
        if len(axes) != 1 or math.prod(shape) != devices * x.size:
            found = f"{list(x.shape)} on each of {devices} devices, and {list(shape)} for all"
            raise InputError(
                f"A dropout layer's inputs must grow with the batch along one axis, got {found}."
            )
        axis, ones = axes[0], jnp.ones(shape, x.dtype)
        if (dropped := layer(ones)) is ones:  # the layer is switched off
            return x
        mask = own_rows(jnp.moveaxis(dropped != 0, axis, 0), x.shape[axis], axis_name)
        return jnp.where(jnp.moveaxis(mask, 0, axis), x / (1.0 - rate), jnp.zeros_like(x))

    return run(inputs, drop)


def check_attention(layer: Any) -> None:
    """Raises `InputError` for attention, of Linen or NNX, that draws a mask for each example."""
    if layer.dropout_rate > 0 and not layer.broadcast_dropout:
        raise InputError("Attention over several devices must have broadcast_dropout=True: one mask for all.")
