"""The directory of a fit: its checkpoints, and what it is a fit of."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data.checksums import checksum, spread_rows
from dsink_jax.data.streaming import is_streamed, read_rows
from dsink_jax.errors import InputError, StorageError
from dsink_jax.paths import check_local_path
from dsink_jax.training.lock import DirectoryLock
from dsink_jax.training.processes import from_first

_NAME = "fit.json"
_BLOCK = 1024  # examples at once


def checkpoint_folder(path: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """The folder for the checkpoints of a fit in its directory; None for no directory.

    Raises:
      InputError: for an address, such as of a bucket.
    """
    if path is None:
        return None
    check_local_path(path, "directory")
    return pathlib.Path(path) / "checkpoints"


@contextlib.contextmanager
def fit_directory(
    path: str | os.PathLike[str] | None, describe: Callable[[], dict[str, Any]]
) -> Iterator[None]:
    """Holds the directory of a fit as long as the context is open; nothing for None.

    Args:
      path: the directory, made if it is not there.
      describe: gives what is fitted, as JSON holds it, see `describe_data`; not called for no directory.

    Raises:
      InputError: if another process uses it, it holds another fit, or it cannot be written.
      StorageError: if there is no room.
    """
    if path is None:
        yield
        return
    directory = pathlib.Path(path)
    held: list[DirectoryLock] = []  # by the first process

    def take():
        held.append(DirectoryLock(directory, "Give another directory."))
        _check_same(directory, description)

    description = describe()
    try:
        from_first(take)
        yield
    finally:
        for lock in held:
            lock.release()


def _check_same(directory, description):
    file = directory / _NAME
    description = json.loads(json.dumps(description))
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        _write(file, description)
        return
    except (OSError, ValueError):
        raise InputError(f"{file} is damaged. Give another directory, or remove this one.") from None
    names = {**stored, **description} if isinstance(stored, dict) else description
    different = [name for name in names if stored.get(name) != description.get(name)]
    if different:
        raise InputError(
            f"{directory} holds a fit that differs in {', '.join(different[:5])}.\n"
            "Give another directory, or remove that one."
        )


def _write(file, description):
    try:
        with replacing(file) as handle:
            handle.write(json.dumps(description, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}.") from error


def describe_data(inputs: Any, labels: np.ndarray) -> dict[str, str]:
    """Checksums of inputs and labels; of what is streamed, those of some examples, evenly spaced."""
    looked_at = read_rows(inputs, spread_rows(len(inputs))) if is_streamed(inputs) else inputs
    shape = "x".join(map(str, inputs.shape))
    blocks = (looked_at[start : start + _BLOCK] for start in range(0, len(looked_at), _BLOCK))
    return {"inputs": f"{inputs.dtype} {shape} {checksum(blocks)}", "labels": checksum([labels])}
