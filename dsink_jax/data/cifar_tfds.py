"""Reading a folder that TensorFlow Datasets has prepared, without TensorFlow and without network.

TensorFlow Datasets stores the examples shuffled. The `id` of an example ends in its index in the
original order (`train_00042`), so everything is sorted by it here. Both file formats that TFDS can
write CIFAR in are read: array_record through TFDS's data source, tfrecord by its published framing
(https://www.tensorflow.org/tutorials/load_data/tfrecord). TFDS's own reader for tfrecord would
start TensorFlow, which takes hold of the accelerators that JAX needs.
"""

import contextlib
import io
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dsink_jax.data.cifar_files import CifarArrays, check_arrays, first_line
from dsink_jax.errors import InputError
from dsink_jax.extras import MissingExtraError, needs

_READING = "Reading a folder of TensorFlow Datasets"
_CHUNK = 1_000
"""Examples per bulk read from an array_record file."""


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Looks for a prepared data set, the newest version if there are several.

    Args:
        name: TFDS's name of the data set.
        data_dir: TFDS's data directory. It need not exist.

    Returns:
        `data_dir/<name>/<version>`, or None.
    """
    folders = (data_dir / name).glob("*.*.*")
    versions = [folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    return max(versions, key=version_of, default=None)


def version_of(folder: pathlib.Path) -> tuple[int, ...]:
    """Returns the version that a prepared folder is named after.

    Args:
        folder: `<data_dir>/<name>/<version>`.
    """
    return tuple(int(part) for part in folder.name.split("."))


def read_prepared(dataset: str, folder: pathlib.Path, *, lazy: bool = False) -> CifarArrays:
    """Reads a prepared CIFAR data set.

    Args:
        dataset: "cifar10" or "cifar100".
        folder: The folder that `find_prepared` found.
        lazy: Whether to leave the training images where they are, as `PreparedImages`.

    Returns:
        The data set in the original order.

    Raises:
        InputError: The folder is damaged, incomplete or something else, or the extra `data` is missing.
    """
    images = PreparedImages(folder, "train") if lazy else None
    train = read_columns(folder, "train", ("image", "label")) if images is None else {"label": images.labels}
    test = read_columns(folder, "test", ("image", "label"))
    with _damage_reported(folder):
        arrays = CifarArrays(
            train_images=_decode(train["image"]) if images is None else images,
            train_labels=np.asarray(train["label"], np.int32),
            test_images=_decode(test["image"]),
            test_labels=np.asarray(test["label"], np.int32),
            class_names=tuple((folder / "label.labels.txt").read_text().split()),
            source=f"the TensorFlow Datasets folder {folder}",
        )
    check_arrays(dataset, arrays)
    return arrays


class PreparedImages:
    """The images of one split, read and decoded one at a time: a `streaming.Source`.

    In the original order, as are their `labels`. Needs random access, which array_record files give.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        """Opens the split and reads ids and labels.

        Raises:
            InputError: The folder is damaged or incomplete, or of another file format.
        """
        with needs("data", _READING):
            import tensorflow_datasets as tfds

        self._folder = folder
        with _damage_reported(folder):
            builder = _open(folder)
            self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            known = [(_original_index(e["id"], split), e["label"]) for e in _examples(builder, split)]
            indices, labels = zip(*known, strict=True)
            self._stored = _original_order(indices, split)
        self.labels = np.asarray(labels, np.int32)[self._stored]
        self.shape, self.dtype = (len(indices), 32, 32, 3), np.dtype(np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._stored)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image `[32, 32, 3]` at an original index; `InputError` if it cannot be read."""
        with _damage_reported(self._folder):
            return _decode([self._source[int(self._stored[position])]["image"]])[0]


def read_columns(folder: pathlib.Path, split: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Reads some features of every example of one split.

    Args:
        folder: A prepared data set whose examples have an `id`.
        split: "train" or "test".
        names: The features to read. An `image` is left as encoded bytes.

    Returns:
        For each name the values, in the original order.

    Raises:
        InputError: The folder is damaged or incomplete, or has no such split or feature.
    """
    with _damage_reported(folder):
        builder = _open(folder)
        lacking = [name for name in ("id", *names) if name not in builder.info.features]
        if lacking:
            raise ValueError(f"it has no feature {', '.join(lacking)}")
        if split not in builder.info.splits:
            raise ValueError(f"it has no split {split}")
        indices = []
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for example in _examples(builder, split):
            indices.append(_original_index(example["id"], split))
            for name in names:
                columns[name].append(example[name])
        order = _original_order(indices, split)
        return {name: [values[i] for i in order] for name, values in columns.items()}


