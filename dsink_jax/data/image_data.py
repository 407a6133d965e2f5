"""What a data set is here: labelled images in memory, checked once, before anything uses them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.errors import InputError

_CHUNK = 1_000  # images converted to float64 at a time when means are taken


class Split(NamedTuple):
    """Images with their labels.

    Attributes:
      images: uint8 or float32 `[N, H, W, channels]`; may be a `streaming.Source`.
      labels: int32 `[N]`.
    """

    images: Any
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory.

    Attributes:
      name: name of the data set.
      train: training part.
      test: test part.
      class_names: one name per class.
      mean: per channel; on the 0..1 scale for uint8 images, else on the images' own scale.
      std: per channel, on the scale of `mean`; never 0.
      source: one line saying which route and which path it came from.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def from_arrays(
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike,
    test_labels: ArrayLike,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    source: str = "arrays in memory",
) -> ImageData:
    """Makes a data set from arrays; `mean` and `std` are those of the training images.

    Args:
      train_images: uint8 or floating `[N, H, W, channels]`; floats become float32.
      train_labels: integers `[N]` in [0, num_classes).
      test_images: like `train_images`, with the same height, width, channels and dtype.
      test_labels: like `train_labels`.
      num_classes: number of classes; by default as many as there are class names, and without
        those the largest label plus 1.
      class_names: one name per class; by default "0", "1", and so on.
      name: name of the data set.
      source: where it came from.

    Raises:
      InputError: if the arrays are not as described.
    """
    if class_names is not None and num_classes not in (None, len(class_names)):
        raise InputError(f"num_classes is {num_classes}, but there are {len(class_names)} class names.")
    known = num_classes if class_names is None else len(class_names)
    train = _split("train", train_images, train_labels, known)
    test = _split("test", test_images, test_labels, known)
    kinds = [f"{part.images.dtype} {part.images.shape[1:]}" for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"Training images are {kinds[0]}, test images {kinds[1]}.\n"
            "Give both the same dtype, height, width and channels."
        )
    if known is None:
        known = 1 + max(int(part.labels.max()) for part in (train, test))
        most = len(train.labels) + len(test.labels)
        if known > max(most, 2**16):  # a slip, such as an id, would fill the memory with names
            raise InputError(
                f"The largest label is {known - 1}, but there are {most} images.\n"
                "Number the classes from 0 without gaps, or say how many there are."
            )
    names = tuple(map(str, range(known) if class_names is None else class_names))
    return ImageData(name, train, test, names, *channel_statistics(train.images), source)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of each channel over all images and pixels.

    Args:
      images: uint8 or floating `[N, H, W, channels]`.

    Returns:
      Mean and standard deviation (of the population, dividing by N H W) of each channel; of the pixels
      divided by 255 if they are uint8. The deviation of a channel that is constant, up to float32
      rounding, is given as 1, so that it can be divided by.
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    count = np.prod(images.shape[:3], dtype=float)
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    total = sum(np.sum(chunk, axis=(0, 1, 2), dtype=np.float64) for chunk in chunks)
    mean = total / (count * scale)
    squares = sum(np.sum((chunk / scale - mean) ** 2, axis=(0, 1, 2)) for chunk in chunks)
    std = np.sqrt(squares / count)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    return tuple(map(float, mean)), tuple(map(float, std))


def _split(part: str, images: ArrayLike, labels: ArrayLike, num_classes: int | None) -> Split:
    images, labels = _images(f"{part}_images", images), _array(f"{part}_labels", labels)
    # Without a number of classes any label that an int32 holds.
    labels = check_class_numbers(labels, 2**31 if num_classes is None else num_classes, f"{part}_labels")
    if len(images) != len(labels):
        raise InputError(
            f"{part}_images has {len(images)} images, {part}_labels has {len(labels)} labels.\n"
            "Give one label for each image."
        )
    return Split(images, labels.astype(np.int32))


def _array(what: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be made into an array.\nGive rows of one size.") from error
    if array.size == 0:
        raise InputError(f"{what} is empty, its shape is {array.shape}.\nGive at least one image.")
    return array


def _images(what: str, values: ArrayLike) -> np.ndarray:
    images = _array(what, values)
    if images.dtype == np.uint8 and images.ndim == 4:
        return images
    if not np.issubdtype(images.dtype, np.floating) or images.ndim != 4:
        hint = "Add the channel axis: images[..., None]." if images.ndim == 3 else "Convert or reshape it."
        raise InputError(
            f"{what} is {images.dtype} {images.shape}, expected uint8 or float32 [N, H, W, C].\n{hint}"
        )
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise InputError(
            f"{what} holds NaN, infinity or values beyond float32.\nRemove or repair those images."
        )
    return images
