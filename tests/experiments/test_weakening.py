"""Auxiliary models made worse on purpose."""

import dataclasses

import numpy as np
import pytest

from experiments.config import DIGITS
from experiments.problem import load_problem
from experiments.run_directory import RunDirectory
from experiments.weakening import Weakening


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    config = dataclasses.replace(DIGITS, run_dir=tmp_path_factory.mktemp("run") / "run")
    with RunDirectory(config) as directory:
        return load_problem(config, directory, config.local_devices())


def test_nothing_weakened_is_the_same(problem):
    seen = Weakening()(problem)
    np.testing.assert_array_equal(seen.corruption.index, problem.corruption.index)
    np.testing.assert_array_equal(seen.corruption.noisy_labels, problem.corruption.noisy_labels)
    assert seen.config == problem.config


def test_fewer_epochs_images_and_right_labels(problem):
    count = len(problem.corruption.index)
    seen = Weakening(epochs=0.1, data=0.5, noise=0.5)(problem)
    assert seen.config.epochs == 25
    assert len(seen.corruption.index) == len(seen.images) == round(count / 2)
    before = dict(zip(problem.corruption.index, problem.corruption.noisy_labels, strict=True))
    pairs = zip(seen.corruption.index, seen.corruption.noisy_labels, strict=True)
    changed = [before[index] != label for index, label in pairs]
    assert 0.35 < np.mean(changed) < 0.55  # nine tenths of a half
    truth = problem.data.train.labels[seen.corruption.index]
    np.testing.assert_array_equal(seen.corruption.clean_labels, truth)
    observed = np.bincount(seen.corruption.noisy_labels, minlength=10)
    assert seen.facts.observed_counts == tuple(observed.tolist())


def test_the_same_draw_fails_on_the_same(problem):
    one, same, other = (Weakening(data=0.5, noise=0.5, draw=draw)(problem).corruption for draw in (0, 0, 1))
    np.testing.assert_array_equal(one.index, same.index)
    np.testing.assert_array_equal(one.noisy_labels, same.noisy_labels)
    assert len(np.intersect1d(one.index, other.index)) < 0.65 * len(one.index)


def test_less_data_is_a_part_of_more(problem):
    half, quarter = (Weakening(data=share)(problem).corruption.index for share in (0.5, 0.25))
    assert np.isin(quarter, half).all()
