import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dsink_jax.data import sources
from dsink_jax.data.image_data import channel_statistics
from dsink_jax.errors import InputError

REAL_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")


def assert_same(data, cifar):
    for split in ("train", "test"):
        images, labels = getattr(data, split)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(images, cifar.images[split])
        np.testing.assert_array_equal(labels, cifar.labels[split])
    assert data.class_names == cifar.class_names
    assert data.num_classes == len(cifar.class_names)


# Digits


def test_digits():
    data = sources.load("digits")
    assert data.name == "digits"
    assert data.train.images.shape == (1397, 8, 8, 1)
    assert data.test.images.shape == (400, 8, 8, 1)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int32
    assert data.train.images.max() == 255
    np.testing.assert_array_equal(np.bincount(data.test.labels), [40] * 10)
    assert data.class_names == tuple("0123456789")


def test_digits_keep_the_original_order_and_every_image():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = sources.load("digits")
    originals = [image.tobytes() for image in np.rint(bunch.images * 255 / 16).astype(np.uint8)]
    positions = []
    for images, labels in (data.train, data.test):
        found = [originals.index(image.tobytes()) for image in images]
        assert found == sorted(found)
        np.testing.assert_array_equal(bunch.target[found], labels)
        positions += found
    assert sorted(positions) == list(range(1797))


def test_digits_are_the_same_every_time():
    np.random.seed(7)  # Someone else's seed changes nothing.
    first, second = sources.load("digits"), sources.load("digits")
    np.testing.assert_array_equal(first.test.images, second.test.images)


def test_digits_statistics_are_those_of_the_training_part():
    data = sources.load("digits")
    pixels = data.train.images / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)))


# A file of arrays under the name of CIFAR


def write_arrays(path, cifar, **changes):
    arrays = {
        f"{split}_{kind}": getattr(cifar, kind)[split]
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    np.savez(path, **{**arrays, "class_names": np.array(cifar.class_names), **changes})


def test_cifar_from_a_file_of_arrays(cifar, small_rows, tmp_path):
    write_arrays(tmp_path / f"{cifar.dataset}.npz", cifar)
    data = sources.load(cifar.dataset, tmp_path, download=False)
    assert_same(data, cifar)
    assert data.name == cifar.dataset
    assert data.mean == sources._CIFAR_SCALES[cifar.dataset][0]  # CIFAR's own, not those of the file
    assert str(tmp_path) in data.source


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"train_images": np.zeros((49, 32, 32, 3), np.uint8), "train_labels": np.zeros(49, int)},
            "[50, 32, 32, 3]",
        ),
        (
            {"test_images": np.zeros((9, 32, 32, 3), np.uint8), "test_labels": np.zeros(9, int)},
            "test_images must be",
        ),
        ({"class_names": np.array([f"class {k}" for k in range(11)])}, "has 10 classes, and it has 11"),
    ],
)
def test_file_of_arrays_that_are_not_cifar(cifar10, changes, said, small_rows, tmp_path, refusal):
    write_arrays(tmp_path / "cifar10.npz", cifar10, **changes)
    assert said in refusal(sources.load, "cifar10", tmp_path, download=False)


# Names and directories


@pytest.mark.parametrize(
    ("name", "near"), [("cifar", "cifar10"), ("CIFAR100", "cifar100"), ("digit", "digits")]
)
def test_unknown_name(name, near, refusal):
    message = refusal(sources.load, name)
    assert f"Did you mean '{near}'?" in message
    assert "digits, cifar10, cifar100" in message


def test_unknown_name_that_is_near_nothing(refusal):
    assert "Did you mean" not in refusal(sources.load, "imagenet")


def test_data_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    home = pathlib.Path.home()
    assert sources.data_directory() == home / "tensorflow_datasets"
    assert sources.data_directory("~/x") == home / "x"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert sources.data_directory() == tmp_path
    assert sources.data_directory("elsewhere") == pathlib.Path("elsewhere")
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    assert sources.data_directory() == home / "tensorflow_datasets"


@pytest.mark.parametrize("given", [None, "gs://bucket/data"])
def test_data_directory_on_another_machine(given, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "s3://bucket/data")
    named = "TFDS_DATA_DIR s3://bucket/data: " if given is None else "data_dir= gs://bucket/data: "
    with pytest.raises(InputError, match=named):
        sources.data_directory(given)


def test_data_directory_that_is_a_file(tmp_path, refusal):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.touch()
    assert "is a file" in refusal(sources.load, "cifar10", path)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_nothing_there_and_no_download(folder, tmp_path, refusal):
    message = refusal(sources.load, "cifar100", tmp_path / folder, download=False)
    assert str(tmp_path / folder) in message
    assert ("does not exist" in message) == bool(folder)
    for remedy in ("cifar-100-binary.tar.gz", "data_dir=", "TFDS_DATA_DIR"):
        assert remedy in message


# CIFAR by every route


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_cifar_files(cifar, layout, form, small_rows, tmp_path, request):
    request.getfixturevalue(f"write_{form}")(cifar, layout, tmp_path)
    assert_same(sources.load(cifar.dataset, tmp_path, download=False), cifar)


def test_prepared_folder(cifar, small_rows, copy_prepared, tmp_path):
    folder = copy_prepared(cifar, tmp_path)
    data = sources.load(cifar.dataset, tmp_path, download=False)
    assert_same(data, cifar)
    assert str(folder) in data.source


