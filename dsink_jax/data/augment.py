"""Augmentation on the device: pure functions of a batch and one PRNG key per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Augmentation(NamedTuple):
    """What to do to each training image.

    Attributes:
      crop_padding: zero pixels added on every side before a crop back to the old size; 0 for no crop.
      flip: whether to mirror left to right with probability 1/2.
    """

    crop_padding: int = 0
    flip: bool = False


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """One key per example, `[n]`, from its index in the training set.

    The draws of an example so depend on the key and the example alone: not on its place in the batch, the
    batch size or the number of devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def augment(augmentation: Augmentation, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Crops and flips images `[n, H, W, channels]` of any dtype, with one key each `[n]`."""
    if augmentation.crop_padding == 0 and not augmentation.flip:
        return images
    return jax.vmap(lambda key, image: _augment_one(augmentation, key, image))(keys, images)


def _augment_one(augmentation, key, image):
    crop_key, flip_key = jax.random.split(key)
    if augmentation.crop_padding:
        pad = augmentation.crop_padding
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
    if augmentation.flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return image


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """(images - mean) / std per channel, float32; uint8 images are put on the scale 0..1 first."""
    scale = 255.0 if images.dtype == jnp.uint8 else 1.0
    return (images.astype(jnp.float32) / scale - jnp.asarray(mean)) / jnp.asarray(std)
