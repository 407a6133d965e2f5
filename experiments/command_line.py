"""From command-line flags to a run, and from errors to one or two lines for people."""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

import jax
import tyro

from dsink_jax.errors import InputError, StorageError
from dsink_jax.training import TrainingDivergedError, TrainingStoppedError, processes
from experiments.config import Config
from experiments.interruption import StopRequest, same_command
from experiments.method_list import method_list
from experiments.pipeline import run


def parse(default: Config, arguments: Sequence[str] | None = None) -> Config:
    """Reads flags over a preset.

    Raises:
      InputError: for an unknown flag or a value that does not fit, in one line.
      SystemExit: with code 0 after `--help`.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Config, default=default, args=arguments)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
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
    print(message, file=sys.stderr, flush=True)
    if jax.process_count() > 1 and code not in (0, 130):
        sys.stdout.flush()
        os._exit(code)  # an orderly exit would wait for processes that may be gone
    sys.exit(code)


def _quieten():
    """Leaves out what libraries print about themselves."""
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)


def _plain(text):
    """One line of tyro's framed message."""
    lines = [re.sub(r"[│╭╮╰╯─]+", " ", line).strip() for line in text.splitlines()]
    message = " ".join(line for line in lines if line)
    # A reason found by `Config` needs neither tyro's heading nor its hints.
    if " Config: " in message:
        return re.sub(r"\s*For full helptext,.*$", "", message.split(" Config: ", 1)[1])
    message = re.sub(r"^(Value error|Parsing error|Invalid choice|Missing argument)\s*", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext,).*$", "", message)
    return message[:1].upper() + message[1:] + " See --help."
