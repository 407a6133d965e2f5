"""Where images and labels come from: built-in digits, CIFAR, an .npz file or arrays in memory.

Every source gives an `ImageData` in the source's original order, so that an index means the same
image in every run and by every route.
"""

import dataclasses
import functools
import lzma
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from dsink_jax.data import cifar_download, cifar_files, cifar_tfds
from dsink_jax.data.image_data import ImageData, Split, channel_statistics, from_arrays
from dsink_jax.errors import InputError, unknown
from dsink_jax.paths import check_local_path

__all__ = [
    "DATASETS",
    "DIGITS_TEST_PER_CLASS",
    "DIGITS_TEST_SEED",
    "ImageData",
    "Split",
    "data_directory",
    "from_arrays",
    "load",
    "read_npz",
]

DATASETS = ("digits", "cifar10", "cifar100")
"""The names that `load` knows."""

DIGITS_TEST_PER_CLASS = 40
DIGITS_TEST_SEED = 0
"""Draws the test part of the digits: fixed, and independent of every other seed."""

# Mean and standard deviation on the 0..1 scale. Source: the data loaders of TABASCO.
_CIFAR_SCALES = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}

UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What NumPy and zipfile raise for files that are damaged or are something else."""

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
        data_dir: Where CIFAR is, see `data_directory`. Only used for CIFAR.
        download: Whether CIFAR may be downloaded if it is not there.
        lazy: Whether to leave the training images on disk where they can be read one at a time, as
            from a TFDS folder with array_record files: `train.images` is then an `Source`.

    Returns:
        The data set.

    Raises:
        InputError: There is no such data set, or it is missing, damaged or malformed.
    """
    dataset = os.fspath(dataset)
    if dataset == "digits":
        return _digits()
    if dataset in cifar_files.NUM_CLASSES:
        return _cifar(dataset, data_directory(data_dir), download, lazy)
    if dataset.endswith(".npz"):
        return _npz(_expanded(dataset))
    raise InputError(f"{unknown('data set', dataset, DATASETS)}\nOr give the path of an .npz file.")


def is_there(dataset: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a data set is on this machine, so that `load` downloads nothing. Nothing is read.

    Args:
        dataset: As for `load`.
        data_dir: Where CIFAR is, see `data_directory`.

    Raises:
        InputError: The folder is a file.
    """
    dataset = os.fspath(dataset)
    if dataset not in cifar_files.NUM_CLASSES:
        return dataset == "digits" or _expanded(dataset).is_file()
    return _cifar_reader(dataset, data_directory(data_dir)) is not None


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Resolves where data sets are kept.

    Args:
        data_dir: The folder. If None, the environment variable TFDS_DATA_DIR names it, and if that
            is not set it is TensorFlow Datasets' default, `~/tensorflow_datasets`.

    Returns:
        The folder, which need not exist.

    Raises:
        InputError: It is a file, or a place on another machine.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    check_local_path(chosen, "data_dir=" if data_dir else "TFDS_DATA_DIR")
    remedy = "Name the folder that holds it: data_dir= or TFDS_DATA_DIR."
    try:
        path = pathlib.Path(chosen).expanduser()
        is_file = path.exists() and not path.is_dir()
    except (OSError, RuntimeError) as error:  # too long, not to be looked into, of a user that is unknown
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The data directory {chosen} cannot be used: {reason}.\n{remedy}") from None
    if is_file:
        raise InputError(f"The data directory {path} is a file.\n{remedy}")
    return path


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads every array of an .npz file; pickled objects are refused.

    Args:
        path: The file.

    Returns:
        The arrays by name.

    Raises:
        InputError: The file is missing, damaged, no .npz file, or holds pickled objects.
    """
    try:
        if not path.is_file():
            raise InputError(f"There is no file {path}.\nGive the path of an existing .npz file.")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read: {cifar_files.first_line(error)}.\n"
            "Write it with numpy.savez, from arrays of numbers or text."
        ) from error


