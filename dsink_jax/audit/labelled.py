"""Data with labels, as people have it, whatever file it was read from."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsink_jax.errors import InputError

# What tables say where there is no label.
_NO_LABEL = {
    *("NaN", "nan", "-NaN", "-nan", "NA", "N/A", "#N/A", "<NA>", "NaT", "None", "null", "NULL", "?"),
}


class Labelled(NamedTuple):
    """Data with labels, as read.

    Attributes:
      inputs: `[M, D]` or `[M, H, W, channels]`.
      labels: int64 `[M]` in 0..C-1; or 0 and 1 `[M, C]`, which of several labels each example has.
      class_names: C names.
      names: M names of the examples: file, id or number.
      columns: D names of the features of a table.
      notes: what was left out, a sentence each.
    """

    inputs: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def numbered(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any kind as integers, and the names of the classes in order: 10 after 9, not after 1."""
    classes, numbers = np.unique(labels, return_inverse=True)
    names = [str(name) for name in classes.tolist()]
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        order = np.array(sorted(range(len(names)), key=lambda k: (int(names[k]), names[k])))
        names, numbers = [names[k] for k in order], np.argsort(order)[numbers]
    return numbers.astype(np.int64), tuple(names)


def numbered_words(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `numbered`, of words of which many are equal: no array of all of them is made."""
    words = list(dict.fromkeys(labels))
    numbers, names = numbered(np.array(words))
    of_word = dict(zip(words, numbers.tolist(), strict=True))
    return np.fromiter((of_word[label] for label in labels), np.int64, len(labels)), names


def says_missing(value: str) -> bool:
    """Whether a word says that there is no value."""
    return value in _NO_LABEL


def _no_label(labels):
    """Position and value of the first label that says there is none; None if all are labels.

    -1 is one beside words, and beside 0, 1, 2 and so on; beside 1, or 0 and 1, it is a class.
    """
    present = set(labels)
    others = present - {"-1"}
    whole = all(re.fullmatch(r"[0-9]+", label) for label in others)
    words = not any(re.fullmatch(r"-?[0-9.]+", label) for label in others)
    missing = {*_NO_LABEL, *(["-1"] if words or (whole and len(others) > 2) else [])}
    return next(((i, label) for i, label in enumerate(labels) if label in missing), None)


def check_labels(labels: Sequence[str], place: Callable[[int], str]) -> None:
    """Raises `InputError` for what says that there is no label; `place` names an example by its position."""
    if (found := _no_label(labels)) is not None:
        raise InputError(
            f"{place(found[0])}: the label {found[1]!r} says that there is none.\n"
            "Leave out what is not labelled; or, if it is a class, call it something else."
        )
