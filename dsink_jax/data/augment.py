"""Augmentations that run on the device, how they are put together, and how a training step calls them.

An augmentation is any function `(key, batch) -> batch` that keeps shape and dtype. What this file has works
on images; a function of one's own works on whatever the batch is made of, `[n, D]`, `[n, T, D]` or images:

    preprocess = lambda key, batch: batch + 0.1 * jax.random.normal(key, batch.shape)

Training calls it with each example apart, as a batch of one with a key of its own (`apply_to_each`). So it
cannot mix examples, and what it draws for an example does not depend on the batch the example is in.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from dsink_jax.data.rand_augment import rand_augment
from dsink_jax.errors import InputError

Preprocess = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, batch [n, ...]) -> batch` of the same shape and dtype. Hashable: compiled steps are kept by it."""

# Keys. Compose hands its example's key to all steps, and a class of this file folds its own number into it:
# so it draws the same alone and beside others, in any order (and what training has always drawn:
# fold_in(key, i) is split(key, n)[i], crops drew from the first and flips from the second of two). A step
# that has no number, or one that an earlier step had, gets a key by its position instead, because two steps
# with one key would draw alike. Only then is a key split for the rows of a batch: a batch of one keeps it.
_CROP, _FLIP, _CUTOUT, _RAND_AUGMENT = range(4)
_BY_POSITION = 1 << 16


class _ImageByImage:
    """Draws for each image apart. Subclasses define `_number`, which no two share, and `_one`."""

    _number: ClassVar[int]

    def __call__(self, key: jax.Array, batch: jax.Array) -> jax.Array:
        """Images `[n, H, W, channels]` of the same dtype, from one key."""
        if batch.ndim != 4:
            raise InputError(
                f"{type(self).__name__} takes images [n, H, W, channels], not {list(batch.shape)}. "
                "Leave it out, or write a function (key, batch) -> batch for what the batch is made of."
            )
        key = jax.random.fold_in(key, self._number)
        keys = key[None] if len(batch) == 1 else jax.random.split(key, len(batch))
        return jax.vmap(self._one)(keys, batch)

    def _one(self, key: jax.Array, image: jax.Array) -> jax.Array:
        raise NotImplementedError

    def _check(self, name: str, value: float, lowest: float, highest: float = float("inf")) -> None:
        if not lowest <= value <= highest:
            limits = f"at least {lowest}" if highest == float("inf") else f"from {lowest} to {highest}"
            raise InputError(f"{type(self).__name__}: {name} is {value}; it has to be {limits}.")


@dataclasses.dataclass(frozen=True)
class RandomCrop(_ImageByImage):
    """Zero pixels on every side, then a crop back to the old size, each place equally likely.

    Attributes:
      padding: how many on each side, at least 0.

    Raises:
      InputError: if it is less.
    """

    padding: int
    _number = _CROP

    def __post_init__(self):
        self._check("padding", self.padding, 0)

    def _one(self, key, image):
        pad = self.padding
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


@dataclasses.dataclass(frozen=True)
class RandomFlip(_ImageByImage):
    """Left to right with probability 1/2."""

    _number = _FLIP

    def _one(self, key, image):
        return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


@dataclasses.dataclass(frozen=True)
class Cutout(_ImageByImage):
    """A square of zeros (DeVries and Taylor, 2017, arXiv 1708.04552).

    Its centre is any pixel of the image, all equally likely; what lies over the border is cut off. An even
    square reaches one pixel further up and left of its centre. Zero is black here, where images are not
    normalized yet.

    Attributes:
      size: side of the square in pixels, at least 1.

    Raises:
      InputError: if it is less.
    """

    size: int
    _number = _CUTOUT

    def __post_init__(self):
        self._check("size", self.size, 1)

    def _one(self, key, image):
        height, width, _ = image.shape
        centre = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        top, left = centre - self.size // 2
        row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
        inside = (row >= top) & (row < top + self.size) & (column >= left) & (column < left + self.size)
        return jnp.where(inside[..., None], jnp.zeros((), image.dtype), image)