def test_prepared_folder_is_stored_in_another_order(cifar10, copy_prepared, tmp_path):
    """Otherwise the test above would not show that the original order is restored."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(copy_prepared(cifar10, tmp_path))
    ids = [example["id"] for example in builder.as_data_source("train")]
    assert ids != sorted(ids)


def test_prepared_folder_as_tfrecord(cifar, small_rows, copy_prepared, tmp_path, as_tfrecord):
    as_tfrecord(copy_prepared(cifar, tmp_path))
    assert_same(sources.load(cifar.dataset, tmp_path, download=False), cifar)


def test_data_dir_from_the_environment(cifar10, small_rows, copy_prepared, tmp_path, monkeypatch):
    copy_prepared(cifar10, tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert_same(sources.load("cifar10", download=False), cifar10)


def test_prepared_folder_comes_before_files(cifar10, small_rows, copy_prepared, tmp_path, write_folder):
    folder = copy_prepared(cifar10, tmp_path)
    write_folder(cifar10, "binary", tmp_path / "cifar10")
    assert str(folder) in sources.load("cifar10", tmp_path).source
    shutil.rmtree(folder)
    assert "cifar-10-batches-bin" in sources.load("cifar10", tmp_path).source


def test_newest_prepared_version_is_taken(cifar10, small_rows, copy_prepared, tmp_path):
    folder = copy_prepared(cifar10, tmp_path)
    newest = folder.with_name("3.0.10")
    shutil.copytree(folder, newest)
    (folder.with_name("incomplete.ABC_9.0.0")).mkdir()
    assert str(newest) in sources.load("cifar10", tmp_path).source


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "label.labels.txt", "*-test.*"])
@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_prepared_folder_lacking_a_file(
    name, kind, cifar10, small_rows, copy_prepared, tmp_path, refusal, as_tfrecord
):
    folder = copy_prepared(cifar10, tmp_path)
    if kind == "tfrecord":
        as_tfrecord(folder)
    next(folder.glob(name)).unlink()
    message = refusal(sources.load, "cifar10", tmp_path)
    assert str(folder) in message
    assert "prepare it again" in message


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_prepared_folder_truncated(
    keep, kind, cifar10, small_rows, copy_prepared, tmp_path, refusal, as_tfrecord
):
    folder = copy_prepared(cifar10, tmp_path)
    if kind == "tfrecord":
        as_tfrecord(folder)
    path = next(folder.glob("*-train.*"))
    os.truncate(path, int(path.stat().st_size * keep))
    assert str(folder) in refusal(sources.load, "cifar10", tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_prepared_folder_with_broken_json(name, cifar10, small_rows, copy_prepared, tmp_path, refusal):
    folder = copy_prepared(cifar10, tmp_path)
    (folder / name).write_text("{")
    assert str(folder) in refusal(sources.load, "cifar10", tmp_path)


def test_prepared_folder_of_another_data_set(cifar10, small_rows, copy_prepared, tmp_path, refusal):
    folder = copy_prepared(cifar10, tmp_path)
    shutil.move(folder, tmp_path / "cifar100" / folder.name)
    assert "10 class names, expected 100" in refusal(sources.load, "cifar100", tmp_path)


def test_prepared_folder_of_another_size(cifar10, copy_prepared, tmp_path, refusal):
    copy_prepared(cifar10, tmp_path)
    message = refusal(sources.load, "cifar10", tmp_path)
    assert "50 training and 10 test images, expected 50000 and 10000" in message


def test_prepared_folder_in_an_unknown_format(cifar10, small_rows, copy_prepared, tmp_path, refusal):
    folder = copy_prepared(cifar10, tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "parquet"))
    assert "neither array_record nor tfrecord" in refusal(sources.load, "cifar10", tmp_path)


@pytest.mark.slow
def test_no_route_imports_tensorflow(cifar10, small_rows, copy_prepared, tmp_path, write_folder, as_tfrecord):
    copy_prepared(cifar10, tmp_path / "array_record")
    as_tfrecord(copy_prepared(cifar10, tmp_path / "tfrecord"))
    write_folder(cifar10, "binary", tmp_path / "binary")
    code = f"""
import sys
from dsink_jax.data import cifar_files, sources
assert not [name for name in ("tensorflow_datasets", "sklearn", "pooch") if name in sys.modules]
cifar_files.ROWS = {small_rows}
for route in ("array_record", "tfrecord", "binary"):
    sources.load("cifar10", {str(tmp_path)!r} + "/" + route, download=False)
sources.load("digits")
assert "tensorflow" not in sys.modules
"""
    root = pathlib.Path(sources.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.skipif(
    not (pathlib.Path(REAL_DATA_DIR) / "cifar10").is_dir() or not REAL_DATA_DIR,
    reason="TFDS_DATA_DIR does not name a folder with CIFAR-10",
)
@pytest.mark.slow
def test_real_cifar10():
    data = sources.load("cifar10", REAL_DATA_DIR, download=False)
    assert data.train.images.shape == (50_000, 32, 32, 3)
    assert data.test.images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(data.train.labels), [5_000] * 10)
    np.testing.assert_array_equal(np.bincount(data.test.labels), [1_000] * 10)
    assert data.class_names[data.train.labels[0]] == "frog"
    assert data.train.labels[0] == 6
    mean, _ = channel_statistics(data.train.images)
    np.testing.assert_allclose(mean, data.mean, atol=1e-3)


@pytest.mark.skipif(
    not (pathlib.Path(REAL_DATA_DIR) / "cifar100").is_dir() or not REAL_DATA_DIR,
    reason="TFDS_DATA_DIR does not name a folder with CIFAR-100",
)
@pytest.mark.slow
def test_real_cifar100():
    data = sources.load("cifar100", REAL_DATA_DIR, download=False)
    assert data.train.images.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(data.train.labels), [500] * 100)
    np.testing.assert_array_equal(np.bincount(data.test.labels), [100] * 100)
    assert data.class_names[:2] == ("apple", "aquarium_fish")
