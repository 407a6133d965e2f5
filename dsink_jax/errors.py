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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `name`, upper and lower case alike; None if none is."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is none of `known`, with the nearest of them."""
    known = tuple(known)
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near is not None else ""
    return InputError(f"Unknown {kind} {name!r}.{hint} Known {kind}s: {', '.join(known)}.")


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises `InputError` unless `name` is one of `known`."""
    known = tuple(known)
    if name not in known:
        raise unknown(kind, name, known)
