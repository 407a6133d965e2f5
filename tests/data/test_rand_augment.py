"""RandAugment's operations against Pillow, and what it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dsink_jax.data import RandAugment, apply_to_each
from dsink_jax.data.rand_augment import OPERATIONS, apply_operation
from dsink_jax.errors import InputError

HEIGHT, WIDTH = 33, 40
LEVELS = (-1.0, -0.5, 0.25, 1.0)
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
BLENDS = ("brightness", "contrast", "color", "sharpness")


def affine(*matrix):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix)


def pillow(name, level):
    """The operation by Pillow; strengths are AutoAugment's, written out."""
    strength, factor = abs(level), 1 + 0.9 * level
    return {
        "identity": lambda image: image,
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "solarize": lambda image: ImageOps.solarize(image, 256 * (1 - strength)),
        "posterize": lambda image: ImageOps.posterize(image, 8 - round(4 * strength)),
        "rotate": lambda image: image.rotate(30 * level),
        "shear_x": affine(1, 0.3 * level, 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, 0.3 * level, 1, 0),
        "translate_x": affine(1, 0, level * 150 / 331 * WIDTH, 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, level * 150 / 331 * HEIGHT),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(factor),
        "color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
    }[name]


def photograph(channels):
    """Smooth shapes and noise, uneven histograms; values from 20 to 20 + 204, so that 255 / 204 is exact."""
    rng = np.random.default_rng(channels)
    row, column = np.mgrid[:HEIGHT, :WIDTH, :channels][:2]
    wave = np.sin(row / 7 + np.arange(channels)) * np.cos(column / 5) + rng.normal(0, 0.1, row.shape)
    low, high = wave.min((0, 1)), wave.max((0, 1))
    return np.rint(20 + 204 * ((wave - low) / (high - low)) ** 2).astype(np.uint8)


@jax.jit
def operate(image, operations, levels):
    return jax.vmap(apply_operation, (None, 0, 0))(image, operations, levels)


def by_pillow_and_here(name, channels, dtype):
    """Values 0..255, float64 `[len(LEVELS), H, W, channels]`, of both."""
    image = photograph(channels)
    expected = [pillow(name, level)(Image.fromarray(image.squeeze())) for level in LEVELS]
    expected = np.stack([np.asarray(one, np.float64).reshape(image.shape) for one in expected])
    operations = np.full(len(LEVELS), OPERATIONS.index(name))
    if dtype == np.uint8:
        return expected, np.asarray(operate(image, operations, jnp.array(LEVELS)), np.float64)
    found = operate(jnp.asarray(image, dtype) / 255, operations, jnp.array(LEVELS))
    return expected, np.asarray(found, np.float64) * 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_uint8_is_what_pillow_makes(name, channels):
    expected, found = by_pillow_and_here(name, channels, np.uint8)
    different = found != expected
    if name == "rotate":
        # Pillow counts in 65536ths of a pixel: one that comes from just beside a border may come from its
        # neighbour there.
        assert different.mean() < 0.002
    elif name in BLENDS:
        # Fractions are cut off, so the last bit of a product may decide between two neighbours.
        assert abs(found - expected).max() <= 1
        assert different.mean() < 0.002
    else:
        assert not different.any()


@pytest.mark.parametrize("name", OPERATIONS)
def test_floating_images_are_treated_as_uint8_but_not_rounded(name):
    expected, found = by_pillow_and_here(name, 3, np.float32)
    if name == "rotate":
        assert (abs(found - expected) > 1e-3).mean() < 0.002
    else:
        # Pillow cuts off a fraction (below 1); before, grey and smooth pixels are rounded (0.5, times 0.9).
        rounded = {"auto_contrast": 1, "brightness": 1, "contrast": 1.45, "color": 1.45, "sharpness": 1.45}
        assert abs(found - expected).max() <= rounded.get(name, 0) + 1e-3


def test_flat_and_tiny_images():
    for image in (np.full((6, 6, 3), 70, np.uint8), np.full((1, 1, 1), 200, np.uint8)):
        for name in ("auto_contrast", "equalize", "contrast", "color", "sharpness"):
            found = operate(image, np.array([OPERATIONS.index(name)]), jnp.array([0.7]))
            np.testing.assert_array_equal(found[0], image)


def nearest(results, candidates):
    """Position of the candidate that each result is, to one grey level."""
    distance = np.abs(results[:, None].astype(np.int16) - candidates[None]).max((2, 3, 4))
    assert distance.min(1).max() <= 1
    return distance.argmin(1)


def test_every_operation_is_drawn_equally_often_with_both_signs():
    image, total, level = photograph(3)[::2, ::2], 700, 0.6
    draws = jax.jit(lambda key, index, batch: apply_to_each(RandAugment(1, 30 * level), key, index, batch))
    results = np.asarray(draws(jax.random.key(0), np.arange(total), np.repeat(image[None], total, 0)))
    operations = np.repeat(np.arange(14), 2)
    candidates = np.asarray(operate(image, operations, jnp.tile(jnp.array([level, -level]), 14)))
    counts = np.bincount(nearest(results, candidates), minlength=28).reshape(14, 2)
    spread = 5 * np.sqrt(total / 14)  # five standard deviations
    assert abs(counts.sum(1) - total / 14).max() < spread
    directed = [OPERATIONS.index(name) for name in (*MOVES, *BLENDS)]
    assert counts[directed].min() > 3  # of 25 each


def test_operations_follow_one_another():
    image, level = photograph(3)[::2, ::2], 0.6
    operations, levels = np.repeat(np.arange(14), 2), jnp.tile(jnp.array([level, -level]), 14)
    once = operate(image, operations, levels)
    twice = np.asarray(jax.vmap(operate, (0, None, None))(once, operations, levels)).reshape(-1, *image.shape)
    batch = np.repeat(image[None], 40, 0)
    results = np.asarray(apply_to_each(RandAugment(2, 30 * level), jax.random.key(1), np.arange(40), batch))
    # Draws of 28 * 28 pairs, some of which give the same image.
    assert len(set(nearest(results, twice).tolist())) > 25
    none = apply_to_each(RandAugment(0), jax.random.key(1), np.arange(40), batch)
    np.testing.assert_array_equal(none, batch)


def test_errors_say_what_is_expected():
    with pytest.raises(InputError, match=r"magnitude is 31; it has to be from 0 to 30"):
        RandAugment(2, 31)
    with pytest.raises(InputError, match="operations is -1"):
        RandAugment(-1)
    key = jax.random.key(0)
    with pytest.raises(InputError, match="1 or 3 channels"):
        RandAugment()(key, jnp.zeros((2, 4, 4, 2)))
    with pytest.raises(InputError, match="uint8, or floating"):
        RandAugment()(key, jnp.zeros((2, 4, 4, 3), jnp.int32))
    with pytest.raises(InputError, match="takes images"):
        RandAugment()(key, jnp.zeros((2, 4)))
