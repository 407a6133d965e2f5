"""Errors that a person can do something about, as opposed to bugs."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Raised for input that a person can correct.

    The message says in one or two lines what was wrong, what was expected and what to do. Command
    lines print it and exit with code 2; library callers see an ordinary `ValueError`.
    """


class StorageError(OSError):
    """Raised when files cannot be written: a full disk, a quota, a read-only place.

    The message says in one or two lines which, and what is still whole. Command lines exit with code 1.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is none of `known`, with the nearest of them."""
    known = tuple(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"Unknown {kind} {name!r}.{hint} Known {kind}s: {', '.join(known)}.")


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises `InputError` unless `name` is one of `known`."""
    known = tuple(known)
    if name not in known:
        raise unknown(kind, name, known)
