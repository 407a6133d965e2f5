"""One process at a time in a directory."""

import contextlib
import fcntl
import os
import pathlib
import socket

from dsink_jax.errors import InputError

LOCK = ".lock"


class DirectoryLock:
    """Holds a directory, which is made if it is not there, until `release`.

    The system takes the lock back when the process ends, however it ends. On a file system without locks
    nothing is held.
    """

    def __init__(self, path: pathlib.Path, advice: str):
        """Takes the lock.

        Args:
          path: the directory.
          advice: what to do if it cannot be had, a sentence.

        Raises:
          InputError: if it is in use, or cannot be written.
        """
        self._path, self._advice = path, advice
        with self._making():
            self.is_new = not path.exists()
        while not self._take():
            pass

    @contextlib.contextmanager
    def _making(self):
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}. {self._advice}") from None

    def _take(self):
        """Whether the file that was locked is the one that others will find: who let go takes it away."""
        with self._making():
            self._path.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  (held while open)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._file as file:
                file.seek(0)
                holder = file.read().strip()
            raise InputError(
                f"{self._path} is in use by {holder}.\nWait for it to end. {self._advice}"
            ) from None
        except OSError:
            return True
        if not self._is_found():
            self.is_new = False  # whatever is there now is not ours
            self._file.close()
            return False
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return True

    def _is_found(self):
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path / LOCK))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Lets others have it. A new directory that nothing was written to is taken away again."""
        with contextlib.suppress(OSError):
            if self.is_new and [path.name for path in self._path.iterdir()] == [LOCK]:
                (self._path / LOCK).unlink()
                self._path.rmdir()
        self._file.close()
