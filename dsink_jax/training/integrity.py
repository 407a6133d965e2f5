"""Checkpoints that are whole, and those that are not: checksums of their files say so."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable

from dsink_jax.atomic import replacing
from dsink_jax.errors import InputError

_NAME = "checksums.json"


def seal(folder: pathlib.Path) -> None:
    """Writes the checksum of every file into the folder, on disk before this returns.

    A folder without them was not finished.
    """
    sums = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
    with replacing(folder / _NAME, sync=True) as file:
        json.dump(sums, file)


def remove(folder: pathlib.Path) -> None:
    """Removes the folder: first its checksums, so that what may be left of it counts as not finished."""
    (folder / _NAME).unlink(missing_ok=True)
    shutil.rmtree(folder)


def is_sealed(folder: pathlib.Path) -> bool:
    """Whether the folder was finished."""
    return (folder / _NAME).exists()


def damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a finished folder, in words, or None if every file is as it was written."""
    try:
        sums = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        found = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
    except (OSError, ValueError) as error:
        return f"{_NAME} cannot be read ({error})"
    for name, checksum in sums.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != checksum:
            return f"{name} is not as it was written"
    return None


def sealed(directory: pathlib.Path) -> list[pathlib.Path]:
    """The finished checkpoints in a directory, the newest last; none if there is no directory."""
    return [folder for folder in _checkpoints(directory) if is_sealed(folder)]


def set_aside(directory: pathlib.Path, tell: Callable[[str], None]) -> None:
    """Removes checkpoints that were not finished, renames what is damaged: what is left is whole.

    Args:
      directory: its folders that are called by a number, of a step, are checkpoints.
      tell: called with a sentence for each checkpoint that is passed over.

    Raises:
      InputError: if all that were finished are damaged.
    """
    damaged, whole = {}, []
    folders = _checkpoints(directory)
    for folder in folders:
        if not is_sealed(folder):
            if folder == folders[-1]:  # others were being removed
                tell(f"{folder} was not finished and is not used.")
            shutil.rmtree(folder)
        elif (reason := damage(folder)) is not None:
            damaged[folder] = reason
        else:
            whole.append(folder)
    if damaged and not whole:
        folder, reason = list(damaged.items())[-1]
        raise InputError(
            f"The checkpoint in {folder} is damaged: {reason}.\n"
            f"No other is left: remove {directory} to train the model anew."
        )
    for folder, reason in damaged.items():
        aside = directory / f"damaged-{folder.name}"
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        tell(f"The checkpoint in {aside} is damaged ({reason}) and is not used: {whole[-1]} is.")


def _checkpoints(directory):
    folders = (path for path in directory.glob("*") if path.name.isdigit())
    return sorted(folders, key=lambda folder: int(folder.name))


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(_NAME))


def _checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
