"""Vectors around one centre for each class, and a small network that takes anything."""

import flax.linen as nn
import numpy as np

from dsink_jax.data import corrupt


def blobs(count, seed, num_classes=4, dimensions=8):
    """Vectors around one centre for each class, and their classes."""
    centres = np.random.default_rng(0).normal(size=(num_classes, dimensions)) * 2
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    return centres[labels] + rng.normal(size=(count, dimensions)), labels


def corrupted_blobs():
    """Some of 400, long-tailed, with two labels of five drawn anew."""
    vectors, labels = blobs(400, seed=1)
    drawn = corrupt(labels, 4, imbalance_ratio=5, noise="symmetric", noise_rate=0.4, data_seed=0)
    return vectors[drawn.index].astype(np.float32), drawn.noisy_labels


def quarters(count, seed):
    """Bytes [M, 8, 8, 1] of images that are bright in one quarter, and which."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = rng.integers(0, 60, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return images.astype(np.uint8), labels


class WithDropout(nn.Module):
    """Batch statistics and dropout; of its inputs, which may have any rank, it knows nothing."""

    num_classes: int = 4
    width: int = 12

    @nn.compact
    def __call__(self, inputs, train):
        x = nn.Dense(self.width)(inputs.reshape(len(inputs), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.8)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)
