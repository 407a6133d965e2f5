"""What a person sees while a model trains."""

import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import jax

from dsink_jax.extras import needs

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Told by the loop what happens; must never wait for a device."""

    def start(self, epochs: int, done: int, examples: int) -> None:
        """Training starts with `done` of `epochs` epochs done, `examples` in each."""

    def step_dispatched(self, fraction: float, metrics: dict[str, jax.Array]) -> None:
        """A step was sent to the devices; `fraction` of the epoch is now under way."""

    def epoch_done(self, epoch: int, record: dict[str, Any]) -> None:
        """An epoch ended; `record` has its mean training metrics and, if evaluated, its evaluation."""

    def stop(self) -> None:
        """Training ended."""


class SilentProgress:
    """Shows nothing."""

    def start(self, epochs, done, examples):
        """See `Progress`."""

    def step_dispatched(self, fraction, metrics):
        """See `Progress`."""

    def epoch_done(self, epoch, record):
        """See `Progress`."""

    def stop(self):
        """See `Progress`."""


class LineProgress:
    """For output that is not a terminal: a plain line now and then, so that a log stays short."""

    def __init__(self, name: str, stream: TextIO | None = None, seconds_between: float = 60.0):
        self._name, self._stream, self._seconds_between = name, stream or sys.stdout, seconds_between

    def start(self, epochs, done, examples):
        """See `Progress`."""
        self._epochs, self._examples = epochs, examples
        self._clock = _Clock(done)
        self._last = time.monotonic()

    def step_dispatched(self, fraction, metrics):
        """See `Progress`."""

    def epoch_done(self, epoch, record):
        """See `Progress`."""
        if time.monotonic() - self._last >= self._seconds_between:
            self._last = time.monotonic()
            rate = self._clock.epochs_per_second(epoch) * self._examples
            text = _describe(record["train"]["loss"], record["train"]["accuracy"], rate)
            print(f"  {self._name}: epoch {epoch}/{self._epochs}, {text}", file=self._stream, flush=True)

    def stop(self):
        """See `Progress`."""


class BarProgress:
    """For a terminal: a bar with loss, accuracy, images per second and time left. Needs the extra `cli`."""

    def __init__(self, name: str, console: "Console | None" = None):
        with needs("cli", "A progress bar"):
            from rich import progress

        self._name = name
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<20}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[status]}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def start(self, epochs, done, examples):
        """See `Progress`."""
        self._epochs, self._examples, self._epoch = epochs, examples, done
        self._clock = _Clock(done)
        self._pending = None
        self._bar.start()
        self._task = self._bar.add_task(self._name, total=epochs, completed=done, status="compiling")

    def step_dispatched(self, fraction, metrics):
        """See `Progress`. Shows the newest numbers that are already there."""
        if self._pending is None:
            self._pending = metrics
        elif all(value.is_ready() for value in self._pending.values()):
            shown, self._pending = jax.device_get(self._pending), metrics
            examples = max(shown["examples"].sum(), 1)
            loss, accuracy = ((shown[k] * shown["examples"]).sum() / examples for k in ("loss", "accuracy"))
            self._show(self._epoch + fraction, loss, accuracy)

    def epoch_done(self, epoch, record):
        """See `Progress`."""
        self._epoch, self._pending = epoch, None
        self._show(epoch, record["train"]["loss"], record["train"]["accuracy"])

    def _show(self, done, loss, accuracy):
        rate = self._clock.epochs_per_second(done) * self._examples
        status = f"epoch {done:.1f}/{self._epochs}, {_describe(loss, accuracy, rate)}"
        self._bar.update(self._task, completed=done, status=status)

    def stop(self):
        """See `Progress`."""
        self._bar.stop()


def make_progress(name: str) -> Progress:
    """A bar on a terminal, rare plain lines elsewhere and where there is no rich to draw it."""
    can_draw = sys.stdout.isatty() and importlib.util.find_spec("rich") is not None
    return BarProgress(name) if can_draw else LineProgress(name)


class _Clock:
    def __init__(self, done):
        self._done, self._start = done, time.monotonic()

    def epochs_per_second(self, done):
        return (done - self._done) / max(time.monotonic() - self._start, 1e-9)


def _describe(loss, accuracy, rate):
    return f"loss {loss:.3f}, train accuracy {100 * accuracy:.1f} %, {rate:,.0f} images/s"
