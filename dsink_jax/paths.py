"""Which paths can be used: those of this machine's file system."""

import os
import re

from dsink_jax.errors import InputError


def check_local_path(path: str | os.PathLike[str], what: str) -> None:
    """Raises `InputError` for an address, such as of a bucket, which would become a folder of that name here.

    Args:
      path: the path, also one that `pathlib` has left only one slash of.
      what: which path it is, the beginning of the message.

    >>> check_local_path("runs/first", "--run-dir")
    >>> check_local_path("gs://bucket/runs", "--run-dir")
    Traceback (most recent call last):
        ...
    dsink_jax.errors.InputError: --run-dir gs://bucket/runs: only places on this machine can be used. \
Give a local folder and copy it from or to there yourself.
    """
    text = os.fspath(path)
    if not text.startswith("file:"):  # of two slashes pathlib leaves one
        text = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+:)/(?!/)", r"\1//", text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise InputError(
            f"{what} {text}: only places on this machine can be used. "
            "Give a local folder and copy it from or to there yourself."
        )
