"""Reading `.npz` files that may be anything."""

import pathlib

import numpy as np

from dsink_jax.errors import InputError


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file by name, or the one array of an `.npy` file under the name "".

    Raises:
      InputError: if the file is missing, damaged or something else, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".npy":
                return {"": np.lib.format.read_array(file, allow_pickle=False)}
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"There is no file {path}.\nGive the path of one that NumPy has written.") from None
    except Exception as error:  # NumPy and zipfile raise many kinds for what is damaged or something else
        problem = f"{path} cannot be read: {first_line(error)}."
        raise InputError(f"{problem}\nWrite it with NumPy, without Python objects.") from error
