"""From command-line flags to a run, and from errors to one or two lines for people."""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

import tyro

from dsink_jax.errors import InputError
from dsink_jax.training.loop import TrainingDivergedError
from experiments.config import Config
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
        run(config)


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Turns errors that a person can do something about into a line or two and an exit code."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingDivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


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