@contextlib.contextmanager
def _damage_reported(folder: pathlib.Path) -> Iterator[None]:
    """Turns whatever goes wrong with the files into one InputError that names the folder."""
    try:
        yield
    except (ImportError, MemoryError, MissingExtraError):
        raise
    except Exception as error:  # TFDS and the readers below it raise many kinds.
        raise InputError(
            f"{folder} is no intact TensorFlow Datasets folder: {first_line(error)}.\n"
            'Remove it, or prepare it again with file_format="array_record".'
        ) from error


def _open(folder: pathlib.Path) -> Any:
    """Returns TFDS's read-only builder; it takes everything from the folder, nothing else."""
    if not (folder / "dataset_info.json").is_file():
        raise FileNotFoundError("it lacks dataset_info.json")
    with needs("data", _READING):
        import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder)


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the decoded examples in stored order, with images still encoded."""
    with needs("data", _READING):
        import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" in formats:
        source = builder.as_data_source(split, decoders=decoders)
        for start in range(0, len(source), _CHUNK):
            yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))
    elif "tfrecord" in formats:
        info = builder.info.splits[split]
        records = [record for path in info.filepaths for record in _tfrecords(path.read_bytes())]
        if len(records) != info.num_examples:
            raise ValueError(f"{split} has {len(records)} of {info.num_examples} examples")
        for record in records:
            yield builder.info.features.deserialize_example_np(record, decoders=decoders)
    else:
        raise ValueError(f"its file format {', '.join(formats)} is neither array_record nor tfrecord")


def _tfrecords(blob: bytes) -> Iterator[bytes]:
    """Yields the records of a tfrecord file: length, its checksum, record, its checksum.

    The checksums are not compared: the standard library has no CRC-32C. Counts and ids are checked
    by the callers, pixels by PNG's own checksums.
    """
    offset = 0
    while offset < len(blob):
        (length,) = struct.unpack_from("<Q", blob, offset)
        end = offset + 12 + length
        if end + 4 > len(blob):
            raise ValueError("a tfrecord file is truncated")
        yield blob[offset + 12 : end]
        offset = end + 4


def _original_index(example_id: bytes, split: str) -> int:
    text = example_id.decode("ascii")
    prefix, _, number = text.rpartition("_")
    if prefix != split or not number.isdecimal():
        raise ValueError(f"the id {text!r} is not {split}_ and a number")
    return int(number)


def _original_order(indices: Sequence[int], split: str) -> np.ndarray:
    """Where each original index is stored."""
    order = np.argsort(indices)
    if not np.array_equal(np.asarray(indices)[order], np.arange(len(order))):
        raise ValueError(f"the ids of {split} do not count from 0 to {len(order) - 1}")
    return order


def _decode(encoded: Sequence[bytes]) -> np.ndarray:
    """Decodes PNG files of 32x32 colour images to uint8 [N, 32, 32, 3].

    One thread: Pillow holds Python's lock for most of so small an image, and more threads measured
    slower.
    """
    with needs("data", _READING):
        from PIL import Image

    images = np.empty((len(encoded), 32, 32, 3), np.uint8)
    for index, blob in enumerate(encoded):
        with Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
            if image.mode != "RGB" or image.size != (32, 32):
                raise ValueError(f"image {index} is {image.mode} {image.size}, not RGB 32x32")
            images[index] = np.frombuffer(image.tobytes(), np.uint8).reshape(32, 32, 3)
    return images
