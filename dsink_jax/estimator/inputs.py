"""What people train on, as arrays that the training takes, and how features are standardised."""

import itertools
import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.data.streaming import is_streamed
from dsink_jax.errors import InputError
from dsink_jax.estimator.arrays import as_array, as_columns, as_labels
from dsink_jax.training import Standardization

_AT_ONCE = 2**24  # numbers
_FAR = 100.0  # a mean is, from so many times the range on


class InputKind(NamedTuple):
    """What one example looks like.

    Attributes:
      shape: `(D,)` for vectors, `(H, W, channels)` for images, or any other.
      dtype: name of the type that the network's inputs are kept in: `uint8` is put on the scale 0..1 where
        inputs are standardised.
      columns: names of the D features, if they came in a frame.
    """

    shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...] = ()


def check_inputs(
    inputs: Any,
    kind: InputKind | None = None,
    *,
    standardize: bool = True,
    adds_channel: bool = False,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """The inputs `[M, ...]` as training takes them: uint8 and float32, or integers that are to stay such.

    Args:
      inputs: `[M, ...]` numbers of any rank: an array or a tensor of any library, a frame of pandas, Polars
        or Arrow (numbers, flags, categories, vectors), a column of a data set, or lists. A memory-mapped
        array stays on disk.
      kind: what was trained on, if they are to be predicted for.
      standardize: whether they will be standardised: then integers become float32.
      adds_channel: whether `[M, H, W]` are grey images, which get an axis of one channel; of inputs that have
        no more than one axis longer than 1 beside M, vectors are made, and that is told.
      offset: float64, what is taken from features before they become float32; see `find_offset`.

    Raises:
      InputError: for anything else, or numbers that are not finite.
    """
    array, columns = as_columns(inputs)
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    if array.ndim < 2 or 0 in array.shape[1:] or not (is_floating or array.dtype.kind in "bui"):
        raise InputError(
            "The inputs must be numbers, vectors [M, D] or images [M, H, W, channels], got "
            f"{array.dtype} {list(array.shape)}."
        )
    if adds_channel and array.ndim in (3, 4) and sum(length > 1 for length in array.shape[1:]) < 2:
        vectors = array.reshape(len(array), -1)
        warnings.warn(
            f"The inputs {list(array.shape)} are taken as vectors {list(vectors.shape)}: axes of length one "
            "are left out.",
            stacklevel=4,
        )
        array = vectors
    if array.ndim == 3 and adds_channel:
        array = array[..., None]
    is_square = array.ndim == 4 and array.shape[1] in (1, 3) and 4 < array.shape[2] == array.shape[3]
    is_wide = adds_channel and array.ndim == 4 and array.shape[1] <= 4 < min(array.shape[2:])
    if is_square or is_wide:
        raise InputError(
            f"The images seem to be [M, channels, H, W], got {list(array.shape)}: they must be "
            "[M, H, W, channels].\nnumpy.moveaxis(images, 1, -1) makes them so."
        )
    if kind is not None:
        check_columns(columns, kind)
        _check_kind(array, kind)
    if is_streamed(array):
        return array
    if array.dtype == np.uint8 and (kind is None or kind.dtype == "uint8"):
        return array
    if kind is not None and kind.dtype.startswith("int") and is_floating and not standardize:
        raise InputError(f"The inputs must be integers, as in training, got {array.dtype}.")
    if not is_floating and (not standardize if kind is None else kind.dtype == "int32"):
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise InputError("The inputs hold integers beyond 32 bits: number what they stand for from 0.")
        return array.astype(np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        array = (array if offset is None else array - offset).astype(np.float32, copy=False)
    bad = ~np.isfinite(array).all(tuple(range(1, array.ndim)))
    if bad.any():
        raise InputError(
            f"The inputs hold NaN, infinity or a number too large for float32, first in example "
            f"{int(bad.argmax())} ({int(bad.sum())} of {len(array)})."
        )
    return array


def check_columns(columns: tuple[str, ...], kind: InputKind) -> None:
    """Raises `InputError` for frames whose columns, or categories, are not those of the training."""
    if not columns or not kind.columns or columns == kind.columns:
        return
    if sorted(columns) == sorted(kind.columns):
        raise InputError("The columns, or the categories of one, are in another order than in training.")
    new = [name for name in columns if name not in kind.columns]
    gone = [name for name in kind.columns if name not in columns]
    said = [
        f"{', '.join(map(repr, some[:5]))} {what}" for some, what in ((new, "new"), (gone, "gone")) if some
    ]
    raise InputError(
        f"The columns, or the categories of one, are not those of the training: {'; '.join(said)}."
    )


def _check_kind(array, kind):
    """Raises `InputError` unless the inputs are like those of the training."""
    if array.shape[1:] != kind.shape:
        raise InputError(
            f"The inputs must be {list(kind.shape)} each, as in training, got {list(array.shape[1:])}."
        )
    if kind.dtype == "uint8" and array.dtype != np.uint8:
        raise InputError(f"The inputs must be uint8, as in training, got {array.dtype}.")
    if len(kind.shape) == 3 and kind.dtype != "uint8" and array.dtype == np.uint8:
        raise InputError("The images must be of numbers as in training, got uint8, which has another scale.")


def check_observed(labels: Any, count: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Labels int32 `[M]`, or indicators `[M, C]`, and the number of classes.

    Args:
      labels: integers `[M]` in 0..C-1; `[M, C]` are indicators of several labels, see `check_indicators`.
      count: M.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.

    Raises:
      InputError: for labels that are not that, or fewer than two classes.
    """
    labels = as_labels(labels)
    if labels.ndim == 2:
        return check_indicators(labels, count, num_classes)
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
    return check_class_numbers(labels, int(num_classes), "Labels"), int(num_classes)


def find_offset(inputs: Any) -> np.ndarray | None:
    """What features must lose before float32 can hold how they differ: float64 over the last axis, or None.

    Dates in seconds, or coordinates in a map, differ by less than a hundredth of what they are. Of others it
    is 0.
    """
    array = as_array(inputs)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize < 4 or array.dtype == np.float32:
        return None
    if array.ndim < 2 or not array.size or is_streamed(array):
        return None
    over = tuple(range(array.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = array.mean(over, dtype=np.float64)
        far = differs_little(mean, array.min(over).astype(np.float64), array.max(over).astype(np.float64))
    return np.where(far, mean, 0.0) if far.any() else None


def differs_little(mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether numbers differ by less than a hundredth of what they are, bool `[D]`; float64 `[D]` given."""
    return (np.abs(mean) > _FAR * (high - low)) & np.isfinite(mean)


def check_indicators(labels: np.ndarray, count: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Which of several labels each example has, int32 `[M, C]`, and C.

    Args:
      labels: 0 and 1 `[M, C]`, integers, floats or bool.
      count: M.
      num_classes: C, or None.

    Raises:
      InputError: for anything else, or a label that no example has, or all have.
    """
    if len(labels) != count or not count or not labels.shape[1]:
        raise InputError(
            f"Indicators of labels must be [{count}, C], a row for each example, got {list(labels.shape)}."
        )
    if labels.shape[1] == 1:
        raise InputError(f"The labels are [{count}, 1]: one label an example is [{count}], labels[:, 0].")
    if num_classes not in (None, labels.shape[1]):
        raise InputError(f"num_classes is {num_classes}, and the indicators have {labels.shape[1]} columns.")
    is_number = labels.dtype.kind in "iufb"
    if not is_number or not np.isin(labels, (0, 1)).all():
        other = labels[~np.isin(labels, (0, 1))].flat[0] if is_number else labels.flat[0]
        raise InputError(
            f"Indicators of labels must be 0 or 1, whether an example has the label, got {other}."
        )
    indicators = labels.astype(np.int32)
    for number, what in ((0, "no example has"), (count, "every example has")):
        same = np.flatnonzero(indicators.sum(0) == number)
        if len(same):
            raise InputError(f"{what.capitalize()} the label of column {same[0]}: leave the column out.")
    if (indicators.sum(1) == 1).all():
        warnings.warn(
            "Every example has exactly one of the labels. If they exclude each other give labels.argmax(1): "
            "then the models know that.",
            stacklevel=4,
        )
    return indicators, labels.shape[1]


def make_standardization(
    inputs: np.ndarray, offset: np.ndarray | None = None, dtype: Any = np.float32
) -> Standardization:
    """Each channel, or each feature of vectors, to mean 0 and standard deviation 1 over the training set.

    Args:
      inputs: as training takes them.
      offset: what was taken from them, or None.
      dtype: type that they came in: what varies no more than its rounding is constant, and stays so.

    Raises:
      InputError: for numbers that are not finite, which only what is streamed can still have.
    """
    over = tuple(range(inputs.ndim - 1))
    scale = 255.0 if inputs.dtype == np.uint8 else 1.0
    # In parts: a copy of all in float64 would be eight times as large as bytes.
    starts = np.linspace(0, len(inputs), max(inputs.size // _AT_ONCE, 1) + 1).astype(int)
    parts = [slice(start, stop) for start, stop in itertools.pairwise(starts)]
    number = inputs.size // inputs.shape[-1]
    mean = sum(inputs[part].sum(over, dtype=np.float64) for part in parts) / number
    std = np.sqrt(sum(((inputs[part] - mean) ** 2).sum(over) for part in parts) / number)
    if not np.isfinite(mean + std).all():
        raise InputError("The inputs hold NaN or infinity.")
    mean, std = mean / scale, std / scale
    # What varies as rounding does says nothing, and must not be blown up.
    wide = np.issubdtype(dtype, np.floating) and np.dtype(dtype).itemsize > 4
    rounding = 8 * np.finfo(np.float64 if wide else np.float32).eps
    size = np.abs(mean if offset is None else mean + offset)
    std = np.where(std > np.maximum(rounding * size, np.finfo(np.float32).tiny), std, 1.0)
    return Standardization(mean.astype(np.float32), np.float32(1) / std.astype(np.float32))
