"""What models predict for the reported half of a set, in small files that are kept with the results.

From these files alone the tables follow, and their intervals over seeds and test examples together.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError
from experiments.natural.data import NaturalSet
from experiments.natural.models import PRIORS, Found

FOLDER = "predictions"
_GOLD, _NAMES = "gold", "class_names"
SHARES = ("given", "true", "estimated")
"""Of which labels shares are kept: those that are given, the better ones, and D-SINK's estimate."""


class Predictions(NamedTuple):
    """Predictions of all models for one set and seed.

    Attributes:
      gold: uint8 or uint16 `[T]`, the better labels of the reported half.
      predicted: for each model and each of `PRIORS` the classes `[T]`.
      shares: for each of `SHARES` float32 `[C]`.
      class_names: names of the C classes.
    """

    gold: np.ndarray
    predicted: dict[tuple[str, str], np.ndarray]
    shares: dict[str, np.ndarray]
    class_names: tuple[str, ...]


def path_of(output: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where the predictions for a set and a seed are."""
    return output / FOLDER / f"{name}-{seed}.npz"


def write(path: pathlib.Path, natural: NaturalSet, found: Sequence[Found]) -> None:
    """Writes the predictions of all models for the reported half.

    Raises:
      OSError: if they cannot be written.
    """
    dtype = np.uint8 if natural.num_classes <= 256 else np.uint16
    reported = ~natural.tuning
    arrays = {
        _GOLD: natural.test_gold[reported].astype(dtype),
        _NAMES: np.array(natural.class_names),
    }
    for one in found:
        for prior in PRIORS:
            arrays[f"{one.model}/{prior}"] = getattr(one, prior)[reported].astype(dtype)
    estimated = next(one.shares for one in found if one.shares is not None)
    shares = (natural.shares(natural.given), natural.shares(natural.gold), estimated)
    for name, of in zip(SHARES, shares, strict=True):
        arrays[f"shares/{name}"] = np.asarray(of, np.float32)
    path.parent.mkdir(exist_ok=True)
    with replacing(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: pathlib.Path) -> Predictions:
    """Reads what `write` wrote.

    Raises:
      InputError: if there is no such file, or it is damaged.
    """
    arrays = read_npz(path)
    try:
        gold, names = arrays.pop(_GOLD), arrays.pop(_NAMES)
        shares = {name: arrays.pop(f"shares/{name}") for name in SHARES}
    except KeyError as error:
        raise InputError(f"{path} has no array {error}: it belongs to the table beside it.") from None
    predicted = {}
    for name, array in arrays.items():
        model, _, prior = name.rpartition("/")
        predicted[model, prior] = array
    return Predictions(gold, predicted, shares, tuple(map(str, names)))
