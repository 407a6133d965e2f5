"""A queue of what the models predicted for past batches, the same on every device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.collectives import gather


class Rows(NamedTuple):
    """Predictions for some examples.

    Attributes:
      logits: float32 `[N, C]`, of the target f.
      noise_robust_logits: float32 `[N, C]`, of f_N.
      imbalance_robust_logits: float32 `[N, C]`, of f_L.
      where: bool `[N]`, False for a row that holds nothing.
    """

    logits: jax.Array
    noise_robust_logits: jax.Array
    imbalance_robust_logits: jax.Array
    where: jax.Array


def empty_queue(length: int, num_classes: int) -> Rows:
    """A queue for `length` examples that holds none."""
    logits = jnp.zeros((length, num_classes), jnp.float32)
    # Copies: the state of a training is donated, so no two leaves may share a buffer.
    return Rows(logits, logits.copy(), logits.copy(), jnp.zeros(length, bool))


def pushed(queue: Rows, rows: Rows, axis_name: str | None) -> Rows:
    """The queue with a batch at its end, and as many at its start gone.

    Args:
      queue: K rows, equal on all devices.
      rows: this device's share of the batch; what is padding stays without meaning in the queue too.
      axis_name: mapped axis over which the batch is split, or None.
    """
    length = len(queue.where)
    rows = gather(rows, axis_name)
    return jax.tree.map(lambda old, new: jnp.concatenate([old, new.astype(old.dtype)])[-length:], queue, rows)


def own_share(queue: Rows, axis_name: str | None) -> Rows:
    """The rows of the queue that this device brings to a problem over all n devices: every n-th."""
    if axis_name is None:
        return queue
    devices, device = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)
    index = device + devices * jnp.arange(-(-len(queue.where) // devices))
    inside = index < len(queue.where)
    share = jax.tree.map(lambda leaf: leaf[jnp.where(inside, index, 0)], queue)
    return share._replace(where=share.where & inside)


def joined(rows: Rows, more: Rows) -> Rows:
    """Both, one behind the other."""
    return jax.tree.map(lambda one, two: jnp.concatenate([one.astype(two.dtype), two]), rows, more)
