"""Sets whose labels are wrong by themselves, with better ones beside them.

Every set is read from where it lies; nothing of it is copied. The rows that models are judged by are split in
two halves: `tuning`, by which defaults are chosen, and the other one, which alone is reported.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsink_jax.audit import make_folds
from dsink_jax.data import is_there, load, load_human_labels
from dsink_jax.errors import InputError, check_known
from experiments.natural import files

_SPLIT_SEED = 0  # of the halves, whatever the seed of a training
_MISSING = -1  # a label that nothing is known of


@dataclasses.dataclass(frozen=True, eq=False)
class NaturalSet:
    """One set.

    Attributes:
      name: of the set.
      inputs: of the training examples: M texts, uint8 images `[M, H, W, channels]` or features `[M, D]`.
      given: int `[M]` in 0..C-1, the labels that come with them.
      gold: int `[M]`, the better labels; for judging alone.
      test_inputs: of the T examples that models are judged by.
      test_gold: int `[T]`, their better labels.
      tuning: bool `[T]`, which of these defaults may be chosen by; the others are reported.
      class_names: names of the C classes.
      description: what it is, in one sentence.
    """

    name: str
    inputs: np.ndarray | Sequence[str]
    given: np.ndarray
    gold: np.ndarray
    test_inputs: np.ndarray | Sequence[str]
    test_gold: np.ndarray
    tuning: np.ndarray
    class_names: tuple[str, ...]
    description: str

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def is_text(self) -> bool:
        """Whether the examples are texts."""
        return not isinstance(self.inputs, np.ndarray)

    @property
    def is_images(self) -> bool:
        """Whether the examples are images."""
        return isinstance(self.inputs, np.ndarray) and self.inputs.ndim == 4

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """Shares float64 `[C]` of the classes among labels `[M]`."""
        return np.bincount(labels, minlength=self.num_classes) / len(labels)

    def rows(self, index: np.ndarray) -> "NaturalSet":
        """The set with some of its training examples, int `[m]`."""
        inputs = [self.inputs[i] for i in index] if self.is_text else self.inputs[index]
        return dataclasses.replace(self, inputs=inputs, given=self.given[index], gold=self.gold[index])


class Kind(NamedTuple):
    """How a set is had.

    Attributes:
      read: reads it from a folder, under its name.
      encoder: what makes features of its examples: `text`, `image`, or None for images that networks are
        trained on as they are.
    """

    read: Callable[[str, pathlib.Path], NaturalSet]
    encoder: str | None


def read_set(name: str, data_dir: pathlib.Path) -> NaturalSet:
    """Reads a set by its name, one of `SETS`.

    Args:
      name: of the set.
      data_dir: the folder of the data.

    Raises:
      InputError: if it is none of them, or its files are missing, damaged or of another kind.
    """
    check_known("set", name, SETS)
    return SETS[name].read(name, data_dir)


def halves(gold: np.ndarray) -> np.ndarray:
    """Bool `[T]`, every class split evenly, always alike: True for the half that defaults are chosen by."""
    return make_folds(gold, 2, _SPLIT_SEED) == 0


def _claude9(name, data_dir):
    table = files.read_labelled_texts(files.find("claude9_weak/claude9.csv.gz", data_dir))
    return _texts(
        name,
        table,
        judged=("test",),
        tuning_too=("valid",),
        description="Clauses of terms of service, labelled by 41 rules that experts wrote; better labels by "
        "the experts themselves.",
    )


def _chemprot(name, data_dir):
    table = files.read_labelled_texts(files.find("chemprot_weak/chemprot.csv.gz", data_dir))
    return _texts(
        name,
        table,
        judged=("dev", "test"),
        description="Sentences on a chemical and a gene, labelled by 26 rules on keywords; sentences that no "
        "rule knows are left out of training. Judged on dev and test together.",
    )


def _texts(name, table, *, judged, tuning_too=(), description):
    """A set of texts: training rows with a label, rows to be judged by, and others that join the tuning."""
    train = np.flatnonzero((table.split == "train") & (table.weak != _MISSING))
    main, more = (np.flatnonzero(np.isin(table.split, names)) for names in (judged, tuning_too))
    files.check_rows(table.path, {"train": train, " and ".join(judged): main})
    test = np.concatenate([main, more])
    tuning = np.concatenate([halves(table.gold[main]), np.ones(len(more), bool)])
    return NaturalSet(
        name,
        [table.texts[i] for i in train],
        table.weak[train],
        table.gold[train],
        [table.texts[i] for i in test],
        table.gold[test],
        tuning,
        table.class_names,
        description,
    )


def _fer(name, data_dir):
    path = files.find("fer2013_ferplus", data_dir)
    faces, class_names = files.read_faces(path)
    known = faces["gold"] >= 0
    train = np.flatnonzero((faces["split"] == 0) & known & (faces["noisy"] >= 0))
    test = np.flatnonzero((faces["split"] != 0) & known & (faces["seen_in_train"] == 0))
    files.check_rows(path, {"Training": train, "PublicTest and PrivateTest": test})
    images, gold = faces["image"][..., None], faces["gold"].astype(np.int64)
    return NaturalSet(
        name,
        images[train],
        faces["noisy"][train].astype(np.int64),
        gold[train],
        images[test],
        gold[test],
        halves(gold[test]),
        class_names,
        "Grey faces of 32x32 pixels with the labels of 2013; better labels are what most of ten people said "
        "later. Test images that are in the training set too are left out.",
    )


def _cifar(dataset, kind):
    """A reader of CIFAR with the labels that people gave it."""

    def read(name, data_dir):
        train, test, class_names = _cifar_images(dataset, data_dir)
        given = load_human_labels(dataset, kind, data_dir, clean_labels=train[1])
        return NaturalSet(
            name,
            train[0],
            given.astype(np.int64),
            train[1],
            test[0],
            test[1],
            halves(test[1]),
            class_names,
            f"The images of {dataset.upper().replace('CIFAR', 'CIFAR-')} with labels that people gave them "
            f"(CIFAR-N, {kind}).",
        )

    return read


def _cifar_images(dataset, data_dir):
    """Images and labels of both splits, and the names of the classes."""
    if is_there(dataset, data_dir):
        data = load(dataset, data_dir, download=False)
        splits = [(part.images, part.labels.astype(np.int64)) for part in (data.train, data.test)]
        return *splits, tuple(data.class_names)
    folder = data_dir / dataset
    if not all((folder / f"{split}.npz").is_file() for split in ("train", "test")):
        raise InputError(
            f"{dataset} was not found in {data_dir}: neither a folder that TensorFlow Datasets prepared, nor "
            f"CIFAR's own files, nor {dataset}/train.npz and {dataset}/test.npz of WebP images.\n"
            "Give --data-dir the folder that holds them."
        )
    splits = [files.read_webp_images(folder / f"{split}.npz") for split in ("train", "test")]
    return *splits, files.read_class_names(folder / "label_names.txt", splits[0][1])


_CIFAR10N, _CIFAR100N = _cifar("cifar10", "worse"), _cifar("cifar100", "noisy")

SETS: dict[str, Kind] = {
    "claude9": Kind(_claude9, "text"),
    "chemprot": Kind(_chemprot, "text"),
    "cifar10n-features": Kind(_CIFAR10N, "image"),
    "cifar100n-features": Kind(_CIFAR100N, "image"),
    "fer-features": Kind(_fer, "image"),
    "fer": Kind(_fer, None),
    "cifar10n": Kind(_CIFAR10N, None),
    "cifar100n": Kind(_CIFAR100N, None),
}
"""All sets by name: features of a frozen encoder first, then images that networks are trained on."""
