"""Where images and labels come from: built-in digits, CIFAR, an .npz file or arrays in memory.

Every source gives an `ImageData` in the source's original order, so that an index means the same
image in every run and by every route.
"""

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from dsink_jax.data import cifar_download, cifar_files, cifar_tfds
from dsink_jax.data.image_data import ImageData, Split, from_arrays
from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError, unknown
from dsink_jax.paths import check_local_path

__all__ = ["DATASETS", "ImageData", "Split", "data_directory", "from_arrays", "is_there", "load", "read_npz"]

DATASETS = ("digits", "cifar10", "cifar100")
"""The names that `load` knows."""

# The test part of the digits: drawn by a seed of its own, whatever the other seeds.
_DIGITS_TEST_PER_CLASS, _DIGITS_TEST_SEED = 40, 0

_NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def load(
    dataset: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    lazy: bool = False,
) -> ImageData:
    """Loads a data set by name.

    CIFAR is taken from the first of these that is there: a folder prepared by TensorFlow Datasets
    (`data_dir/<dataset>/<version>`); CIFAR's own Python or binary files, unpacked or as the
    official archive, in `data_dir` or `data_dir/<dataset>`; a file `data_dir/<dataset>.npz` with the
    arrays named below, in the original order; a download into `data_dir`. All give the same arrays,
    with fine labels for CIFAR-100.

    The digits are scikit-learn's 1,797 images of 8x8 pixels, scaled to 0..255. Of every class 40
    images, drawn by a fixed seed, are the test part.

    Args:
      dataset: "digits", "cifar10", "cifar100", or the path of an .npz file with the arrays
        train_images, train_labels, test_images and test_labels (see `from_arrays`) and, if
        wished, class_names.
      data_dir: where CIFAR is, see `data_directory`.
      download: whether CIFAR may be downloaded if it is not there.
      lazy: whether to leave the training images of a TFDS folder on disk and decode them one at a time:
        `train.images` is then a `streaming.Source`.

    Raises:
      InputError: if there is no such data set, or it is missing, damaged or malformed.
    """
    dataset = os.fspath(dataset)
    if dataset == "digits":
        return _digits()
    if dataset in cifar_files.NUM_CLASSES:
        directory = data_directory(data_dir)
        if read := _cifar_reader(dataset, directory, lazy):
            return read()
        if download:
            return cifar_download.download_cifar(dataset, directory)
        raise cifar_download.not_found(dataset, directory, "downloading is off (download=False)")
    if dataset.endswith(".npz"):
        return _npz(_expanded(dataset))
    raise InputError(f"{unknown('data set', dataset, DATASETS)}\nOr give the path of an .npz file.")


def is_there(dataset: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a data set is on this machine, so that `load` downloads nothing. Nothing is read.

    Raises:
      InputError: if the folder is a file.
    """
    dataset = os.fspath(dataset)
    if dataset not in cifar_files.NUM_CLASSES:
        return dataset == "digits" or _expanded(dataset).is_file()
    return _cifar_reader(dataset, data_directory(data_dir)) is not None


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder where data sets are kept, which need not exist.

    Args:
      data_dir: the folder. If None, the environment variable TFDS_DATA_DIR names it, and if that is not
        set it is TensorFlow Datasets' default, `~/tensorflow_datasets`.

    Raises:
      InputError: if it is a file, or a place on another machine.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    check_local_path(chosen, "data_dir=" if data_dir else "TFDS_DATA_DIR")
    try:
        path = pathlib.Path(chosen).expanduser()
        problem = f"{path} is a file" if path.exists() and not path.is_dir() else ""
    except (OSError, RuntimeError) as error:  # too long, not to be looked into, of a user that is unknown
        problem = f"{chosen} cannot be used: {getattr(error, 'strerror', None) or error}"
    if problem:
        raise InputError(
            f"The data directory {problem}.\nName the folder that holds it: data_dir= or TFDS_DATA_DIR."
        )
    return path


def _expanded(path: str) -> pathlib.Path:
    check_local_path(path, "dataset=")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: {error}\nGive the whole path.") from None


def _cifar_reader(dataset: str, data_dir: pathlib.Path, lazy: bool = False) -> Callable[[], ImageData] | None:
    """Reads CIFAR from the first place where it is; None if it is in none."""
    if prepared := cifar_tfds.find_prepared(dataset, data_dir):
        return functools.partial(cifar_tfds.read_prepared, dataset, prepared, lazy=lazy)
    if files := cifar_files.find_files(dataset, data_dir):
        return functools.partial(cifar_files.read_files, dataset, *files)
    if (file := data_dir / f"{dataset}.npz").is_file():
        return functools.partial(_cifar_npz, dataset, file)
    return None


def _cifar_npz(dataset: str, path: pathlib.Path) -> ImageData:
    """CIFAR from a file of arrays, which needs no other library on the machine that reads it."""
    data = _npz(path)
    return cifar_files.cifar_data(dataset, data.train, data.test, data.class_names, data.source)


def _npz(path: pathlib.Path) -> ImageData:
    arrays = read_npz(path)
    if missing := [key for key in _NPZ_KEYS if key not in arrays]:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}.\n"
            f"Write it with numpy.savez and the names {', '.join(_NPZ_KEYS)}."
        )
    names = [str(name) for name in np.atleast_1d(arrays["class_names"])] if "class_names" in arrays else None
    values = [arrays[key] for key in _NPZ_KEYS]
    try:
        return from_arrays(*values, class_names=names, name=path.stem, source=f"the file {path}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None], bunch.target
    rng = np.random.default_rng(_DIGITS_TEST_SEED)
    in_test = np.zeros(len(labels), bool)
    for label in range(len(bunch.target_names)):
        in_test[rng.choice(np.flatnonzero(labels == label), _DIGITS_TEST_PER_CLASS, replace=False)] = True
    arrays = images[~in_test], labels[~in_test], images[in_test], labels[in_test]
    return from_arrays(*arrays, name="digits", source="the digits that come with scikit-learn")
