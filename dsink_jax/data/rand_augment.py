"""The operations of RandAugment on one image, as a pure function that runs on the device.

All of an image's operations have one strength M in [0, 30]; the `level` of an operation is M / 30 with a
random sign. At level 1 it is as strong as AutoAugment ever has it (Cubuk et al., 2019, arXiv 1805.09501,
table 6). uint8 images come out as Pillow has them, whose functions the paper used.

Under `vmap` every branch of a `lax.switch` is computed. So operations are gathered into six kinds and a
choice of kind: all five that move pixels are one look-up with another matrix, and all four that strengthen
or weaken something mix the image with another one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.errors import InputError

MAX_MAGNITUDE = 30.0

OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalize",
    "solarize",
    "posterize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "brightness",
    "contrast",
    "color",
    "sharpness",
)
_FIRST_MOVE, _FIRST_BLEND = OPERATIONS.index("rotate"), OPERATIONS.index("brightness")
# Which of the six kinds (identity, auto_contrast, equalize, solarize and posterize, moves, blends) each is.
_KIND = np.array([0, 1, 2, 3, 3] + [4] * 5 + [5] * 4)

# At level 1, from AutoAugment's table 6.
_DEGREES = 30.0
_SHEAR = 0.3
_TRANSLATION = 150 / 331  # of the image's width or height
_BLEND = 0.9  # factor 1 - 0.9 to 1 + 0.9
_BITS_LOST = 4.0


def rand_augment(key: jax.Array, image: jax.Array, operations: int, magnitude: float) -> jax.Array:
    """Draws operations, with replacement and a random sign each, and applies them one after the other.

    Args:
      key: PRNG key.
      image: uint8, or floating in [0, 1], `[H, W, 1]` or `[H, W, 3]`.
      operations: how many.
      magnitude: their strength M, in [0, 30].

    Returns:
      An image of the same shape and dtype.

    Raises:
      InputError: if the image is of another dtype or has other channels.
    """

    def one(image, key):
        which, sign = jax.random.split(key)
        operation = jax.random.randint(which, (), 0, len(OPERATIONS))
        level = jnp.where(jax.random.bernoulli(sign), 1.0, -1.0) * (magnitude / MAX_MAGNITUDE)
        return apply_operation(image, operation, level), None

    return jax.lax.scan(one, image, jax.random.split(key, operations))[0]


def apply_operation(image: jax.Array, operation: jax.Array, level: jax.Array) -> jax.Array:
    """One operation on one image.

    Args:
      image: uint8, or floating in [0, 1], `[H, W, 1]` or `[H, W, 3]`; floating values outside are clipped.
      operation: int, position in `OPERATIONS`.
      level: float in [-1, 1]. The sign is the direction; what has no direction takes the absolute value, or
        does not depend on it at all (identity, auto_contrast, equalize).

    Returns:
      An image of the same shape and dtype. Moved pixels are those nearest, and black comes in from outside.
      Colour is the identity for one channel.

    Raises:
      InputError: if the image is of another dtype or has other channels.
    """
    dtype = image.dtype
    if dtype != jnp.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"RandAugment takes images in uint8, or floating in [0, 1], not {dtype}. Convert them."
        )
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise InputError(f"RandAugment takes images with 1 or 3 channels, not {list(image.shape)}.")
    top = 255.0 if dtype == jnp.uint8 else 1.0
    values = jnp.clip(image.astype(jnp.float32), 0, top)
    strength = jnp.abs(level)
    kinds = (
        values,
        _auto_contrast(values, top),
        _equalize(values, top),
        jnp.where(
            operation == OPERATIONS.index("solarize"),
            _solarize(values, strength, top),
            _posterize(values, strength, top),
        ),
        _move(values, operation, level),
        _blend(values, operation, level, top),
    )
    result = jnp.clip(jax.lax.select_n(jnp.asarray(_KIND)[operation], *kinds), 0, top)
    return (jnp.floor(result) if top == 255 else result).astype(dtype)


def _auto_contrast(values, top):
    """Each channel stretched over the whole range; as it is where it has one value only."""
    low, high = values.min((0, 1)), values.max((0, 1))
    return jnp.where(high > low, (values - low) * top / jnp.where(high > low, high - low, 1), values)


def _equalize(values, top):
    """Each channel's histogram made even, by Pillow's rule with 256 bins, in whole numbers."""
    bins = jnp.round(values * (255 / top)).astype(jnp.int32)
    channel = jnp.arange(values.shape[-1])
    counts = jnp.zeros((len(channel), 256), jnp.int32).at[channel, bins].add(1)
    below = jnp.cumsum(counts, -1) - counts
    step = below[channel, bins.max((0, 1))] // 255  # of the pixels below the highest bin in use
    table = jnp.minimum((below + step[:, None] // 2) // jnp.maximum(step, 1)[:, None], 255)
    return jnp.where(step > 0, table[channel, bins] * (top / 255), values)


def _solarize(values, strength, top):
    """What is not below a threshold is inverted; it falls from 256 to 0."""
    threshold = 256 * (1 - strength)
    return jnp.where(values * (255 / top) >= threshold, top - values, values)


def _posterize(values, strength, top):
    """Only the first 8 to 4 of the 8 bits are kept."""
    size = jnp.exp2(jnp.round(_BITS_LOST * strength))
    return jnp.floor(jnp.round(values * (255 / top)) / size) * size * (top / 255)


def _move(values, operation, level):
    """Rotation about the centre, shear along one axis from the other one, or translation."""
    height, width, _ = values.shape
    radians = level * np.deg2rad(_DEGREES)
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    shear, zero, one = level * _SHEAR, jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    # Where the pixel at (x, y) comes from: (a x + b y + c, d x + e y + f), in the order of OPERATIONS.
    x, y = width / 2, height / 2
    matrices = jnp.array(
        [
            [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y],
            [one, shear, zero, zero, one, zero],
            [one, zero, zero, shear, one, zero],
            [one, zero, level * _TRANSLATION * width, zero, one, zero],
            [one, zero, zero, zero, one, level * _TRANSLATION * height],
        ]
    )
    a, b, c, d, e, f = matrices[jnp.clip(operation - _FIRST_MOVE, 0, len(matrices) - 1)]
    row, column = (
        jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5,
        jnp.arange(width, dtype=jnp.float32)[None] + 0.5,
    )
    from_column = jnp.floor(a * column + b * row + c).astype(jnp.int32)
    from_row = jnp.floor(d * column + e * row + f).astype(jnp.int32)
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    place = jnp.clip(from_row, 0, height - 1) * width + jnp.clip(from_column, 0, width - 1)
    return jnp.where(inside[..., None], values.reshape(height * width, -1)[place], 0)


def _blend(values, operation, level, top):
    """The image mixed with black, its mean grey, its grey or its smooth self; a factor over 1 leads away."""

    def whole(values):
        return jnp.floor(values + 0.5) if top == 255 else values

    grey = values
    if values.shape[-1] == 3:
        # Pillow's weights, ITU-R 601 in 65536ths.
        red, green, blue = (values[..., i : i + 1] for i in range(3))
        grey = whole((19595 * red + 38470 * green + 7471 * blue) / 65536)
    others = (jnp.zeros_like(values), whole(grey.mean()), grey, whole(_smooth(values)))
    which = jnp.clip(operation - _FIRST_BLEND, 0, len(others) - 1)
    other = jax.lax.select_n(which, *(jnp.broadcast_to(other, values.shape) for other in others))
    return other + (1 + _BLEND * level) * (values - other)


def _smooth(values):
    """Mean of 3 x 3 pixels, the middle one 5 times; pixels at the border stay."""
    height, width, _ = values.shape
    if height < 3 or width < 3:
        return values
    total = sum(
        values[i : height - 2 + i, j : width - 2 + j] * (5 if i == j == 1 else 1)
        for i in range(3)
        for j in range(3)
    )
    return values.at[1:-1, 1:-1].set(total / 13)
