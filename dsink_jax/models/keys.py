"""What counts as the same network, so that what is compiled for one training serves the next."""

import functools
from typing import Any

import flax.linen as nn


class Keyed:
    """A value to cache by: a Linen module by its fields, a partial by its parts, all else by identity."""

    def __init__(self, value: Any):
        self.value = value
        self._key = _key(value)

    def __eq__(self, other):
        return isinstance(other, Keyed) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


def _key(value):
    # The cache keeps the value, so that its identity is no one else's.
    key: tuple[Any, ...] = (id(value),)
    if isinstance(value, nn.Module):
        key = (type(value), value)
    elif isinstance(value, functools.partial):
        key = (value.func, value.args, tuple(sorted(value.keywords.items())))
    try:
        hash(key)
    except TypeError:
        return (id(value),)
    return key
