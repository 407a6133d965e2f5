"""What the examples of this folder train on: digits with a long tail and wrong labels."""

from typing import NamedTuple

import numpy as np

from dsink_jax import data


class Digits(NamedTuple):
    """544 training images, ten times as many zeros as nines, 36 % mislabelled; 400 clean ones for the test.

    Attributes:
      features: float32 `[544, 64]`, pixels in [-1, 1).
      labels: int32 `[544]`, observed labels.
      test_features: float32 `[400, 64]`.
      test_labels: int `[400]`, true labels, 40 of each class.
      class_prior: float32 `[10]`, share of each class by observed label.
    """

    features: np.ndarray
    labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    class_prior: np.ndarray


def load(seed: int = 0) -> Digits:
    """Draws the corrupted set."""
    clean = data.load("digits")
    corruption = data.corrupt(
        clean.train.labels, 10, imbalance_ratio=10, noise="symmetric", noise_rate=0.4, data_seed=seed
    )
    prior = corruption.noisy_counts / corruption.noisy_counts.sum()
    return Digits(
        features=_features(clean.train.images[corruption.index]),
        labels=corruption.noisy_labels,
        test_features=_features(clean.test.images),
        test_labels=clean.test.labels,
        class_prior=prior.astype(np.float32),
    )


def batches(num_examples: int, epochs: int, batch_size: int = 136, seed: int = 0):
    """Yields the positions of each batch, in a new order every epoch; the last of an epoch may be smaller."""
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(num_examples)
        for start in range(0, num_examples, batch_size):
            yield order[start : start + batch_size]


def _features(images):
    return images.reshape(len(images), -1).astype(np.float32) / 128 - 1
