"""Exchange between the devices of a mapped axis; without one (None) there is nothing to exchange."""

from typing import Any

import jax


def all_gather(tree: Any, axis_name: str | None) -> Any:
    """The rows of all devices, `[N, ...]`, from each device's `[n, ...]`."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def own_rows(tree: Any, count: int, axis_name: str | None) -> Any:
    """This device's `count` rows of gathered ones."""
    if axis_name is None:
        return tree
    start = jax.lax.axis_index(axis_name) * count
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, count), tree)


def psum(tree: Any, axis_name: str | None) -> Any:
    """Sum over the devices."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
