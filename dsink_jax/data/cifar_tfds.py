"""Reading a folder that TensorFlow Datasets has prepared, without TensorFlow and without network.

TensorFlow Datasets stores the examples shuffled. The `id` of an example ends in its index in the
original order (`train_00042`), so everything is sorted by it here. array_record files are read
through TFDS's data source, tfrecord files by their published framing
(https://www.tensorflow.org/tutorials/load_data/tfrecord): TFDS's own reader for those would start
TensorFlow, which takes hold of the accelerators that JAX needs.
"""

import contextlib
import io
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dsink_jax.data.cifar_files import cifar_data
from dsink_jax.data.image_data import ImageData, Split
from dsink_jax.data.npz_files import first_line
from dsink_jax.data.streaming import read_rows
from dsink_jax.errors import InputError
from dsink_jax.extras import needs


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
    """The prepared folder `data_dir/<name>/<version>` of the newest version, or None."""
    folders = (data_dir / name).glob("*.*.*")
    versions = [folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    return max(versions, key=version_of, default=None)


def version_of(folder: pathlib.Path) -> tuple[int, ...]:
    """The version that a prepared folder is named after."""
    return tuple(map(int, folder.name.split(".")))


def read_prepared(dataset: str, folder: pathlib.Path, *, lazy: bool = False) -> ImageData:
    """Reads a prepared CIFAR data set, in the original order.

    Args:
      dataset: "cifar10" or "cifar100".
      folder: the folder that `find_prepared` found.
      lazy: whether to leave the training images where they are, as `PreparedImages`.

    Raises:
      InputError: if the folder is damaged, incomplete or something else, or the extra `data` is missing.
    """
    parts = []
    for split in ("train", "test"):
        on_disk = lazy and split == "train"
        images = PreparedImages(folder, split, ["label"], lazy=on_disk)
        pixels = images if on_disk else read_rows(images, np.arange(len(images)))
        parts.append(Split(pixels, images.columns["label"].astype(np.int32)))
    with _damage_reported(folder):
        names = (folder / "label.labels.txt").read_text().split()
    return cifar_data(dataset, parts[0], parts[1], names, f"the TensorFlow Datasets folder {folder}")


class PreparedImages:
    """The images of one split in the original order, decoded one at a time: a `streaming.Source`.

    Attributes:
      columns: of other features the values, `[M]` each.
    """

    def __init__(self, folder: pathlib.Path, split: str, columns: Sequence[str], *, lazy: bool = False):
        """Reads ids and `columns`, and unless `lazy` all images, encoded.

        Raises:
          InputError: if the folder is damaged or incomplete, or has no such split or feature.
        """
        self._folder = folder
        with _damage_reported(folder):
            stored = _examples(folder, split)
            self._examples = stored if lazy else list(stored)
            rows = [{name: each[name] for name in ("id", *columns)} for each in self._examples]
            ids = np.asarray([int(row["id"].removeprefix(f"{split}_".encode())) for row in rows])
            self._stored_at = np.argsort(ids)
            if not np.array_equal(ids[self._stored_at], np.arange(len(ids))):
                raise ValueError(f"the ids of {split} do not count from 0 to {len(ids) - 1}")
        self.columns = {name: np.asarray([row[name] for row in rows])[self._stored_at] for name in columns}
        self.shape, self.dtype = (len(ids), 32, 32, 3), np.dtype(np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._stored_at)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image `[32, 32, 3]` at an original index; `InputError` if it cannot be read."""
        with needs("data", "Decoding images"):
            from PIL import Image

        with _damage_reported(self._folder):
            blob = self._examples[int(self._stored_at[position])]["image"]
            with Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
                if image.mode != "RGB" or image.size != (32, 32):
                    raise ValueError(f"image {position} is {image.mode} {image.size}, not RGB 32x32")
                return np.asarray(image)


@contextlib.contextmanager
def _damage_reported(folder: pathlib.Path) -> Iterator[None]:
    """Turns whatever goes wrong with the files into one InputError that names the folder."""
    try:
        yield
    except (ImportError, MemoryError, InputError):
        raise
    except Exception as error:  # TFDS and the readers below it raise many kinds
        raise InputError(
            f"{folder} is no intact TensorFlow Datasets folder: {first_line(error)}.\n"
            'Remove it, or prepare it again with file_format="array_record".'
        ) from error


def _examples(folder: pathlib.Path, split: str) -> Any:
    """The decoded examples by position in stored order, with images still encoded."""
    if not (folder / "dataset_info.json").is_file():
        raise FileNotFoundError("it lacks dataset_info.json")
    with needs("data", "Reading a folder of TensorFlow Datasets"):
        import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)  # takes everything from the folder, nothing else
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value != "tfrecord":
        return builder.as_data_source(split, decoders=decoders)
    info = builder.info.splits[split]
    records = [record for path in info.filepaths for record in _tfrecords(path.read_bytes())]
    if len(records) != info.num_examples:
        raise ValueError(f"{split} has {len(records)} of {info.num_examples} examples")
    return [builder.info.features.deserialize_example_np(record, decoders=decoders) for record in records]


def _tfrecords(blob: bytes) -> Iterator[bytes]:
    """Yields the records of a tfrecord file: length, its checksum, record, its checksum.

    The checksums are not compared: counts and ids are checked by the callers, pixels by PNG's own.
    """
    offset = 0
    while offset < len(blob):
        (length,) = struct.unpack_from("<Q", blob, offset)
        end = offset + 12 + length
        if end + 4 > len(blob):
            raise ValueError("a tfrecord file is truncated")
        yield blob[offset + 12 : end]
        offset = end + 4
