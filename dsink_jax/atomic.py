"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any, Literal


@contextlib.contextmanager
def replacing(file: pathlib.Path, mode: Literal["w", "wb"] = "w", *, sync: bool = False) -> Iterator[IO]:
    """A file to write, of text or of bytes; what was there stays whole until it is.

    It is written beside its place first, and takes it at the end. What is left of one that failed is removed.

    Args:
      file: its place.
      mode: `w` for text in UTF-8, whose line ends stay as they are, `wb` for bytes.
      sync: whether it is on the disk, not only with the system, before it takes its place.

    Raises:
      OSError: if it cannot be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    how: dict[str, Any] = {"newline": "", "encoding": "utf-8"} if mode == "w" else {}
    try:
        with open(partial, mode, **how) as handle:
            yield handle
            if sync:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(partial, file)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
