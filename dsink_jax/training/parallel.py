"""Several devices: the only module that maps functions over devices and places data on them.

The devices may be those of several processes. The idiom is `pmap` with state passed and returned un-stacked
(`in_axes=None`, `out_axes=None`): every value that leaves that way has been summed or averaged over the axis,
or is computed alike on all devices.

On one device of one process `jit` and `shard_map` do the same, because `pmap` keeps what it compiled for
every function as long as the process lives: a search for settings, of some hundred fits, would run out of
memory maps.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
_SPLIT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()

# On CPU, JAX before 0.12 aborts the process when more than about 32 collective steps wait unread.
CPU_UNREAD_STEPS = 16


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copies a pytree of arrays to every device, once; later steps pass it without a transfer."""
    sharding = NamedSharding(_mesh(devices), PartitionSpec())
    return jax.device_put(tree, sharding)


def total_devices(devices: Sequence[jax.Device]) -> int:
    """Number of devices of all processes, each of which uses as many."""
    return len(devices) * jax.process_count()


def own_devices(devices: Sequence[jax.Device]) -> slice:
    """Which of all devices are this process's."""
    first = jax.process_index() * len(devices)
    return slice(first, first + len(devices))


def parallel_train_step(
    train_step: Callable, devices: Sequence[jax.Device], *, split: Sequence[int | None] = (0, 0)
) -> Callable:
    """Maps a training step, or one of `repeat_step`, over the devices.

    Args:
      train_step: `(state, data, numbers, auxiliary_variables, key, *order) -> (state, metrics)`, written for
        the axis `AXIS`.
      devices: the devices of this process to use; with several processes, all that it has.
      split: for each argument of `order` 0 if it has a leading axis of devices, None if all get the same.

    Returns:
      The same function with a leading axis of this process's devices where `split` says so. The state is
      donated.
    """
    if total_devices(devices) == 1:
        return sharded_train_step(train_step, devices, split=split)
    return jax.pmap(
        train_step,
        axis_name=AXIS,
        in_axes=(None,) * 5 + tuple(split),
        out_axes=None,
        # Named devices are this process's alone.
        devices=devices if jax.process_count() == 1 else None,
        donate_argnums=0,
    )


def sharded_train_step(
    train_step: Callable, devices: Sequence[jax.Device], *, split: Sequence[int | None] = (0, 0)
) -> Callable:
    """The same mapping by `jit` and `shard_map`: takes the same arguments and gives the same numbers."""

    def one_device(state, data, numbers, auxiliary_variables, key, *order):
        own = (rows if axis is None else rows[0] for rows, axis in zip(order, split, strict=True))
        return train_step(state, data, numbers, auxiliary_variables, key, *own)

    specs = (_WHOLE,) * 5 + tuple(_WHOLE if axis is None else _SPLIT for axis in split)
    return jax.jit(_shard_map(one_device, devices, specs, _WHOLE), donate_argnums=0)


def parallel_predict_step(predict_step: Callable, devices: Sequence[jax.Device]) -> Callable:
    """Maps `(variables, numbers, standardization, inputs [n, ...]) -> logits [n, C]` over the devices.

    Inputs and logits get a leading device axis. Each process predicts for itself.
    """
    if total_devices(devices) > 1:
        return jax.pmap(predict_step, axis_name=AXIS, in_axes=(None, None, None, 0), devices=devices)

    def one_device(variables, numbers, standardization, inputs):
        return predict_step(variables, numbers, standardization, inputs[0])[None]

    return jax.jit(_shard_map(one_device, devices, (_WHOLE, _WHOLE, _WHOLE, _SPLIT), _SPLIT))


def _shard_map(function, devices, in_specs, out_specs):
    return jax.shard_map(
        function,
        mesh=_mesh(devices),
        in_specs=in_specs,
        out_specs=out_specs,
        check_vma=False,  # OTT's loops carry constants that the check takes for unreplicated
    )


def memory_for_data(devices: Sequence[jax.Device]) -> float:
    """Bytes of a training set that fit on every device beside everything else: half of its memory.

    Virtual CPU devices share the machine's.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] / 2
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine / 2 / (1 + len(devices))


def must_read(step: int, devices: Sequence[jax.Device]) -> bool:
    """Whether the loop has to wait for a result after this step; see `CPU_UNREAD_STEPS`."""
    return devices[0].platform == "cpu" and total_devices(devices) > 1 and step % CPU_UNREAD_STEPS == 0


def _mesh(devices):
    return Mesh(np.asarray(devices), (AXIS,))
