"""Corrupted sets as vectors: digits by their pixels, CIFAR-10 by features learned without labels.

And what most people would train on them first.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dsink_jax.data import load
from dsink_jax.evaluation import class_groups
from experiments.config import CIFAR
from experiments.dataset import read_or_draw
from experiments.patch_features import learn_patch_encoder
from experiments.study.budgets import Setting


class Task(NamedTuple):
    """Examples whose true labels are known.

    Attributes:
      features: float32 `[M, D]`.
      given: int `[M]`, observed labels.
      true: int `[M]`.
      test_features: float32 `[T, D]` of the balanced test set; None if it was not asked for.
      test_labels: int `[T]`.
    """

    features: np.ndarray
    given: np.ndarray
    true: np.ndarray
    test_features: np.ndarray | None = None
    test_labels: np.ndarray | None = None

    @property
    def rare(self) -> np.ndarray:
        """The rarest third of the classes; none where all are of one size."""
        counts = np.bincount(self.true)
        return np.zeros(0, int) if counts.min() == counts.max() else np.asarray(class_groups(counts).few)

    @property
    def tail(self) -> np.ndarray:
        """Bool `[M]`, examples that are of, or are given, one of the rarest third of the classes."""
        return np.isin(self.true, self.rare) | np.isin(self.given, self.rare)


def make_task(setting: Setting, seed: int, data_dir: pathlib.Path | None, *, test: bool = False) -> Task:
    """Draws a corrupted set.

    Args:
      setting: which.
      seed: of the corrupted set and of the features.
      data_dir: where CIFAR-10 is.
      test: whether the test set is wanted too.
    """
    data, drawn = _draw(setting, seed, data_dir)
    images = data.train.images[drawn.index]
    encode = _pixels if data.name == "digits" else learn_patch_encoder(images, seed=seed)
    held = (encode(data.test.images), data.test.labels) if test else (None, None)
    return Task(encode(images), drawn.noisy_labels, drawn.clean_labels, *held)


def check_data(settings: Iterable[Setting], data_dir: pathlib.Path) -> None:
    """Draws every corrupted set once, so that what is missing is named before any training.

    Raises:
      InputError: if the images or the human labels are not in `data_dir`.
    """
    for setting in settings:
        _draw(setting, 0, data_dir)


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, class_weight: str | None = None
) -> Pipeline:
    """scikit-learn's, on standardised features, with as many iterations as most people would give it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, class_weight=class_weight))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def _draw(setting, seed, data_dir):
    config = dataclasses.replace(CIFAR, data_dir=data_dir, data_seed=seed, **setting.changes)
    data = load(config.dataset, data_dir)
    return data, read_or_draw(config, data)


def _pixels(images):
    return images.reshape(len(images), -1).astype(np.float32)
