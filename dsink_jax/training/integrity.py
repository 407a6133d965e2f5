"""Checksums of the files of a checkpoint: what was written is what is read."""

import hashlib
import json
import os
import pathlib

_NAME = "checksums.json"


def seal(folder: pathlib.Path) -> None:
    """Writes the checksum of every file into the folder, on disk before this returns.

    A folder without them was not finished.
    """
    sums = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
    partial = folder / f"{_NAME}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(sums, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / _NAME)


def unseal(folder: pathlib.Path) -> None:
    """Takes the checksums away: what is left counts as not finished, as it is to be removed."""
    (folder / _NAME).unlink(missing_ok=True)


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


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(_NAME))


def _checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
