"""Examples that are there more than once."""

import hashlib
from typing import Any

import numpy as np


def find_copies(inputs: Any) -> np.ndarray:
    """Int64 `[M]`: equal for examples that are the same, bit by bit; numbered from 0 as they come.

    Args:
      inputs: array `[M, ...]`.

    >>> find_copies(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])).tolist()
    [0, 1, 0]
    """
    numbers: dict[bytes, int] = {}
    rows = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)