@dataclasses.dataclass(frozen=True)
class RandAugment(_ImageByImage):
    """Some of 14 operations one after the other, all equally strong (Cubuk et al., 2019, arXiv 1909.13719).

    Images are uint8, or floating in [0, 1], with 1 or 3 channels; see `dsink_jax.data.rand_augment`.

    Attributes:
      operations: how many, each drawn from all 14; at least 0.
      magnitude: how strong, in [0, 30].

    Raises:
      InputError: if one of them is outside its limits.
    """

    operations: int = 2
    magnitude: float = 9.0
    _number = _RAND_AUGMENT

    def __post_init__(self):
        self._check("operations", self.operations, 0)
        self._check("magnitude", self.magnitude, 0, 30)

    def _one(self, key, image):
        return rand_augment(key, image, self.operations, self.magnitude)


@dataclasses.dataclass(frozen=True)
class Compose:
    """One step after the other; each draws apart from the others. Without steps, the batch as it is.

    Attributes:
      steps: augmentations of this file, or functions of one's own.

    Raises:
      InputError: if a step cannot be called.
    """

    steps: tuple[Preprocess, ...]

    def __post_init__(self):
        object.__setattr__(self, "steps", tuple(self.steps))  # a list cannot be hashed
        for step in self.steps:
            if not callable(step) or isinstance(step, type):
                raise InputError(
                    f"Compose: {step!r} is no step. A step is a function (key, batch) -> batch, "
                    "such as RandomFlip() or one of your own."
                )

    def __call__(self, key: jax.Array, batch: jax.Array) -> jax.Array:
        """The batch after all steps."""
        used = set()
        for position, step in enumerate(self.steps):
            number = step._number if isinstance(step, _ImageByImage) else None
            alone = number is not None and number not in used
            used.add(number)
            batch = step(key if alone else jax.random.fold_in(key, _BY_POSITION + position), batch)
        return batch


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """One key per example, `[n]`, from its index in the training set.

    The draws of an example so depend on the key and the example alone: not on its place in the batch, the
    batch size or the number of devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def apply_to_each(preprocess: Preprocess, key: jax.Array, index: jax.Array, batch: jax.Array) -> jax.Array:
    """Calls `preprocess` with each example apart, as a batch of one with the example's own key.

    Args:
      preprocess: what to do.
      key: PRNG key of the step.
      index: int `[n]`, the examples' places in the training set.
      batch: `[n, ...]`, of any dtype.

    Returns:
      `[n, ...]`, of the same dtype. Each example's depends on it, its index and the key alone.

    Raises:
      InputError: if `preprocess` gives another shape or dtype.
    """

    def one(key, example):
        result = preprocess(key, example[None])
        if result.shape != (1, *example.shape) or result.dtype != example.dtype:
            raise InputError(
                f"preprocess made {result.dtype} {list(result.shape)} of {example.dtype} "
                f"{[1, *example.shape]}: it has to keep shape and dtype; `.astype(batch.dtype)` at its end "
                "does the latter."
            )
        return result[0]

    return jax.vmap(one)(example_keys(key, index), batch)


def normalize(inputs: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
    """`(inputs - mean) * scale`, float32; uint8 inputs are divided by 255 first, other integers are not.

    Args:
      inputs: `[..., D]`, of any real dtype.
      mean: float32 `[D]` or `[]`, on the scale 0..1 for uint8 inputs.
      scale: float32 `[D]` or `[]`, 1 / standard deviation.
    """
    values = inputs.astype(jnp.float32)
    if inputs.dtype == jnp.uint8:
        values = values / 255
    mean, scale = (
        jnp.reshape(jnp.asarray(one), (1,) * (values.ndim - jnp.ndim(one)) + jnp.shape(one))
        for one in (mean, scale)
    )
    return (values - mean) * scale
