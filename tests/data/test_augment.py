import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.data.augment import Augmentation, augment, example_keys, normalise

SIGMAS = 5.0  # of a binomial: about one draw in two million falls outside


def numbered(count, height, width, channels, dtype):
    """Images in which no two pixels are alike, and none is 0, the value of the padding."""
    image = 1 + np.arange(height * width * channels).reshape(height, width, channels)
    return np.repeat(image[None], count, axis=0).astype(dtype)


def crops(image, pad):
    """All (2 pad + 1)^2 crops of a zero-padded image, by their offset, cut with NumPy."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), image.dtype)
    padded[pad : pad + height, pad : pad + width] = image
    return {
        (top, left): padded[top : top + height, left : left + width]
        for top, left in itertools.product(range(2 * pad + 1), repeat=2)
    }


@functools.partial(jax.jit, static_argnums=0)
def step(augmentation, key, index, images):
    return augment(augmentation, example_keys(key, index), images)


def run(augmentation, images, index=None, seed=0):
    index = np.arange(len(images)) if index is None else index
    return np.asarray(step(augmentation, jax.random.key(seed), index, images))


def tally(results, candidates):
    """How often each candidate occurs; every result must be one of them."""
    names = {candidate.tobytes(): name for name, candidate in candidates.items()}
    assert len(names) == len(candidates)
    counts = dict.fromkeys(candidates, 0)
    for result in results:
        counts[names[result.tobytes()]] += 1
    return counts


def assert_equally_likely(counts):
    total, share = sum(counts.values()), 1 / len(counts)
    deviation = math.sqrt(total * share * (1 - share))
    assert min(counts.values()) > 0
    assert max(abs(count - total * share) for count in counts.values()) <= SIGMAS * deviation


@pytest.mark.parametrize(("pad", "height", "width", "channels"), [(1, 8, 8, 1), (2, 5, 7, 3), (4, 6, 6, 3)])
def test_crop_is_one_of_all_crops_and_all_occur(pad, height, width, channels):
    images = numbered(8000, height, width, channels, np.uint8 if channels == 1 else np.float32)
    counts = tally(run(Augmentation(crop_padding=pad), images), crops(images[0], pad))
    assert len(counts) == (2 * pad + 1) ** 2
    assert_equally_likely(counts)


def test_flip_mirrors_left_to_right_half_of_the_time():
    images = numbered(4000, 4, 5, 3, np.uint8)
    candidates = {"kept": images[0], "mirrored": np.ascontiguousarray(images[0][:, ::-1])}
    assert_equally_likely(tally(run(Augmentation(flip=True), images), candidates))


def test_flip_does_not_depend_on_the_crop():
    images = numbered(8000, 4, 4, 1, np.uint8)
    candidates = {
        (offset, flipped): np.ascontiguousarray(crop[:, ::-1] if flipped else crop)
        for offset, crop in crops(images[0], 1).items()
        for flipped in (False, True)
    }
    assert_equally_likely(tally(run(Augmentation(crop_padding=1, flip=True), images), candidates))


def test_draws_depend_on_key_and_example_alone():
    augmentation = Augmentation(crop_padding=2, flip=True)
    images = np.random.default_rng(0).integers(0, 256, (32, 6, 6, 3), dtype=np.uint8)
    index = np.random.default_rng(1).permutation(1000)[:32]
    together = run(augmentation, images, index)
    # The same again; in another order; in smaller batches; alone.
    np.testing.assert_array_equal(run(augmentation, images, index), together)
    order = np.random.default_rng(2).permutation(32)
    np.testing.assert_array_equal(run(augmentation, images[order], index[order]), together[order])
    halves = [run(augmentation, images[half], index[half]) for half in (slice(16), slice(16, 32))]
    np.testing.assert_array_equal(np.concatenate(halves), together)
    np.testing.assert_array_equal(run(augmentation, images[5:6], index[5:6]), together[5:6])
    # Another key or other examples, other draws.
    assert (run(augmentation, images, index, seed=1) != together).any()
    assert (run(augmentation, images, index + 1) != together).any()


def test_equal_images_are_augmented_apart():
    results = run(Augmentation(crop_padding=4), numbered(64, 8, 8, 1, np.uint8))
    # 64 draws of 81 offsets give 81 * (1 - (80 / 81)^64) = 44 different ones on average.
    assert 25 < len({result.tobytes() for result in results}) < 64


def test_example_keys_differ_and_do_not_depend_on_the_batch():
    keys = np.asarray(jax.random.key_data(example_keys(jax.random.key(3), np.arange(500))))
    assert len({key.tobytes() for key in keys}) == 500
    some = example_keys(jax.random.key(3), np.array([7, 499, 7]))
    np.testing.assert_array_equal(jax.random.key_data(some), keys[[7, 499, 7]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(crop_padding=1), Augmentation(crop_padding=1, flip=True)]
)
def test_type_and_shape_stay(augmentation, dtype):
    images = jnp.asarray(numbered(4, 5, 6, 2, np.uint8)).astype(dtype)
    result = augment(augmentation, example_keys(jax.random.key(0), jnp.arange(4)), images)
    assert (result.dtype, result.shape) == (jnp.dtype(dtype), (4, 5, 6, 2))


def test_off_is_the_identity():
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(run(Augmentation(), images), images)
    assert Augmentation() == Augmentation(crop_padding=0, flip=False)


def test_normalise_uint8_by_hand():
    images = np.array([0, 51, 255, 102], np.uint8).reshape(1, 2, 1, 2)
    # Channel 0: (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25; channel 1: (0.2 - 0.4) / 0.5 and (0.4 - 0.4) / 0.5.
    result = normalise(jnp.asarray(images), (0.5, 0.4), (0.25, 0.5))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.ravel(), [-2.0, -0.4, 2.0, 0.0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_normalise_float_by_hand(dtype):
    # Floats are on the scale of the mean already: nothing is divided by 255.
    images = jnp.array([0.0, 8.0, 16.0, 4.0], dtype).reshape(1, 2, 1, 2)
    result = normalise(images, (8.0, 4.0), (4.0, 2.0))
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result.ravel(), [-2.0, 2.0, 2.0, 0.0])


def test_normalised_images_have_mean_0_and_deviation_1():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    scaled = images / 255
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    result = np.asarray(normalise(jnp.asarray(images), tuple(mean), tuple(std)), np.float64)
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-6)


def test_crop_of_uint8_then_normalise_pads_with_black():
    # Padding comes before normalisation: it is a black pixel, not the mean colour.
    white = np.full((200, 4, 4, 1), 255, np.uint8)
    result = np.asarray(normalise(jnp.asarray(run(Augmentation(crop_padding=2), white)), (0.5,), (0.25,)))
    assert set(np.unique(result).tolist()) == {-2.0, 2.0}
