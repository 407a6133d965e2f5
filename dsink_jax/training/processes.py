"""Several processes that train one model: how they find each other, who writes, what all of them know.

Each process sees the whole training set and the same settings; it computes its devices' share of every batch.
The first process writes files, and tells the others what it has read.
"""

import pickle
import re
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from dsink_jax.errors import InputError

T = TypeVar("T")

# Seconds until a process that has died without closing its connections is missed.
_HEARTBEAT = 30
_PIECE = 2**28  # bytes told at once


def join(coordinator: str | None, process_count: int | None, process_index: int | None) -> None:
    """Joins the other processes of this training. To be called before JAX is used; once.

    Args:
      coordinator: `host:port` of the first process; None to ask the launcher (SLURM, Open MPI, Cloud TPU,
        GKE) as `jax.distributed.initialize` does.
      process_count: number of processes, or None to ask the launcher.
      process_index: which of them this is, or None to ask the launcher.

    Raises:
      InputError: if the processes do not find each other, or only part of the three is given.
    """
    given = [value is not None for value in (coordinator, process_count, process_index)]
    if any(given) and not all(given):
        raise InputError("coordinator=, process_count= and process_index= go together: give all three.")
    if process_index is not None and process_count is not None and not 0 <= process_index < process_count:
        raise InputError(f"process_index= must be in [0, {process_count}), got {process_index}.")
    if coordinator is not None and not _is_address(coordinator):
        raise InputError(f"coordinator= must be host:port, such as 10.0.0.1:1234, got {coordinator!r}.")
    try:
        jax.distributed.initialize(
            coordinator, process_count, process_index, heartbeat_timeout_seconds=_HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"The processes did not find each other: {str(error).splitlines()[0]}\n"
            "Give coordinator= (host:port), process_count= and process_index=, or start them by a launcher."
        ) from None


def _is_address(text):
    """Whether the text is a host and a port: with some that are none JAX ends the process, or waits long."""
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) < 2**16
    return is_port and re.fullmatch(r"[^\s/]+", host) is not None


def is_first() -> bool:
    """Whether this process is the one that writes; true where there is only one."""
    return jax.process_index() == 0


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on the first process, on all of them; it is called there alone.

    An exception is raised on all of them too. To be called by all processes in the same order.
    """
    if jax.process_count() == 1:
        return make()
    answer: tuple[T | None, Exception | None] = (None, None)
    if is_first():
        try:
            answer = (make(), None)
        except Exception as error:
            error.__traceback__ = None
            answer = (None, error)
    value, raised = pickle.loads(_broadcast(pickle.dumps(answer)))
    if raised is not None:
        raise raised
    return value


def _broadcast(content: bytes) -> bytes:
    """The first process's bytes, in pieces: their number may be more than an int32 holds."""
    from jax.experimental import multihost_utils

    pieces, last = map(
        int, multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), _PIECE), np.int32))
    )
    told = []
    for number, size in enumerate([_PIECE] * pieces + [last]):
        buffer = np.zeros(size, np.uint8)
        if is_first():
            buffer[:] = np.frombuffer(content, np.uint8, size, number * _PIECE)
        told.append(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())
    return b"".join(told)
