"""The predicted class of each test image, kept with the rows of a study: what intervals over images need."""

import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data.npz_files import read_npz
from dsink_jax.evaluation import class_groups
from experiments.study.intervals import Accuracy, Interval, accuracy, bootstrap_difference

# Arrays that are no model: true classes, which images of the data set's test part, the rarest classes.
GOLD, IMAGES, FEW = "gold", "images", "few"
Arrays = dict[str, np.ndarray]


def file_of(folder: pathlib.Path, budget: str, setting: str, seed: int) -> pathlib.Path:
    """Where the predictions of one corrupted set and seed are, in the folder of a study."""
    return folder / "predictions" / f"{budget}-{setting}-seed-{seed}.npz"


def keep(file: pathlib.Path, found: Mapping[str, np.ndarray], *, anew: bool) -> None:
    """Adds predictions to a file of a study, whole or not at all.

    Args:
      file: which.
      found: `gold`, `images`, `few` and the classes by each model under its name; none to add nothing.
      anew: whether what is there is of other trainings, and goes.

    Raises:
      InputError: if the file that is there cannot be read.
      OSError: if it cannot be written.
    """
    if anew:
        file.unlink(missing_ok=True)
    there = read_npz(file) if file.exists() else {}
    if not found or _equal(there, found, found):
        return
    same = there and _equal(there, found, (GOLD, IMAGES))
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, "wb") as handle:
        np.savez_compressed(handle, **{**(there if same else {}), **found})


def _equal(ones, others, names):
    return all(name in ones and np.array_equal(ones[name], others[name]) for name in names)


def of_run(run_dir: pathlib.Path, data: Mapping[str, Any], models: Iterable[str]) -> Arrays:
    """What a run directory has of some models, as `keep` takes it; empty if it has nothing of them.

    Args:
      run_dir: the directory.
      data: the entry of its results on the data.
      models: their names.
    """
    path = run_dir / "predictions.npz"
    found = read_npz(path) if path.exists() else {}
    known = {name: found[name] for name in models if name in found}
    if not known:
        return {}
    few = class_groups(np.asarray(data["clean_counts"])).few.astype(found[GOLD].dtype)
    return {GOLD: found[GOLD], IMAGES: found[IMAGES], FEW: few, **known}


class Predictions:
    """The predictions that are kept for one corrupted set, of any seeds and models."""

    def __init__(self, folder: pathlib.Path, budget: str, setting: str):
        """Reads nothing yet.

        Args:
          folder: of the study.
          budget: what the corrupted set belongs to.
          setting: its name.
        """
        self._place = folder, budget, setting
        self._of_seed = functools.cache(self._read)

    def _read(self, seed):
        file = file_of(*self._place, seed)
        return read_npz(file) if file.exists() else {}

    def has(self, seed: int, model: str) -> bool:
        """Whether those of a model are kept."""
        return model in self._of_seed(seed)

    def difference(self, model: str, others: Mapping[int, str], measure: str = "last") -> Interval | None:
        """How far a model is ahead, over seeds and test images; None where not all predictions are kept.

        Args:
          model: its name.
          others: the model it is held against, by seed.
          measure: `last`, the accuracy, or `few`, that on the rarest third of the classes.

        Raises:
          InputError: if a file cannot be read.
        """
        if not all(self.has(seed, model) and self.has(seed, other) for seed, other in others.items()):
            return None
        kept = [self._of_seed(seed) for seed in others]
        few = [one[FEW] for one in kept]
        if measure == "few" and not all(np.array_equal(one, few[0]) for one in few):
            return None
        # The same test images are shared, and others are not, even if their classes are the same.
        same = all(np.array_equal(one[IMAGES], kept[0][IMAGES]) for one in kept)
        return bootstrap_difference(
            Accuracy(few[0]) if measure == "few" else accuracy,
            [one[GOLD] for one in kept],
            [one[model] for one in kept],
            [one[other] for one, other in zip(kept, others.values(), strict=True)],
            same_images=same,
        )
