"""CIFAR-10 and CIFAR-100 in their own formats: Python pickles or binary files, packed or not.

Source of the layouts: https://www.cs.toronto.edu/~kriz/cifar.html. An image is stored as 3,072
bytes: 1,024 red, then 1,024 green, then 1,024 blue values, each plane row by row. The Python
version keeps them in a pickled dictionary, the binary version puts one label byte (CIFAR-100: the
coarse, then the fine label) before each image. Both hold the images in the same order.
"""

import io
import pathlib
import pickle
import tarfile
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.data.image_data import ImageData, Split
from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
ROWS = {"train": 50_000, "test": 10_000}  # other numbers of images are refused

# Mean and standard deviation on the 0..1 scale. Source: the data loaders of TABASCO.
SCALES = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}


class Layout(NamedTuple):
    """The files of one data set in one of CIFAR's two formats.

    Attributes:
      folder: folder that the archive unpacks to.
      archive: file name of the archive.
      files: names of the files with training images, in order, and of that with the test images.
      names: name of the file with the class names.
      label_bytes: in binary files those before each image, of which the last is the label; 0 for pickles.
      keys: in pickles the entries with the labels and with the class names.
    """

    folder: str
    archive: str
    files: tuple[str, ...]
    names: str
    label_bytes: int = 0
    keys: tuple[str, str] = ("", "")


_TEN = (*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch")
_TEN_BINARY = tuple(f"{name}.bin" for name in _TEN)
_HUNDRED_BINARY = ("train.bin", "test.bin")
_PLAIN, _FINE = ("labels", "label_names"), ("fine_labels", "fine_label_names")
LAYOUTS = {
    "cifar10": (
        Layout("cifar-10-batches-py", "cifar-10-python.tar.gz", _TEN, "batches.meta", 0, _PLAIN),
        Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz", _TEN_BINARY, "batches.meta.txt", 1),
    ),
    "cifar100": (
        Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train", "test"), "meta", 0, _FINE),
        Layout("cifar-100-binary", "cifar-100-binary.tar.gz", _HUNDRED_BINARY, "fine_label_names.txt", 2),
    ),
}


def cifar_data(dataset: str, train: Split, test: Split, class_names: Sequence[str], source: str) -> ImageData:
    """CIFAR as read by any route, checked against what is published about it.

    Raises:
      InputError: if the images, the number of classes or a label are others.
    """
    for part, (images, labels) in {"train": train, "test": test}.items():
        kind, expected = f"{images.dtype} {list(images.shape)}", f"uint8 {[ROWS[part], 32, 32, 3]}"
        if kind != expected:
            raise InputError(
                f"{dataset} from {source}: {part}_images are {kind}, expected {expected}.\n"
                "Remove it and get the data set again, or name a file of other data by its path."
            )
        check_class_numbers(labels, NUM_CLASSES[dataset], f"{dataset} from {source}: {part}_labels")
    if len(class_names) != NUM_CLASSES[dataset]:
        raise InputError(
            f"{dataset} from {source} has {len(class_names)} class names, expected {NUM_CLASSES[dataset]}."
        )
    return ImageData(dataset, train, test, tuple(class_names), *SCALES[dataset], source)


def find_files(dataset: str, data_dir: pathlib.Path) -> tuple[Layout, pathlib.Path] | None:
    """Looks for CIFAR's own files, in `data_dir` and `data_dir/<dataset>`.

    Archives are also taken from where TensorFlow Datasets keeps its downloads.

    Returns:
      The layout and the path of the folder or archive, or None.
    """
    places = [
        (layout, base / name)
        for base in (data_dir, data_dir / dataset)
        for layout in LAYOUTS[dataset]
        for name in (layout.folder, layout.archive)
    ]
    for layout in LAYOUTS[dataset]:
        pattern = f"*{layout.archive.removesuffix('.tar.gz')}*.tar.gz"
        for folder in ("downloads", f"downloads/{dataset}", "downloads/manual"):
            places += [(layout, path) for path in sorted((data_dir / folder).glob(pattern))]
    return next((place for place in places if place[1].exists()), None)


def read_files(dataset: str, layout: Layout, path: pathlib.Path) -> ImageData:
    """Reads what `find_files` found, in the original order; an archive is not unpacked to disk.

    Raises:
      InputError: if a file is missing, truncated, unreadable or not what its name says.
    """
    place, images, labels = path, [], []
    try:
        blobs = _read_bytes(path, layout)
        if missing := [name for name in (*layout.files, layout.names) if name not in blobs]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for name in layout.files:
            place = path / name
            planes, classes = _decode_images(blobs[name], layout)
            rows = ROWS["test"] if name == layout.files[-1] else ROWS["train"] // (len(layout.files) - 1)
            if len(planes) != rows:
                raise ValueError(f"it has {len(planes)} of {rows} images")
            images.append(np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)))
            labels.append(classes.astype(np.int32))
        place = path / layout.names
        class_names = _decode_names(blobs[layout.names], layout)
    except Exception as error:  # a broken archive or pickle can raise almost anything
        raise InputError(
            f"{place} is damaged or incomplete: {first_line(error)}.\n"
            f"Remove it and put an intact {layout.archive} or its folder {layout.folder} there."
        ) from error
    train = Split(np.concatenate(images[:-1]), np.concatenate(labels[:-1]))
    source = f"CIFAR's own files in {path}"
    return cifar_data(dataset, train, Split(images[-1], labels[-1]), class_names, source)


