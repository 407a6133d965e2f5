"""What people train on, as arrays that the training loop takes: vectors are images of one pixel."""

from typing import Any, NamedTuple

import numpy as np

from dsink_jax.data import Augmentation
from dsink_jax.data.corruption import check_labels
from dsink_jax.errors import InputError
from dsink_jax.training import Preprocessing

_AT_ONCE = 2**24  # numbers


class InputKind(NamedTuple):
    """What one example looks like.

    Attributes:
      shape: `(D,)` for vectors, `(H, W, channels)` for images.
      is_uint8: whether values are bytes, put on the scale 0..1.
    """

    shape: tuple[int, ...]
    is_uint8: bool

    @property
    def is_image(self) -> bool:
        """Whether an example is an image."""
        return len(self.shape) == 3


def check_inputs(inputs: Any, kind: InputKind | None = None) -> np.ndarray:
    """The inputs as the loop takes them, `[M, H, W, channels]`, uint8 or float32; vectors as `[M, 1, 1, D]`.

    Args:
      inputs: `[M, D]` vectors or `[M, H, W, channels]` images, of numbers; or `[M, H, W]`, grey images.
      kind: what was trained on, if they are to be predicted for.

    Raises:
      InputError: for anything else, or numbers that are not finite.
    """
    try:
        array = np.asarray(inputs)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"The inputs are not one array: {error}") from None
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim not in (2, 4) or 0 in array.shape[1:] or array.dtype.kind not in "buif":
        raise InputError(
            "The inputs must be numbers, vectors [M, D] or images [M, H, W, channels], got "
            f"{array.dtype} {list(array.shape)}."
        )
    if array.ndim == 4 and array.shape[1] in (1, 3) and 4 < array.shape[2] == array.shape[3]:
        raise InputError(
            f"The images seem to be [M, channels, H, W], got {list(array.shape)}: they must be "
            "[M, H, W, channels].\nnumpy.moveaxis(images, 1, -1) makes them so."
        )
    if kind is not None and array.shape[1:] != kind.shape:
        raise InputError(
            f"The inputs must be {list(kind.shape)} each, as in training, got {list(array.shape[1:])}."
        )
    if array.ndim == 2:
        array = array[:, None, None, :]
    is_uint8 = array.dtype == np.uint8 if kind is None else kind.is_uint8
    if is_uint8:
        if array.dtype != np.uint8:
            raise InputError(f"The inputs must be uint8, as in training, got {array.dtype}.")
        return array
    if kind is not None and kind.is_image and array.dtype == np.uint8:
        raise InputError("The images must be of numbers as in training, got uint8, which has another scale.")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    bad = ~np.isfinite(array).all((1, 2, 3))
    if bad.any():
        raise InputError(
            f"The inputs hold NaN, infinity or a number too large for float32, first in example "
            f"{int(bad.argmax())} ({int(bad.sum())} of {len(array)})."
        )
    return array


def kind_of(array: np.ndarray, inputs: Any) -> InputKind:
    """What the checked inputs look like, given what they were checked from."""
    shape = array.shape[1:] if np.ndim(inputs) != 2 else array.shape[3:]
    return InputKind(tuple(shape), array.dtype == np.uint8)


def check_observed(labels: Any, count: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Labels int32 `[M]` and the number of classes.

    Args:
      labels: integers `[M]` in 0..C-1.
      count: M.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.

    Raises:
      InputError: for labels that are not that, or fewer than two classes.
    """
    try:
        labels = np.asarray(labels)
    except ValueError as error:
        raise InputError(f"The labels are not one array: {error}") from None
    if labels.ndim != 1 or len(labels) != count or not count:
        raise InputError(
            f"There must be one label for each of {count} examples, at least 1, got {list(labels.shape)}."
        )
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"Labels must be integers, got {labels.dtype}: numpy.unique(labels, return_inverse=True) numbers "
            "them,\nand DSinkClassifier takes names."
        )
    if num_classes is None:
        present = np.unique(labels)
        if len(present) == 1:
            raise InputError(
                f"All {count} labels are {present[0]}: two classes at least are needed.\n"
                "If others exist that have no example here, give num_classes."
            )
        num_classes = max(len(present), 2)
        if not np.array_equal(present, np.arange(num_classes)):
            raise InputError(
                f"The {count} labels have {len(present)} different values, {present[0]} to {present[-1]}: "
                "number the classes from 0 without gaps.\n"
                "numpy.unique(labels, return_inverse=True) does; or give num_classes."
            )
    if not isinstance(num_classes, int | np.integer) or num_classes < 2:
        raise InputError(f"num_classes must be an integer of at least 2, got {num_classes!r}.")
    return check_labels(labels, int(num_classes), "Labels"), int(num_classes)


def make_preprocessing(inputs: np.ndarray, crop_padding: int, flip: bool) -> Preprocessing:
    """Each channel, or each feature of vectors, to mean 0 and standard deviation 1 over the training set."""
    scale = 255.0 if inputs.dtype == np.uint8 else 1.0
    mean = inputs.mean((0, 1, 2), dtype=np.float64)
    # In parts: a copy of all in float64 would be eight times as large as bytes.
    parts = np.array_split(inputs, max(inputs.size // _AT_ONCE, 1))
    std = np.sqrt(sum(((part - mean) ** 2).sum((0, 1, 2)) for part in parts) / inputs[..., 0].size)
    mean, std = mean / scale, std / scale
    # What hardly varies says nothing, and must not be blown up.
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
    augmentation = Augmentation(crop_padding, flip)
    return Preprocessing(augmentation, tuple(mean.tolist()), tuple(std.tolist()))
