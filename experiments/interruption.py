"""Signals that ask a run to stop: the step under way is finished and saved first."""

import os
import shlex
import signal
import sys
from types import TracebackType

import jax


class StopRequest:
    """Whether SIGTERM or SIGINT has come; a context in which these signals end nothing by themselves.

    With several processes, SIGTERM is left to JAX, which agrees on a step that all of them stop after. Ctrl-C
    then becomes a SIGTERM.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before = {}
        self._asked = 0
        self._together = False
        self._agreed = False  # JAX says so once

    def __enter__(self) -> "StopRequest":
        self._together = jax.distributed.is_initialized()
        for number in (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, step: int) -> bool:
        """Whether to stop now; with several processes, all must ask after the same steps."""
        del step  # of one model; processes count what they ask over all models
        if not self._together:
            return self.signal is not None
        from jax.experimental import multihost_utils

        self._asked += 1
        self._agreed = self._agreed or bool(multihost_utils.reached_preemption_sync_point(self._asked))
        if self._agreed and self.signal is None:
            self.signal = signal.SIGTERM
        return self._agreed

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, as schedulers expect of a run that was saved; 130 after Ctrl-C."""
        return 130 if self.signal == signal.SIGINT else 0

    def _note(self, number, frame):
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: now
        self.signal = signal.Signals(number)
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
        print(
            f"\n{self.signal.name}: the step under way is finished and saved."
            + (" Press Ctrl-C again to stop at once." if number == signal.SIGINT else ""),
            file=sys.stderr,
            flush=True,
        )


def same_command() -> str:
    """The command line of this process, to be given again."""
    return shlex.join(["python", *sys.orig_argv[1:]])
