"""The folder of a command's tables: made before hours of work, written after them."""

import contextlib
import pathlib
from collections.abc import Iterator

from dsink_jax.errors import InputError, StorageError
from dsink_jax.paths import check_local_path


def make_output(folder: pathlib.Path) -> None:
    """Makes the folder of a study's tables.

    Raises:
      InputError: if it cannot be made, or is no place of this machine.
    """
    check_local_path(folder, "--output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder} cannot be made: {reason}. Give another --output.") from None


@contextlib.contextmanager
def writing_output(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the disk refuses into one line, after the hours of training that are saved already."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder} cannot be written: {error.strerror}.\n"
            "The runs are saved: the same command, or another --output, writes the tables."
        ) from error
