import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.data.augment import (
    Compose,
    Cutout,
    RandAugment,
    RandomCrop,
    RandomFlip,
    apply_to_each,
    example_keys,
    normalize,
)
from dsink_jax.errors import InputError

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


step = functools.partial(jax.jit, static_argnums=0)(apply_to_each)


def run(preprocess, images, index=None, seed=0):
    index = np.arange(len(images)) if index is None else index
    return np.asarray(step(preprocess, jax.random.key(seed), index, images))


def unchanged(key, batch):
    return batch


def noise(key, batch):
    return batch + 0.1 * jax.random.normal(key, batch.shape)


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
    counts = tally(run(RandomCrop(pad), images), crops(images[0], pad))
    assert len(counts) == (2 * pad + 1) ** 2
    assert_equally_likely(counts)


def test_flip_mirrors_left_to_right_half_of_the_time():
    images = numbered(4000, 4, 5, 3, np.uint8)
    candidates = {"kept": images[0], "mirrored": np.ascontiguousarray(images[0][:, ::-1])}
    assert_equally_likely(tally(run(RandomFlip(), images), candidates))


def test_flip_does_not_depend_on_the_crop():
    images = numbered(8000, 4, 4, 1, np.uint8)
    candidates = {
        (offset, flipped): np.ascontiguousarray(crop[:, ::-1] if flipped else crop)
        for offset, crop in crops(images[0], 1).items()
        for flipped in (False, True)
    }
    assert_equally_likely(tally(run(Compose((RandomCrop(1), RandomFlip())), images), candidates))


def test_cutout_is_a_square_around_any_pixel_cut_off_at_the_border():
    height, width, size = 5, 6, 3
    images = numbered(8000, height, width, 2, np.uint8)
    candidates = {}
    for row, column in itertools.product(range(height), range(width)):
        image = images[0].copy()
        image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
        candidates[row, column] = image
    assert_equally_likely(tally(run(Cutout(size), images), candidates))
    assert set(run(Cutout(2), images[:50]).astype(bool).sum((1, 2, 3)).tolist()) == {
        52,
        56,
        58,
    }  # 60 - 2 * 4, 2, 1
    assert not run(Cutout(20), images[:50]).any()


def test_crops_and_flips_draw_from_the_first_and_second_half_of_the_key():
    # What trained models were trained with: it may not change, alone or together, in either order.
    images, pad = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8), 2
    cropped, flipped, both = [], [], []
    for key, image in zip(example_keys(jax.random.key(0), jnp.arange(20)), images, strict=True):
        crop_key, flip_key = jax.random.split(key)
        crop = crops(image, pad)[tuple(jax.random.randint(crop_key, (2,), 0, 2 * pad + 1).tolist())]
        mirror = slice(None, None, -1 if jax.random.bernoulli(flip_key) else 1)
        cropped.append(crop)
        flipped.append(image[:, mirror])
        both.append(crop[:, mirror])
    crop, flip = RandomCrop(pad), RandomFlip()
    for preprocess, expected in [(crop, cropped), (flip, flipped), (Compose((crop, flip)), both)]:
        np.testing.assert_array_equal(run(preprocess, images), expected)
    np.testing.assert_array_equal(run(Compose((flip,)), images), flipped)
    np.testing.assert_array_equal(run(Compose((unchanged, crop)), images), cropped)


@pytest.mark.parametrize("steps", [(noise, noise), (noise, Compose((noise,))), (Compose((noise,)),) * 2])
def test_equal_steps_draw_apart(steps):
    one, two = run(Compose(steps[:1]), np.zeros((3, 50))), run(Compose(steps), np.zeros((3, 50)))
    assert (abs(two - 2 * one) > 0.01).mean() > 0.8
    flip = RandomFlip()
    images = numbered(64, 2, 2, 1, np.uint8)
    for steps in [(flip, flip), (flip, Compose((flip,)))]:
        assert 16 < (run(Compose(steps), images) != images).any((1, 2, 3)).sum() < 48


def test_a_batch_with_one_key_draws_for_each_image_apart():
    images = numbered(64, 8, 8, 1, np.uint8)
    for preprocess in (RandomCrop(4), Cutout(3), Compose((RandomFlip(), RandomCrop(4)))):
        results = np.asarray(preprocess(jax.random.key(0), images))
        assert 20 < len({result.tobytes() for result in results}) < 64


@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 4, 3)])
def test_a_function_of_ones_own_works_on_any_batch(shape):
    batch = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    index = np.array([4, 1, 9, 0, 2, 3])
    keys = example_keys(jax.random.key(0), index)
    expected = [
        one + 0.1 * np.asarray(jax.random.normal(key, (1, *shape)))[0]
        for key, one in zip(keys, batch, strict=True)
    ]
    np.testing.assert_allclose(run(noise, batch, index), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run(noise, batch[2:4], index[2:4]), run(noise, batch, index)[2:4])


