"""Command lines for people: flags into a dataclass, and errors as one or two lines."""

import contextlib
import dataclasses
import io
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from dsink_jax.errors import InputError
from dsink_jax.extras import needs
from dsink_jax.paths import check_local_path

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
      InputError: for an unknown flag or a value that does not fit, in two lines at most; in one if the extra
        is missing that reads flags.
      SystemExit: with code 0 after `--help`.
    """
    with needs("cli", "A command line"):
        import tyro

    errors = io.StringIO()
    how.setdefault("prog", command())
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(settings, args=arguments, **how)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        if isinstance(exit_.__context__, InputError):  # found by the dataclass itself
            raise exit_.__context__ from None
        raise InputError(_plain(errors.getvalue())) from None


def command() -> str | None:
    """How this command is started, such as `python -m experiments.cifar`; None if not by `-m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def check_local_flags(settings: Any) -> None:
    """Raises `InputError` for a path in a dataclass of flags that is no place of this machine."""
    for field in dataclasses.fields(settings):
        if isinstance(value := getattr(settings, field.name), pathlib.Path):
            check_local_path(value, flag(field.name))


def flag(name: str) -> str:
    """The flag that sets a field.

    >>> flag("data_dir")
    '--data-dir'
    """
    return f"--{name.replace('_', '-')}"


def in_flags(message: str, names: Iterable[str]) -> str:
    """A message of the library, which speaks of parameters as `name=`, in the words of a command line.

    Args:
      message: the message.
      names: parameters that there are flags for.

    >>> in_flags("Give data_dir='x', or leave out folds=.", ["data_dir", "folds"])
    "Give --data-dir 'x', or leave out --folds."
    """

    def as_flag(found):
        value_follows = re.match(r"[\w'\"./~-]*\w", message[found.end() :])
        return flag(found[1]) + " " * bool(value_follows)

    return re.sub(rf"\b({'|'.join(names)})=", as_flag, message)


def tell(message: str) -> None:
    """Prints lines to the standard error, none of them endless."""
    print("\n".join(map(_shorten, message.splitlines())), file=sys.stderr, flush=True)


def print_anywhere() -> None:
    """Lets names be printed that the terminal has no letters for: by their numbers, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
