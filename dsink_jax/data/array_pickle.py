"""Unpickling of numpy arrays and plain containers that runs nothing else the pickle asks for."""

import io
import pickle
from typing import Any

import numpy as np


def unpickle_arrays(blob: bytes) -> Any:
    """Unpickles plain values (numbers, text, lists, dictionaries) and numpy arrays.

    Pickles of Python 2 and 3 are read; text and bytes of Python 2 come back as `str`.

    Args:
        blob: The pickle.

    Returns:
        The unpickled value.

    Raises:
        pickle.UnpicklingError: It is no pickle, or it asks for any other function or class.
        Exception: A broken pickle can raise almost anything, see the documentation of `pickle`.
    """
    return _ArrayUnpickler(io.BytesIO(blob), encoding="latin1").load()


def _latin1(text: str, encoding: str) -> bytes:
    """Undoes what Python 3 does to write bytes in pickle protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.zeros(0).__reduce_ex__(5)[0],
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = module.replace("numpy._core", "numpy.core"), name  # Renamed in NumPy 2.
        if key not in _ALLOWED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is refused")
        return _ALLOWED[key]
