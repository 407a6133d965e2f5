"""Which test images a run has: all, a part to tune by or to report, a limited number; and what it keeps."""

import dataclasses

import numpy as np
import pytest

from dsink_jax.data import load
from dsink_jax.errors import InputError
from experiments.config import DIGITS
from experiments.dataset import choose_test_images, load_dataset
from experiments.run_directory import RunDirectory


def of(data, **changes):
    return choose_test_images(dataclasses.replace(DIGITS, **changes), data)


def test_halves_share_no_image_and_are_all_together():
    data = load("digits")
    tuning, report = (of(data, test_part=part) for part in ("tuning", "report"))
    np.testing.assert_array_equal(np.sort([*tuning, *report]), of(data))
    for half in (tuning, report):
        assert np.bincount(data.test.labels[half]).tolist() == [20] * 10
        assert (np.diff(half) > 0).all()
        # Drawn, and not the first or the last of a class.
        assert 0.3 < np.mean(half < 200) < 0.7


def test_halves_do_not_depend_on_seeds_but_a_limit_is_of_the_part():
    data = load("digits")
    report = of(data, test_part="report")
    np.testing.assert_array_equal(of(data, test_part="report", seed=3, data_seed=4), report)
    limited = of(data, test_part="report", limit_test=50)
    assert set(limited) < set(report) and len(limited) == 50
    np.testing.assert_array_equal(of(data, test_part="report", limit_test=10**6), report)


def test_what_is_left_over_is_reported_and_one_image_is_too_few():
    data = load("digits")
    odd = np.flatnonzero(np.arange(400) != np.flatnonzero(data.test.labels == 0)[0])
    fewer = dataclasses.replace(data, test=type(data.test)(data.test.images[odd], data.test.labels[odd]))
    assert np.bincount(fewer.test.labels[of(fewer, test_part="tuning")])[0] == 19
    assert np.bincount(fewer.test.labels[of(fewer, test_part="report")])[0] == 20
    one = np.flatnonzero((data.test.labels != 3) | (np.cumsum(data.test.labels == 3) == 1))
    fewer = dataclasses.replace(data, test=type(data.test)(data.test.images[one], data.test.labels[one]))
    with pytest.raises(InputError, match=r"--test-part report: class 3 has 1 test images"):
        of(fewer, test_part="report")


def test_test_images_of_the_digits_are_the_same_for_every_data_seed(tmp_path):
    found = []
    for seed in (0, 1):
        config = dataclasses.replace(DIGITS, seed=seed, data_seed=seed, run_dir=tmp_path / str(seed))
        with RunDirectory(config) as directory:
            dataset = load_dataset(config, directory, config.local_devices()[:1])
        found.append(dataset.data.test.images)
        np.testing.assert_array_equal(dataset.test_index, np.arange(400))
    np.testing.assert_array_equal(*found)


def test_a_run_has_the_images_of_its_part(tmp_path):
    config = dataclasses.replace(DIGITS, test_part="tuning", run_dir=tmp_path / "run")
    with RunDirectory(config) as directory:
        dataset = load_dataset(config, directory, config.local_devices()[:1])
    whole = load("digits").test
    np.testing.assert_array_equal(dataset.data.test.images, whole.images[dataset.test_index])
    np.testing.assert_array_equal(dataset.data.test.labels, whole.labels[dataset.test_index])
    assert len(dataset.test_index) == 200


def test_predictions_of_a_run_are_added_model_by_model(tmp_path):
    config = dataclasses.replace(DIGITS, run_dir=tmp_path / "run")
    gold, index = np.array([0, 1, 2]), np.array([5, 7, 9])
    with RunDirectory(config) as directory:
        assert directory.predictions() == {}
        directory.save_predictions("one", np.array([0, 1, 1]), gold, index)
        directory.save_predictions("two", np.array([2, 1, 0]), gold, index)
        directory.save_predictions("one", np.array([0, 1, 2]), gold, index)  # trained again
        kept = directory.predictions()
        assert {name: values.tolist() for name, values in kept.items()} == {
            **{"gold": [0, 1, 2], "images": [5, 7, 9]},
            **{"one": [0, 1, 2], "two": [2, 1, 0]},
        }
        assert kept["one"].dtype == np.uint8
        directory.save_predictions("many", np.array([0, 1, 999]), gold, index)
        assert directory.predictions()["many"].dtype == np.uint16
        (directory.path / "predictions.npz").write_bytes(b"no")
        with pytest.raises(InputError, match=r"predictions.npz is damaged"):
            directory.save_predictions("one", gold, gold, index)
