"""Images read one at a time from a folder of TensorFlow Datasets are those that are read all at once."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from dsink_jax.data import cifar_tfds, load
from experiments.config import CIFAR
from experiments.dataset import load_dataset
from experiments.run_directory import RunDirectory

pytestmark = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR is not set: no real CIFAR here"
)


@pytest.mark.slow
def test_lazy_cifar_is_cifar(cpus, tmp_path):
    whole, lazy = load("cifar10"), load("cifar10", lazy=True)
    images = lazy.train.images
    assert isinstance(images, cifar_tfds.PreparedImages)
    assert (images.shape, images.dtype, len(images)) == (whole.train.images.shape, np.uint8, 50_000)
    for position in (0, 1, 777, 49_999):
        np.testing.assert_array_equal(images[position], whole.train.images[position])
    np.testing.assert_array_equal(lazy.train.labels, whole.train.labels)
    np.testing.assert_array_equal(lazy.test.images, whole.test.images)
    # As a run has them: long tail and noise drawn alike, images streamed from disk.
    config = dataclasses.replace(CIFAR, streaming="on", limit_train=1000, run_dir=tmp_path / "run")
    with RunDirectory(config) as directory:
        streamed = load_dataset(config, directory, cpus[:1])
        resident = load_dataset(dataclasses.replace(config, streaming="off"), directory, cpus[:1])
    assert streamed.streams and not resident.streams
    np.testing.assert_array_equal(streamed.corruption.index, resident.corruption.index)
    for position in (0, len(streamed.images) - 1):
        np.testing.assert_array_equal(streamed.images[position], resident.images[position])


def test_missing_split_is_said():
    folder = cifar_tfds.find_prepared("cifar10", pathlib.Path(os.environ["TFDS_DATA_DIR"]))
    with pytest.raises(ValueError, match="is no intact TensorFlow Datasets folder"):
        cifar_tfds.PreparedImages(folder, "validation")
