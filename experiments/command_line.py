"""From command-line flags to a run, and from errors to one or two lines for people."""

import contextlib
import dataclasses
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence

import jax

from dsink_jax.errors import InputError, StorageError
from dsink_jax.flags import command, in_flags, print_anywhere, read_flags, tell
from dsink_jax.training import TrainingDivergedError, TrainingStoppedError, processes
from experiments.config import Config
from experiments.config_file import with_file
from experiments.help_page import help_page
from experiments.interruption import StopRequest, same_command
from experiments.method_list import method_list
from experiments.run import run

# Parameters that messages of the library speak of, and that there are flags for.
_NAMED = ("dataset", "data_dir", "coordinator", "process_count", "process_index")


def parse(default: Config, arguments: Sequence[str] | None = None) -> Config:
    """Reads flags over a preset; see `read_flags`. `--help` prints them in groups, `--help-all` all texts.

    `--config FILE` takes the flags of a file first; see `config_file`.
    """
    known = [field.name for field in dataclasses.fields(default)]
    given = with_file(sys.argv[1:] if arguments is None else arguments, known)
    if {"-h", "--help"} & {*given}:
        print(help_page(default, given, command() or "python -m experiments.cifar"))
        raise SystemExit(0)
    given = ["--help" if one == "--help-all" else one for one in given]
    return read_flags(Config, given, default=default)


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
    print_anywhere()
    try:
        yield
    except InputError as error:
        _end(2, f"error: {as_told(error)}")
    except (TrainingDivergedError, StorageError) as error:
        _end(1, f"error: {error}")
    except BrokenPipeError:  # nobody reads what is printed any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of whom SIGPIPE has ended
    except KeyboardInterrupt:
        _end(130, "\nStopped. The same command goes on from the last checkpoint.")
    except Exception as error:
        if not _are_several():
            raise
        lost = is_loss(error)
        if not lost:
            traceback.print_exc()
        what = "lost another process of this run" if lost else "of this run failed"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        _end(
            1,
            f"error: process {jax.process_index()} {what} ({reason}).\n"
            "Start all of them again with the same commands: they go on from the last checkpoint.",
        )


def as_told(error: InputError) -> str:
    """The message of an error in the words of the command lines: of the library's parameters, the flags."""
    return in_flags(str(error), _NAMED)


def is_loss(error: Exception) -> bool:
    """Whether an error is how JAX tells that another process is gone: of its own type, or a `ValueError`."""
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        return not text.startswith("RESOURCE_EXHAUSTED")
    return isinstance(error, ValueError) and text.startswith(("UNKNOWN: ", "UNAVAILABLE: ", "ABORTED: "))


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
                all_end=True,
            )


def _end(code, message, all_end=False):
    tell(message)
    if _are_several() and not all_end:
        sys.stdout.flush()
        os._exit(code)  # an orderly exit would wait for processes that may be gone, or know nothing of it
    sys.exit(code)


def _are_several():
    """Whether this is one of several processes; starts no backend to find out that it is not."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _quieten():
    """Leaves out what libraries print about themselves."""
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)
