"""Command lines for people: flags into a dataclass, and errors as one or two lines."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from dsink_jax.errors import InputError

T = TypeVar("T")

# Headings of tyro's messages, which say nothing.
_HEADINGS = (
    *("Value error", "Parsing error", "Invalid choice", "Missing argument"),
    *("Required options", "Unrecognized options"),
)
_LONGEST_LINE = 600  # characters of an error; the list of methods has 400


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
    how.setdefault("prog", _command())
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(settings, args=arguments, **how)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        if isinstance(exit_.__context__, InputError):  # found by the dataclass itself
            raise exit_.__context__ from None
        raise InputError(_plain(errors.getvalue())) from None


def _command():
    """How this command is started, such as `python -m experiments.cifar`; None if not by `-m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def tell(message: str) -> None:
    """Prints lines to the standard error, none of them endless."""
    print("\n".join(map(_shorten, message.splitlines())), file=sys.stderr, flush=True)


def end(code: int, message: str) -> NoReturn:
    """Ends the process with a message."""
    tell(message)
    sys.exit(code)


def _shorten(line):
    """A line without the middle of what is endless in it."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def _plain(text):
    """One line of tyro's framed message."""
    lines = [line.strip(" │") for line in text.splitlines()]
    # Without frames and rules, which are of ASCII where the terminal is.
    message = " ".join(line for line in lines if not re.fullmatch(r"[╭╰].*|[─-]*", line))
    message = re.sub(rf"^({'|'.join(_HEADINGS)}) ", "", message)
    message = re.sub(r"\s*(Argument helptext:|For full helptext,).*$", "", message)
    message = re.sub(r"\s*Perhaps you meant:?\s*(--[\w-]+).*$", r". Did you mean \1?", message)
    end = "" if message.endswith((".", "?", "!")) else "."
    return f"{message[:1].upper()}{message[1:]}{end} See --help."