def test_errors_say_what_is_expected():
    with pytest.raises(InputError, match=r"made float32 \[1, 4\] of uint8 \[1, 4\].*astype"):
        run(noise, np.zeros((2, 4), np.uint8))
    with pytest.raises(InputError, match="keep shape"):
        run(lambda key, batch: batch[:, :2], np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"RandomCrop takes images \[n, H, W, channels\], not \[1, 4\]"):
        run(RandomCrop(1), np.zeros((2, 4)))
    with pytest.raises(InputError, match="padding is -1; it has to be at least 0"):
        RandomCrop(-1)
    with pytest.raises(InputError, match="size is 0"):
        Cutout(0)
    with pytest.raises(InputError, match="is no step"):
        Compose((RandomFlip,))


@pytest.mark.slow
@pytest.mark.parametrize(
    "preprocess",
    [
        Compose((RandomCrop(2), RandomFlip())),
        Compose((RandAugment(), RandomFlip(), Cutout(2), RandAugment())),
    ],
)
def test_draws_depend_on_key_and_example_alone(preprocess):
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 17, 3), dtype=np.uint8)
    index = np.random.default_rng(1).permutation(1000)[:32]
    together = run(preprocess, images, index)
    # The same again; in another order; in smaller batches; alone.
    np.testing.assert_array_equal(run(preprocess, images, index), together)
    order = np.random.default_rng(2).permutation(32)
    np.testing.assert_array_equal(run(preprocess, images[order], index[order]), together[order])
    halves = [run(preprocess, images[half], index[half]) for half in (slice(16), slice(16, 32))]
    np.testing.assert_array_equal(np.concatenate(halves), together)
    np.testing.assert_array_equal(run(preprocess, images[5:6], index[5:6]), together[5:6])
    # Another key or other examples, other draws.
    assert (run(preprocess, images, index, seed=1) != together).any()
    assert (run(preprocess, images, index + 1) != together).any()


def test_equal_images_are_augmented_apart():
    results = run(RandomCrop(4), numbered(64, 8, 8, 1, np.uint8))
    # 64 draws of 81 offsets give 81 * (1 - (80 / 81)^64) = 44 different ones on average.
    assert 25 < len({result.tobytes() for result in results}) < 64


def test_example_keys_differ_and_do_not_depend_on_the_batch():
    keys = np.asarray(jax.random.key_data(example_keys(jax.random.key(3), np.arange(500))))
    assert len({key.tobytes() for key in keys}) == 500
    some = example_keys(jax.random.key(3), np.array([7, 499, 7]))
    np.testing.assert_array_equal(jax.random.key_data(some), keys[[7, 499, 7]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "preprocess",
    [Compose(()), RandomCrop(1), RandomFlip(), Cutout(2), RandAugment(), Compose([RandAugment(3, 30)])],
)
def test_type_shape_and_range_stay_and_steps_are_hashable(preprocess, dtype):
    top = 255 if dtype == np.uint8 else 1
    images = jnp.asarray(np.random.default_rng(0).uniform(0, top, (20, 5, 6, 3))).astype(dtype)
    result = run(preprocess, images)
    assert (result.dtype, result.shape) == (jnp.dtype(dtype), images.shape)
    assert 0 <= result.astype(np.float32).min() <= result.astype(np.float32).max() <= top
    assert hash(preprocess) == hash(dataclasses.replace(preprocess))
    assert preprocess == dataclasses.replace(preprocess)


def test_without_steps_nothing_changes():
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(run(Compose(()), images), images)
    np.testing.assert_array_equal(run(RandomCrop(0), images), images)


def test_normalize_uint8_by_hand():
    images = np.array([0, 51, 255, 102], np.uint8).reshape(1, 2, 1, 2)
    # Channel 0: (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25; channel 1: (0.2 - 0.4) / 0.5 and (0.4 - 0.4) / 0.5.
    result = normalize(jnp.asarray(images), jnp.array([0.5, 0.4]), jnp.array([4.0, 2.0]))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result.ravel(), [-2.0, -0.4, 2.0, 0.0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_normalize_float_by_hand(dtype):
    # Floats are on the scale of the mean already: nothing is divided by 255.
    images = jnp.array([0.0, 8.0, 16.0, 4.0], dtype).reshape(1, 2, 1, 2)
    result = normalize(images, jnp.array([8.0, 4.0]), jnp.array([0.25, 0.5]))
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result.ravel(), [-2.0, 2.0, 2.0, 0.0])


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint16])
def test_integers_that_are_no_uint8_images_keep_their_scale(dtype):
    table = np.array([[3, 100, 7], [1, 50, 9]], dtype)
    result = normalize(jnp.asarray(table), jnp.array([2.0, 50.0, 0.0]), jnp.array([1.0, 0.5, 2.0]))
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, [[1.0, 25.0, 14.0], [-1.0, 0.0, 18.0]])


def test_normalized_images_have_mean_0_and_deviation_1():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    scaled = images / 255
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    result = np.asarray(normalize(jnp.asarray(images), jnp.asarray(mean), jnp.asarray(1 / std)), np.float64)
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-6)


def test_crop_of_uint8_then_normalize_pads_with_black():
    # Padding comes before normalization: it is a black pixel, not the mean colour.
    white = np.full((200, 4, 4, 1), 255, np.uint8)
    result = np.asarray(normalize(run(RandomCrop(2), white), jnp.float32(0.5), jnp.float32(4)))
    assert set(np.unique(result).tolist()) == {-2.0, 2.0}
