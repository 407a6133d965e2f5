"""What a data set is here: labelled images in memory, checked once, before anything uses them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsink_jax.errors import InputError

_CHUNK = 1_000
"""Images converted to float64 at a time when means are taken."""


class Split(NamedTuple):
    """Images with their labels.

    Attributes:
        images: uint8 or float32 [N, H, W, C].
        labels: int32 [N].
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory.

    Attributes:
        name: Name of the data set.
        train: Training part.
        test: Test part.
        class_names: One name per class.
        mean: Per channel; on the 0..1 scale for uint8 images, else on the images' own scale.
        std: Per channel, on the scale of `mean`; never 0.
        source: One line saying which route and which path it came from.
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
) -> ImageData:
    """Makes a data set from arrays.

    Args:
        train_images: uint8 or floating [N, H, W, C]; floats become float32.
        train_labels: Integers [N] in [0, num_classes).
        test_images: Like `train_images`, with the same H, W, C and dtype.
        test_labels: Like `train_labels`.
        num_classes: Number of classes; by default as many as there are class names, and without
            those the largest label plus 1.
        class_names: One name per class; by default "0", "1", and so on.
        name: Name of the data set.

    Returns:
        The data set; `mean` and `std` are those of the training images.

    Raises:
        InputError: The arrays are not as described.
    """
    train = _split("train", train_images, train_labels)
    test = _split("test", test_images, test_labels)
    _check_alike(train.images, test.images)
    names = _class_names(num_classes, class_names, (train.labels, test.labels))
    _check_range("train_labels", train.labels, len(names))
    _check_range("test_labels", test.labels, len(names))
    mean, std = channel_statistics(train.images)
    return ImageData(
        name=name,
        train=Split(train.images, train.labels.astype(np.int32)),
        test=Split(test.images, test.labels.astype(np.int32)),
        class_names=names,
        mean=mean,
        std=std,
        source="arrays in memory",
    )


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes the mean and standard deviation of each channel over all images and pixels.

    Args:
        images: uint8 or floating [N, H, W, C].

    Returns:
        Mean and standard deviation (of the population, dividing by N H W), each [C]; of the pixels
        divided by 255 if they are uint8. The deviation of a channel that is constant, up to
        float32 rounding, is given as 1, so that it can be divided by.
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


def _split(part: str, images: ArrayLike, labels: ArrayLike) -> Split:
    images, labels = _images(f"{part}_images", images), _labels(f"{part}_labels", labels)
    if len(images) != len(labels):
        raise InputError(
            f"{part}_images has {len(images)} images, {part}_labels has {len(labels)} labels.\n"
            "Give one label for each image."
        )
    return Split(images, labels)


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
    if images.ndim != 4:
        hint = " Add the channel axis: images[..., None]." if images.ndim == 3 else ""
        raise InputError(f"{what} has shape {images.shape}, expected [N, H, W, C].\nReshape it.{hint}")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(
            f"{what} has dtype {images.dtype}, expected uint8 or float32.\n"
            "Convert it: values 0..255 to uint8, others to float32."
        )
    with np.errstate(over="ignore"):
        images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        raise InputError(
            f"{what} holds NaN, infinity or values beyond float32.\nRemove or repair those images."
        )
    return images


def _labels(what: str, values: ArrayLike) -> np.ndarray:
    labels = _array(what, values)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{what} is {labels.dtype} of shape {labels.shape}, expected integers of shape [N].\n"
            "Give one class index for each image."
        )
    return labels


def _check_alike(train_images: np.ndarray, test_images: np.ndarray) -> None:
    kinds = [f"{part.dtype} {part.shape[1:]}" for part in (train_images, test_images)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"Training images are {kinds[0]}, test images {kinds[1]}.\n"
            "Give both the same dtype, height, width and channels."
        )


def _class_names(
    num_classes: int | None, class_names: Sequence[str] | None, labels: Sequence[np.ndarray]
) -> tuple[str, ...]:
    if class_names is None:
        if num_classes is None:
            num_classes = max(1, *(int(part.max()) + 1 for part in labels))
            most = sum(map(len, labels))
            if num_classes > max(most, 2**16):  # a slip, such as an id, would fill the memory with names
                raise InputError(
                    f"The largest label is {num_classes - 1}, but there are {most} images.\n"
                    "Number the classes from 0 without gaps, or say how many there are."
                )
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}.\nGive a positive number.")
        class_names = [str(index) for index in range(num_classes)]
    elif num_classes is not None and num_classes != len(class_names):
        raise InputError(
            f"num_classes is {num_classes}, but there are {len(class_names)} class names.\n"
            "Give one name for each class."
        )
    return tuple(str(name) for name in class_names)


def _check_range(what: str, labels: np.ndarray, num_classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{what} holds labels from {low} to {high}, expected 0 to {num_classes - 1}.\n"
            "Renumber the classes from 0, or correct num_classes."
        )