def _read_bytes(path: pathlib.Path, layout: Layout) -> dict[str, bytes]:
    """The content of the files of a folder or archive by name, of those that are there."""
    names = (*layout.files, layout.names)
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    wanted = {pathlib.PurePosixPath(layout.folder, name): name for name in names}
    blobs = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = wanted.get(pathlib.PurePosixPath(member.name))
            if name and (file := archive.extractfile(member)):
                blobs[name] = file.read()
    return blobs


def _decode_images(blob: bytes, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[n, 3072]`, colour planes one after another, and labels `[n]`."""
    if layout.label_bytes:
        record = [("labels", np.uint8, (layout.label_bytes,)), ("image", np.uint8, (3072,))]
        records = np.frombuffer(blob, record)  # refuses what is no whole number of them
        return records["image"], records["labels"][:, -1]
    planes, labels = map(np.asarray, _unpickle(blob, "data", layout.keys[0]))
    if planes.dtype != np.uint8 or planes.shape != (labels.size, 3072) or labels.dtype.kind not in "iu":
        raise ValueError(f"{planes.dtype} images {planes.shape} with {labels.dtype} labels {labels.shape}")
    return planes, labels.reshape(-1)


def _decode_names(blob: bytes, layout: Layout) -> list[str]:
    if layout.label_bytes:
        return blob.decode("ascii").split()
    return list(map(_text, _unpickle(blob, layout.keys[1])[0]))


def _unpickle(blob: bytes, *keys: str) -> list[Any]:
    """Some entries of a pickled dictionary; Python 2 or 3 may have written it."""
    table = _ArrayUnpickler(io.BytesIO(blob), encoding="latin1").load()
    if not isinstance(table, dict):
        raise ValueError(f"a pickled {type(table).__name__}, not a dictionary")
    table = {_text(key): value for key, value in table.items()}
    if missing := [key for key in keys if key not in table]:
        raise ValueError(f"it has no entry {', '.join(missing)}")
    return [table[key] for key in keys]


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _latin1(text: str, encoding: str) -> bytes:
    """Undoes what Python 3 does to write bytes in pickle protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain values and NumPy arrays; runs nothing else that a pickle asks for."""

    allowed: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy.core.numeric", "_frombuffer"): np.zeros(0).__reduce_ex__(5)[0],
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        key = module.replace("numpy._core", "numpy.core"), name  # renamed in NumPy 2
        if key not in self.allowed:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is refused")
        return self.allowed[key]
