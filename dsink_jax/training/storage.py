"""What a disk refuses, said before and after it is asked to write."""

import contextlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator

from dsink_jax.errors import InputError, StorageError

_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")


@contextlib.contextmanager
def refusals_said(directory: pathlib.Path, what_is_left: str = "") -> Iterator[None]:
    """Turns what the disk refuses into a `StorageError`. Orbax's own reports of it are not shown."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = _reason(error)
        remedy = "Free some space" if reason in _NO_ROOM else "Make it writable"
        raise StorageError(
            f"A checkpoint cannot be written to {directory}: {reason}. {what_is_left}\n"
            f"{remedy} and train again with the same directory: it goes on from there."
        ) from error
    finally:
        logger.setLevel(level)


def check_room(directory: pathlib.Path, size: int) -> None:
    """Raises `OSError` if there is no room for `size` bytes, before Orbax finds out.

    A write of Orbax that fails leaves the writes of other arrays without an event loop to report to, and each
    of them says so in a traceback of its own.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _reason(error):
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    known = (*_NO_ROOM, "Read-only file system")
    return next((words for words in known if words in text), text.splitlines()[0][:200])
