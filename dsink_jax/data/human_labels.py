"""CIFAR-N: labels that people gave to the training images of CIFAR-10 and CIFAR-100.

Source: Wei et al., "Learning with Noisy Labels Revisited", ICLR 2022,
https://github.com/UCSC-REAL/cifar-10-100n. TensorFlow Datasets has them as `cifar10_n` and
`cifar100_n`; there the `id` of an example ends in the index of its image in the original order.
"""

import os
import pathlib

import numpy as np
from numpy.typing import ArrayLike

from dsink_jax.data import cifar_files, cifar_tfds
from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.data.npz_files import read_npz
from dsink_jax.data.sources import data_directory
from dsink_jax.errors import InputError

KINDS: dict[str, dict[str, str]] = {
    "cifar10": {
        "aggre": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worse": "worse_label",
    },
    "cifar100": {"noisy": "noisy_label"},
}
"""For each data set the kinds of human labels, with the names that CIFAR-N's files give them."""

# Earlier versions gave the labels to the wrong images, according to TFDS's release notes.
_LEAST_AGREEMENT = 0.3  # with the own labels; by chance it is one in as many as there are classes
_FIRST_RIGHT_VERSION = {"cifar10": (1, 0, 2), "cifar100": (1, 0, 1)}

_TFDS_FEATURES = {"noisy_label": "noise_label", "clean_label": "label"}


def load_human_labels(
    dataset: str,
    kind: str,
    data_dir: str | os.PathLike[str] | None = None,
    labels_file: str | os.PathLike[str] | None = None,
    *,
    clean_labels: ArrayLike | None = None,
) -> np.ndarray:
    """Loads one set of human labels of the training images, in the original order.

    Without `labels_file` they are taken from the first of these under `data_dir`: `cifar10n.npz`,
    `cifar10/cifar10n.npz`, a folder `cifar10_n/<version>` prepared by TensorFlow Datasets; for
    CIFAR-100 likewise `cifar100n.npz` and `cifar100_n`.

    Args:
      dataset: "cifar10" or "cifar100".
      kind: "aggre", "random1", "random2", "random3" or "worse" for CIFAR-10, "noisy" (fine
        labels) for CIFAR-100.
      data_dir: where to look, see `dsink_jax.data.sources.data_directory`.
      labels_file: an .npz file with CIFAR-N's own names (`aggre_label`, `random_label1`,
        `worse_label`, `noisy_label`, ..., if wished `clean_label`), or an .npy file with
        nothing but the labels, integers `[50000]`; both in CIFAR's original order.
      clean_labels: integers `[50000]`, CIFAR's own labels. If the source has them too, they must
        agree, which shows that its order is the original one; and three in ten of the human labels
        must be the same.

    Returns:
      int32 `[50000]`.

    Raises:
      InputError: if there is no such kind, nothing is found, or it is damaged, in another order, of
        another length or out of range.
    """
    if kind not in KINDS.get(dataset, ()):
        known = "; ".join(f"{name} {', '.join(kinds)}" for name, kinds in KINDS.items())
        raise InputError(f"There are no human labels {kind!r} for {dataset!r}.\nThere are for {known}.")
    name, rows = KINDS[dataset][kind], cifar_files.ROWS["train"]
    path = _find(dataset, data_dir) if labels_file is None else pathlib.Path(labels_file).expanduser()
    if labels_file is not None and not path.is_file():
        raise InputError(f"There is no file {path}.\nGive the path of an .npz or .npy file.")
    found, clean = _read(path, dataset, name)
    labels = check_class_numbers(found, cifar_files.NUM_CLASSES[dataset], f"{path}: human labels")
    if len(labels) != rows:
        raise InputError(f"{path} has {len(labels)} labels, but {dataset} has {rows} training images.")
    if clean is not None and clean_labels is not None and not np.array_equal(clean, clean_labels):
        raise InputError(
            f"The clean labels in {path} are not those of {dataset}: another order or data set.\n"
            "Give a file whose labels are in the order of CIFAR's original files."
        )
    if clean_labels is not None:
        agreement = float(np.mean(labels == np.asarray(clean_labels)))
        if agreement < _LEAST_AGREEMENT:
            raise InputError(
                f"{path}: only {100 * agreement:.0f} % of the labels agree with {dataset}'s own, and people "
                "agreed on 60 % at least: another order or data set.\n"
                "Give a file whose labels are in the order of CIFAR's original files."
            )
    return labels.astype(np.int32)


def _find(dataset: str, data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """A file, or else a prepared folder."""
    directory, file_name = data_directory(data_dir), f"{dataset}n.npz"
    for path in (directory / file_name, directory / dataset / file_name):
        if path.is_file():
            return path
    prepared = cifar_tfds.find_prepared(f"{dataset}_n", directory)
    if prepared is None:
        raise InputError(
            f"Human labels for {dataset} were not found in {directory}.\n"
            f"Put {file_name} or TensorFlow Datasets' prepared folder {dataset}_n/ there, or give "
            "labels_file; the labels are at https://github.com/UCSC-REAL/cifar-10-100n."
        )
    if cifar_tfds.version_of(prepared) < _FIRST_RIGHT_VERSION[dataset]:
        wanted = ".".join(map(str, _FIRST_RIGHT_VERSION[dataset]))
        raise InputError(
            f"{prepared} gives the labels to the wrong images, as all versions before {wanted}.\n"
            f"Prepare {dataset}_n again with a newer tensorflow-datasets."
        )
    return prepared


def _read(path: pathlib.Path, dataset: str, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The labels and, where the source has them, the clean labels."""
    if path.is_dir():
        names = [_TFDS_FEATURES.get(each, each) for each in (name, "clean_label")]
        columns = cifar_tfds.PreparedImages(path, "train", names).columns
        return columns[names[0]], columns[names[1]]
    if path.suffix not in (".npz", ".npy"):
        raise InputError(
            f"{path} is neither an .npz nor an .npy file.\nWith PyTorch a .pt file is converted by "
            f'numpy.savez("{dataset}n.npz", **torch.load(path, weights_only=False)).'
        )
    arrays = read_npz(path)
    name = name if path.suffix == ".npz" else ""
    if name not in arrays:
        raise InputError(
            f"{path} has no array {name}; it has {', '.join(arrays) or 'none'}.\n"
            "Write it with numpy.savez and the names that CIFAR-N's files use."
        )
    return arrays[name], arrays.get("clean_label")