def _expanded(path: str) -> pathlib.Path:
    check_local_path(path, "dataset=")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: {error}\nGive the whole path.") from None


def _cifar(dataset: str, data_dir: pathlib.Path, download: bool, lazy: bool) -> ImageData:
    read = _cifar_reader(dataset, data_dir, lazy)
    if read is not None:
        arrays = read()
    elif download:
        arrays = cifar_download.download_cifar(dataset, data_dir)
    else:
        raise cifar_download.not_found(dataset, data_dir, "downloading is off (download=False)")
    mean, std = _CIFAR_SCALES[dataset]
    return ImageData(
        name=dataset,
        train=Split(arrays.train_images, arrays.train_labels),
        test=Split(arrays.test_images, arrays.test_labels),
        class_names=arrays.class_names,
        mean=mean,
        std=std,
        source=arrays.source,
    )


def _cifar_reader(
    dataset: str, data_dir: pathlib.Path, lazy: bool = False
) -> Callable[[], cifar_files.CifarArrays] | None:
    """Reads CIFAR from the first place where it is; None if it is in none."""
    if prepared := cifar_tfds.find_prepared(dataset, data_dir):
        return functools.partial(cifar_tfds.read_prepared, dataset, prepared, lazy=lazy)
    if files := cifar_files.find_files(dataset, data_dir):
        return functools.partial(cifar_files.read_files, dataset, *files)
    if (file := data_dir / f"{dataset}.npz").is_file():
        return functools.partial(_cifar_npz, dataset, file)
    return None


def _cifar_npz(dataset: str, path: pathlib.Path) -> cifar_files.CifarArrays:
    """CIFAR from a file of arrays, which needs no other library on the machine that reads it."""
    data, num_classes = _npz(path), cifar_files.NUM_CLASSES[dataset]
    other = f"Give arrays of another kind by their path instead: dataset={path.name!r}."
    for part, split in (("train", data.train), ("test", data.test)):
        expected = (cifar_files.ROWS[part], 32, 32, 3)
        if split.images.shape != expected or split.images.dtype != np.uint8:
            raise InputError(
                f"{path}: {part}_images must be uint8 {list(expected)} to be {dataset}, got "
                f"{split.images.dtype} {list(split.images.shape)}.\n{other}"
            )
    if data.num_classes != num_classes:
        raise InputError(
            f"{path}: {dataset} has {num_classes} classes, and it has {data.num_classes}.\n{other}"
        )
    names = data.class_names
    return cifar_files.CifarArrays(
        data.train.images, data.train.labels, data.test.images, data.test.labels, names, data.source
    )


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    rng = np.random.default_rng(DIGITS_TEST_SEED)
    in_test = np.zeros(len(labels), bool)
    for label in range(len(bunch.target_names)):
        members = np.flatnonzero(labels == label)
        in_test[rng.choice(members, DIGITS_TEST_PER_CLASS, replace=False)] = True
    mean, std = channel_statistics(images[~in_test])
    return ImageData(
        name="digits",
        train=Split(images[~in_test], labels[~in_test]),
        test=Split(images[in_test], labels[in_test]),
        class_names=tuple(str(name) for name in bunch.target_names),
        mean=mean,
        std=std,
        source="the digits that come with scikit-learn",
    )


def _npz(path: pathlib.Path) -> ImageData:
    arrays = read_npz(path)
    missing = [key for key in _NPZ_KEYS if key not in arrays]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}.\n"
            f"Write it with numpy.savez and the names {', '.join(_NPZ_KEYS)}."
        )
    names = arrays.get("class_names")
    try:
        data = from_arrays(
            *(arrays[key] for key in _NPZ_KEYS),
            class_names=None if names is None else [str(name) for name in np.atleast_1d(names)],
            name=path.stem,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dataclasses.replace(data, source=f"the file {path}")
