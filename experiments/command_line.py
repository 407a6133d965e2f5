"""From command-line flags to a run, and from errors to one or two lines for people."""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import tyro

from dsink_jax.errors import InputError, StorageError
from dsink_jax.training import TrainingDivergedError, TrainingStoppedError, processes
from experiments.config import Config
from experiments.interruption import StopRequest, same_command
from experiments.method_list import method_list
from experiments.pipeline import run

T = TypeVar("T")

# Headings of tyro's messages, which say nothing.
_HEADINGS = (
    *("Value error", "Parsing error", "Invalid choice", "Missing argument"),
    *("Required options", "Unrecognized options"),
)
_LONGEST_LINE = 600  # characters of an error; the list of methods has 400


def parse(default: Config, arguments: Sequence[str] | None = None) -> Config:
    """Reads flags over a preset; see `read_flags`."""
    return read_flags(Config, arguments, default=default)


def read_flags(settings: type[T], arguments: Sequence[str] | None = None, **how: Any) -> T:
    """Reads flags into a dataclass.

    Args:
      settings: the dataclass.
      arguments: the flags; those of this process if left out.
      how: what else `tyro.cli` is to know.

    Raises:
      InputError: for an unknown flag or a value that does not fit, in two lines at most.
      SystemExit: with code 0 after `--help`.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(settings, args=arguments, **how)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        if isinstance(exit_.__context__, InputError):  # found by the dataclass itself
            raise exit_.__context__ from None
        raise InputError(_plain(errors.getvalue())) from None


def main(default: Config) -> None:
    """Runs one experiment from the command line of this process."""
    with errors_for_people():
        if "--list-methods" in sys.argv[1:]:
            print(method_list())
            return
        config = parse(default)
        _quieten()
        if config.coordinator is not None:
            processes.join(*config.processes)
            if not processes.is_first():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the first process tells what there is to tell)
        with stopping_when_asked() as should_stop:
            run(config, should_stop=should_stop)


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Turns errors that a person can do something about into a line or two and an exit code."""
    try:
        yield
    except InputError as error:
        _end(2, f"error: {error}")
    except (TrainingDivergedError, StorageError) as error:
        _end(1, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "\nStopped. The same command goes on from the last checkpoint.")
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0][:160]
        _end(
            1,
            f"error: process {jax.process_index()} lost another process of this run ({reason}).\n"
            "Start all of them again with the same commands: they go on from the last checkpoint.",
        )


@contextlib.contextmanager
def stopping_when_asked() -> Iterator[StopRequest]:
    """Gives what tells of SIGTERM and Ctrl-C, and ends the command when a training stopped for them."""
    with StopRequest() as request:
        try:
            yield request
        except TrainingStoppedError as error:
            _end(
                request.exit_code,
                f"Stopped: {error}; saved. The same command goes on from there:\n  {same_command()}",
            )


def _end(code, message):
    print("\n".join(map(_shorten, message.splitlines())), file=sys.stderr, flush=True)
    if jax.process_count() > 1 and code not in (0, 130):
        sys.stdout.flush()
        os._exit(code)  # an orderly exit would wait for processes that may be gone
    sys.exit(code)


def _shorten(line):
    """A line without the middle of what is endless in it."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def _quieten():
    """Leaves out what libraries print about themselves."""
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)


def _plain(text):
    """One line of tyro's framed message."""
    lines = [line.strip(" │") for line in text.splitlines()]
    # Without frames and rules, which are of ASCII where the terminal is.
    message = " ".join(line for line in lines if not re.fullmatch(r"[╭╰].*|[─-]*", line))
    message = re.sub(rf"^({'|'.join(_HEADINGS)}) ", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext,).*$", "", message)
    return message[:1].upper() + message[1:] + " See --help."
