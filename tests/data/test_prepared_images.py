"""Folders of TensorFlow Datasets: read all at once, or image by image."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest

from dsink_jax.data import cifar_tfds, load
from experiments.config import CIFAR
from experiments.dataset import load_dataset
from experiments.run_directory import RunDirectory

REAL_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")
needs_real_cifar = pytest.mark.skipif(
    not REAL_DATA_DIR, reason="TFDS_DATA_DIR is not set: no real CIFAR here"
)


@pytest.fixture(params=["array_record", "tfrecord"])
def prepared(request, cifar10, small_rows, copy_prepared, tmp_path, as_tfrecord):
    """A prepared folder of either file format."""
    folder = copy_prepared(cifar10, tmp_path)
    if request.param == "tfrecord":
        as_tfrecord(folder)
    return folder


def test_prepared_folder(cifar, small_rows, copy_prepared, tmp_path, as_tfrecord, assert_same, monkeypatch):
    folder = copy_prepared(cifar, tmp_path)
    data = load(cifar.dataset, tmp_path, download=False)
    assert_same(data, cifar)
    assert str(folder) in data.source
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert_same(load(cifar.dataset, download=False), cifar)
    as_tfrecord(folder)
    assert_same(load(cifar.dataset, tmp_path, download=False), cifar)


def test_image_by_image(cifar10, prepared, tmp_path):
    images = load("cifar10", tmp_path, lazy=True).train.images
    assert isinstance(images, cifar_tfds.PreparedImages)
    assert (images.shape, images.dtype, len(images)) == ((50, 32, 32, 3), np.uint8, 50)
    for position in (49, 0, 7):
        np.testing.assert_array_equal(images[position], cifar10.images["train"][position])


def test_prepared_folder_is_stored_in_another_order(cifar10, copy_prepared, tmp_path):
    """Otherwise the tests above would not show that the original order is restored."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(copy_prepared(cifar10, tmp_path))
    ids = [example["id"] for example in builder.as_data_source("train")]
    assert ids != sorted(ids)


def test_newest_prepared_version_is_taken(cifar10, small_rows, copy_prepared, tmp_path):
    folder = copy_prepared(cifar10, tmp_path)
    newest = folder.with_name("3.0.10")
    shutil.copytree(folder, newest)
    (folder.with_name("incomplete.ABC_9.0.0")).mkdir()
    assert str(newest) in load("cifar10", tmp_path).source


DAMAGE = {
    **{
        f"without {name}": lambda folder, name=name: next(folder.glob(name)).unlink()
        for name in ("dataset_info.json", "features.json", "label.labels.txt", "*-test.*")
    },
    **{
        f"cut to {keep}": lambda folder, keep=keep: [
            os.truncate(path, int(path.stat().st_size * keep)) for path in folder.glob("*-train.*")
        ]
        for keep in (0.0, 0.5, 0.9)
    },
    **{
        f"broken {name}": lambda folder, name=name: (folder / name).write_text("{")
        for name in ("dataset_info.json", "features.json")
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folder(damage, prepared, tmp_path, refusal):
    DAMAGE[damage](prepared)
    message = refusal(load, "cifar10", tmp_path)
    assert str(prepared) in message
    assert "prepare it again" in message


def test_prepared_folder_of_something_else(cifar10, copy_prepared, tmp_path, refusal, monkeypatch):
    folder = copy_prepared(cifar10, tmp_path)
    message = refusal(load, "cifar10", tmp_path)
    assert "train_images are uint8 [50, 32, 32, 3], expected uint8 [50000, 32, 32, 3]" in message
    monkeypatch.setattr("dsink_jax.data.cifar_files.ROWS", {"train": 50, "test": 10})
    shutil.copytree(folder, tmp_path / "cifar100" / folder.name)
    assert "10 class names, expected 100" in refusal(load, "cifar100", tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "riegeli"))
    assert "RIEGELI is not supported" in refusal(load, "cifar10", tmp_path)
    with pytest.raises(ValueError, match=r"no intact TensorFlow Datasets folder: Unknown split 'validation'"):
        cifar_tfds.PreparedImages(tmp_path / "cifar100" / folder.name, "validation", [])


@needs_real_cifar
@pytest.mark.slow
def test_lazy_cifar_is_cifar(cpus, tmp_path):
    whole, lazy = load("cifar10"), load("cifar10", lazy=True)
    images = lazy.train.images
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


@needs_real_cifar
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
@pytest.mark.slow
def test_real_cifar(dataset, classes):
    if not (pathlib.Path(REAL_DATA_DIR) / dataset).is_dir():
        pytest.skip(f"TFDS_DATA_DIR has no {dataset}")
    data = load(dataset, download=False)
    for part, count in ((data.train, 50_000), (data.test, 10_000)):
        assert part.images.shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(part.labels), [count // classes] * classes)
    first = {"cifar10": "frog", "cifar100": "cattle"}[dataset]
    assert data.class_names[data.train.labels[0]] == first
    if dataset == "cifar10":  # those of CIFAR-100 are rounded more
        mean = np.mean(data.train.images, axis=(0, 1, 2)) / 255
        np.testing.assert_allclose(mean, data.mean, atol=1e-3)
