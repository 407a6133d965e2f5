"""CIFAR-10 and CIFAR-100 in their own formats: Python pickles or binary files, packed or not.

Source of the layouts: https://www.cs.toronto.edu/~kriz/cifar.html. An image is stored as 3,072
bytes: 1,024 red, then 1,024 green, then 1,024 blue values, each plane row by row. The Python
version keeps them in a pickled dictionary, the binary version puts one label byte (CIFAR-100: the
coarse, then the fine label) before each image. Both hold the images in the same order.
"""

import functools
import pathlib
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dsink_jax.data.array_pickle import unpickle_arrays
from dsink_jax.errors import InputError

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
ROWS = {"train": 50_000, "test": 10_000}
"""Images per part in the published data sets; a data set with other numbers is refused."""

_IMAGE_BYTES = 3 * 32 * 32


class CifarArrays(NamedTuple):
    """One CIFAR data set in the original order.

    Attributes:
        train_images: uint8 [N, 32, 32, 3], or an `Source` of such.
        train_labels: int32 [N]; the fine labels for CIFAR-100.
        test_images: uint8 [M, 32, 32, 3].
        test_labels: int32 [M].
        class_names: One name per class.
        source: One line saying which route and which path it came from.
    """

    train_images: Any
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str


class Layout(NamedTuple):
    """The files of one data set in one of CIFAR's two formats.

    Attributes:
        folder: Folder that the archive unpacks to.
        archive: File name of the archive.
        train: Names of the files with training images, in order.
        test: Name of the file with test images.
        names: Name of the file with the class names.
        read_batch: Turns the bytes of an image file into (uint8 [n, 32, 32, 3], int32 [n]).
        read_names: Turns the bytes of the file with the class names into a list of them.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str
    read_batch: Callable[[bytes], tuple[np.ndarray, np.ndarray]]
    read_names: Callable[[bytes], list[str]]


def find_files(dataset: str, data_dir: pathlib.Path) -> tuple[Layout, pathlib.Path] | None:
    """Looks for CIFAR's own files, in `data_dir` and `data_dir/<dataset>`.

    Archives are also taken from where TensorFlow Datasets keeps its downloads.

    Args:
        dataset: "cifar10" or "cifar100".
        data_dir: Folder to look in. It need not exist.

    Returns:
        The layout and the path of the folder or archive, or None.
    """
    for base in (data_dir, data_dir / dataset):
        for layout in LAYOUTS[dataset]:
            for path in (base / layout.folder, base / layout.archive):
                if path.exists():
                    return layout, path
    for layout in LAYOUTS[dataset]:
        stem = layout.archive.removesuffix(".tar.gz")
        for place in ("downloads", f"downloads/{dataset}", "downloads/manual"):
            for path in sorted((data_dir / place).glob(f"*{stem}*.tar.gz")):
                return layout, path
    return None


def read_files(dataset: str, layout: Layout, path: pathlib.Path) -> CifarArrays:
    """Reads what `find_files` found; an archive is read without unpacking it to disk.

    Args:
        dataset: "cifar10" or "cifar100".
        layout: The layout of the files.
        path: The folder or the archive.

    Returns:
        The data set in the original order.

    Raises:
        InputError: A file is missing, truncated, unreadable or not what its name says.
    """
    blobs = _folder_bytes(path, layout) if path.is_dir() else _archive_bytes(path, layout)
    missing = [name for name in (*layout.train, layout.test, layout.names) if name not in blobs]
    if missing:
        raise _damaged(path, layout, f"it lacks {', '.join(missing)}")

    def decode(read: Callable[[bytes], Any], name: str) -> Any:
        try:
            return read(blobs[name])
        except Exception as error:  # A broken pickle can raise almost anything.
            raise _damaged(path / name, layout, first_line(error)) from error

    def batch(name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = decode(layout.read_batch, name)
        if len(images) != rows:
            raise _damaged(path / name, layout, f"it has {len(images)} of {rows} images")
        return images, labels

    batches = [batch(name, ROWS["train"] // len(layout.train)) for name in layout.train]
    test_images, test_labels = batch(layout.test, ROWS["test"])
    arrays = CifarArrays(
        train_images=np.concatenate([images for images, _ in batches]),
        train_labels=np.concatenate([labels for _, labels in batches]),
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(decode(layout.read_names, layout.names)),
        source=f"CIFAR's own files in {path}",
    )
    check_arrays(dataset, arrays)
    return arrays


def check_arrays(dataset: str, arrays: CifarArrays) -> None:
    """Checks a data set read by any route against what is published about it.

    Args:
        dataset: "cifar10" or "cifar100".
        arrays: The data set.

    Raises:
        InputError: The number of images or classes, or a label, is wrong.
    """
    num_classes = NUM_CLASSES[dataset]
    found = {"train": len(arrays.train_images), "test": len(arrays.test_images)}
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    if found != ROWS:
        problem = f"{found['train']} training and {found['test']} test images"
        expected = f"{ROWS['train']} and {ROWS['test']}"
    elif len(arrays.class_names) != num_classes:
        problem, expected = f"{len(arrays.class_names)} class names", str(num_classes)
    elif labels.min() < 0 or labels.max() >= num_classes:
        problem = f"labels from {labels.min()} to {labels.max()}"
        expected = f"0 to {num_classes - 1}"
    else:
        return
    raise InputError(
        f"{dataset} from {arrays.source} has {problem}, expected {expected}.\n"
        "Remove it and get the data set again."
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's text, or its type if it has none.

    Args:
        error: Any exception.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


def _damaged(path: pathlib.Path, layout: Layout, what: str) -> InputError:
    return InputError(
        f"{path} is damaged or incomplete: {what}.\n"
        f"Remove it and put an intact {layout.archive} or its folder {layout.folder} there."
    )


def _folder_bytes(folder: pathlib.Path, layout: Layout) -> dict[str, bytes]:
    paths = [folder / name for name in (*layout.train, layout.test, layout.names)]
    try:
        return {path.name: path.read_bytes() for path in paths if path.is_file()}
    except OSError as error:
        raise _damaged(folder, layout, first_line(error)) from error


def _archive_bytes(path: pathlib.Path, layout: Layout) -> dict[str, bytes]:
    names = (*layout.train, layout.test, layout.names)
    wanted = {pathlib.PurePosixPath(layout.folder, name): name for name in names}
    blobs = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = wanted.get(pathlib.PurePosixPath(member.name))
                file = archive.extractfile(member) if name else None
                if name and file:
                    blobs[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, layout, first_line(error)) from error
    return blobs


def _images(planes: np.ndarray) -> np.ndarray:
    """Turns [n, 3072] bytes, colour planes one after another, into [n, 32, 32, 3]."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary_batch(blob: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    row = label_bytes + _IMAGE_BYTES
    if not blob or len(blob) % row:
        raise ValueError(f"{len(blob)} bytes are not a multiple of {row}, the size of a record")
    rows = np.frombuffer(blob, np.uint8).reshape(-1, row)
    return _images(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int32)


