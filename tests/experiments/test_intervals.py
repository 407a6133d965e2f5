"""Intervals over seeds and test images: against known ones, and how often they hold the truth."""

import time

import numpy as np
import pytest
from scipy import stats

from experiments.study.intervals import (
    Accuracy,
    Interval,
    accuracy,
    bootstrap_difference,
    bootstrap_mean,
)


def plain_accuracy(gold, predicted):
    return np.mean(gold == predicted)


def predictions(gold, right):
    """Predictions that are right where it is said."""
    return np.where(right, gold, (gold + 1) % (gold.max() + 1))


def first_right(gold, shares):
    """In each class the first of its images are predicted right, such a share of them."""
    place = np.zeros(len(gold), int)
    for one in np.unique(gold):
        place[gold == one] = np.arange((gold == one).sum())
    return [predictions(gold, place < share * (gold == 0).sum()) for share in shares]


def test_it_is_written_with_signs():
    assert str(Interval(2.49, -1.06, 3.94)) == "+2.5 [-1.1, +3.9]"


@pytest.mark.parametrize("shares", [(0.5, 0.6, 0.7), (0.5, 0.52, 0.7, 0.75, 0.9)])
def test_where_images_have_no_variance_it_is_students(shares):
    """A measure that is what the seed says whatever the images are."""
    golds = [np.zeros(50, int)] * len(shares)
    ours = [np.full(50, number) for number in range(len(shares))]
    found = bootstrap_mean(lambda gold, predicted: shares[predicted[0]], golds, ours)
    low, high = stats.ttest_1samp(100 * np.array(shares), 0).confidence_interval(0.95)
    assert found == pytest.approx((100 * np.mean(shares), low, high))


@pytest.mark.parametrize("measure", [accuracy, plain_accuracy])
@pytest.mark.parametrize("seeds", [1, 3])
def test_where_seeds_have_none_it_is_binomial(seeds, measure):
    gold = np.tile(np.arange(4), 100)
    (one,) = first_right(gold, [0.7])
    found = bootstrap_mean(measure, [gold] * seeds, [one] * seeds, resamples=4000)
    half = 100 * 1.96 * (0.7 * 0.3 / 400) ** 0.5
    assert found.mean == pytest.approx(70)
    assert found.high - found.mean == pytest.approx(half, rel=0.05)
    assert found.mean - found.low == pytest.approx(half, rel=0.05)


def test_fast_and_plain_measures_draw_alike():
    rng = np.random.default_rng(0)
    golds = [rng.integers(4, size=90) for _ in range(3)]
    ours, others = ([predictions(gold, rng.random(90) < share) for gold in golds] for share in (0.8, 0.6))
    assert bootstrap_difference(accuracy, golds, ours, others, resamples=50) == pytest.approx(
        bootstrap_difference(plain_accuracy, golds, ours, others, resamples=50), abs=1e-4
    )
    shared = [golds[0]] * 3
    kept = golds[0] >= 2

    def of_two(gold, predicted):
        return np.mean((gold == predicted)[gold >= 2])

    assert bootstrap_mean(Accuracy([2, 3]), shared, ours, resamples=50) == pytest.approx(
        bootstrap_mean(of_two, shared, ours, resamples=50), abs=1e-4
    )
    assert Accuracy([2, 3])(golds[0], ours[0]) == pytest.approx(np.mean((golds[0] == ours[0])[kept]))


def test_no_class_vanishes():
    gold = np.repeat([0, 1], [99, 1])

    def classes(gold, predicted):
        return len(np.unique(gold)) / 2

    assert bootstrap_mean(classes, [gold] * 2, [gold] * 2) == (100, 100, 100)


def test_shared_images_widen_what_all_seeds_have_in_common():
    """Every seed is right on the same images: told to be the same, or each seed's own."""
    gold = np.tile(np.arange(2), 50)
    golds, ours = [gold] * 3, first_right(gold, [0.6, 0.62, 0.64])
    shared = bootstrap_mean(accuracy, golds, ours)
    own = bootstrap_mean(accuracy, golds, ours, same_images=False)
    assert shared == bootstrap_mean(accuracy, golds, ours, same_images=True)
    assert shared.high - shared.low > 1.5 * (own.high - own.low)
    low, high = stats.ttest_1samp([60, 62, 64], 0).confidence_interval(0.95)
    assert own.high - own.low >= high - low


def test_arrays_that_do_not_belong_together_are_refused():
    gold = np.arange(3)
    for golds, ours in (([], []), ([gold], [gold, gold]), ([gold], [gold[:2]])):
        with pytest.raises(ValueError, match="is needed for each"):
            bootstrap_mean(accuracy, golds, ours)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("of_seed", "of_image", "of_both"), [(0.3, 0.0, 1.0), (0.15, 1.0, 0.5), (0.0, 2.0, 0.5), (0.3, 1.0, 1.0)]
)
def test_it_holds_the_truth_as_often_as_it_says(seeds, of_seed, of_image, of_both):
    """Differences from seeds, images and both, with known standard deviations; the truth is 0.

    A measure may be the mean of any number of an image: here the differences themselves.
    """
    rng = np.random.default_rng(seeds)
    gold, images, tries = np.zeros(60, int), 60, 400

    def mean(gold, values):
        return values.mean()

    mean.scores = lambda gold, values: values
    held = 0
    for _ in range(tries):
        shared = of_image * rng.normal(size=images)
        values = [of_seed * rng.normal() + shared + of_both * rng.normal(size=images) for _ in range(seeds)]
        found = bootstrap_difference(mean, [gold] * seeds, values, [0 * shared] * seeds, resamples=200)
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / tries <= 0.99


def test_ten_thousand_images_take_less_than_a_second():
    rng = np.random.default_rng(0)
    gold = rng.integers(10, size=10_000)
    ours, others = ([predictions(gold, rng.random(10_000) < 0.5) for _ in range(3)] for _ in range(2))
    started = time.process_time()
    bootstrap_difference(accuracy, [gold] * 3, ours, others)
    assert time.process_time() - started < 2  # a busy machine counts too
