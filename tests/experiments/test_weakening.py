"""Auxiliary models made worse on purpose."""

import numpy as np
import pytest

from dsink_jax.training_set import TrainingSet
from experiments.weakening import Weakening

COUNT = 2000


@pytest.fixture(scope="module")
def whole():
    """Examples whose only feature is their number."""
    labels = np.random.default_rng(0).integers(0, 10, COUNT).astype(np.int32)
    return TrainingSet(np.arange(COUNT, dtype=np.float32)[:, None], labels, 10, np.full(10, 7), labels)


def test_nothing_weakened_is_the_same(whole):
    seen = Weakening().training_set(whole, 0)
    np.testing.assert_array_equal(seen.inputs, whole.inputs)
    np.testing.assert_array_equal(seen.labels, whole.labels)
    assert Weakening().epochs_of(7) == 7


def test_fewer_epochs_images_and_right_labels(whole):
    weakening = Weakening(epochs=0.1, data=0.5, noise=0.5)
    assert weakening.epochs_of(250) == 25 and weakening.epochs_of(3) == 1
    seen = weakening.training_set(whole, 0)
    rows = seen.inputs[:, 0].astype(int)
    assert len(set(rows)) == len(rows) == COUNT / 2
    changed = np.mean(whole.labels[rows] != seen.labels)
    assert 0.4 < changed < 0.5  # nine tenths of a half
    np.testing.assert_array_equal(seen.clean_labels, whole.clean_labels[rows])
    np.testing.assert_array_equal(seen.class_counts, np.bincount(seen.labels, minlength=10))


def test_the_same_draw_fails_on_the_same_and_less_is_a_part_of_more(whole):
    def drawn(draw, seed=0, data=0.5):
        seen = Weakening(data=data, noise=0.5, draw=draw).training_set(whole, seed)
        return dict(zip(seen.inputs[:, 0].tolist(), seen.labels.tolist(), strict=True))

    assert drawn(0) == drawn(0)
    for other in (drawn(1), drawn(0, seed=1)):
        assert len(drawn(0).keys() & other.keys()) < 0.6 * COUNT / 2
    assert drawn(0, data=0.25).items() <= drawn(0).items()