def _text_names(blob: bytes) -> list[str]:
    return blob.decode("ascii").split()


def _python_batch(blob: bytes, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    table = _unpickle(blob, "data", label_key)
    data, labels = table["data"], np.asarray(table[label_key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise ValueError("its images are no uint8 array")
    if data.shape != (len(labels), _IMAGE_BYTES) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"images {data.shape} do not go with {labels.dtype} labels {labels.shape}")
    return _images(data), labels.astype(np.int32)


def _python_names(blob: bytes, key: str) -> list[str]:
    return [_text(name) for name in _unpickle(blob, key)[key]]


def _unpickle(blob: bytes, *keys: str) -> dict[str, Any]:
    """Unpickles a dictionary that has these keys; Python 2 or 3 may have written it."""
    table = unpickle_arrays(blob)
    if not isinstance(table, dict):
        raise ValueError(f"a pickled {type(table).__name__}, not a dictionary")
    table = {_text(key): value for key, value in table.items()}
    if missing := [key for key in keys if key not in table]:
        raise ValueError(f"it has no entry {', '.join(missing)}")
    return table


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


LAYOUTS = {
    "cifar10": (
        Layout(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train=tuple(f"data_batch_{batch}" for batch in range(1, 6)),
            test="test_batch",
            names="batches.meta",
            read_batch=functools.partial(_python_batch, label_key="labels"),
            read_names=functools.partial(_python_names, key="label_names"),
        ),
        Layout(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train=tuple(f"data_batch_{batch}.bin" for batch in range(1, 6)),
            test="test_batch.bin",
            names="batches.meta.txt",
            read_batch=functools.partial(_binary_batch, label_bytes=1),
            read_names=_text_names,
        ),
    ),
    "cifar100": (
        Layout(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train=("train",),
            test="test",
            names="meta",
            read_batch=functools.partial(_python_batch, label_key="fine_labels"),
            read_names=functools.partial(_python_names, key="fine_label_names"),
        ),
        Layout(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train=("train.bin",),
            test="test.bin",
            names="fine_label_names.txt",
            read_batch=functools.partial(_binary_batch, label_bytes=2),
            read_names=_text_names,
        ),
    ),
}
