"""TABASCO: its selection by hand and by a second implementation, and the method around it."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from dsink_jax.methods import DivideMix, DSink, Tabasco
from dsink_jax.methods.mixture import two_gaussians
from dsink_jax.methods.tabasco import (
    choose,
    class_centroid,
    normalized_features,
    overtaken,
    select,
    weighted_divergences,
)
from method_references import (
    build,
    metrics_of,
    refreshes,
    softmax,
    tiny_data,
    tiny_training,
    with_auxiliaries,
)


def divergence(p, q):
    """Of two distributions, by the definition."""
    middle = (p + q) / 2
    terms = [np.sum(one[one > 0] * np.log(one[one > 0] / middle[one > 0])) for one in (p, q)]
    return sum(terms) / 2


# The two measures.


def test_divergences_by_hand():
    """Given class 0; the mean is (0.5, 0.4, 0.1), so that no weight is above 1."""
    probabilities = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.7, 0.3]])
    # 0.5 log 0.5 - 1.5 log 1.5 = -0.954771; log 2 - 0.477386 = 0.215762. At probability 0 it is log 2.
    found = weighted_divergences(probabilities, 0)
    np.testing.assert_allclose(found, [0.0, 0.215762, 0.693147], atol=1e-6)


def test_weights_by_hand():
    """Given class 2, whose mean is 0.2 where the largest is 0.6: weights are at most 3."""
    probabilities = np.array([[0.6, 0.2, 0.2], [0.8, 0.19, 0.01], [0.4, 0.21, 0.39]])
    weights = [3.0, 3.0, 0.4 / 0.39]  # of them 0.8 / 0.01 = 80 is cut
    one_hot = np.array([0.0, 0.0, 1.0])
    expected = [w * divergence(p, one_hot) for w, p in zip(weights, probabilities, strict=True)]
    np.testing.assert_allclose(weighted_divergences(probabilities, 2), expected, rtol=1e-12)


def test_divergences_where_a_class_has_no_probability():
    found = weighted_divergences(np.array([[1.0, 0.0], [1.0, 0.0]]), 1)
    assert np.isfinite(found).all() and found[0] == found[1]


def test_directions_are_centred_and_of_length_one():
    found = normalized_features(np.array([[3.0, 0.0], [1.0, 4.0], [1.0, 0.0], [3.0, 4.0], [2.0, 2.0]]))
    half = np.sqrt(0.2)
    expected = [[half, -2 * half], [-half, 2 * half], [-half, -2 * half], [half, 2 * half], [0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_centroid_by_hand():
    """The likeliest class of the mean (0.4, 0.6) is 1; probabilities of it are 0.9, 0.8, 0.3, 0.4.

    Above 0.6 they are multiplied by 1.5 and 4/3: 1.35, 1.0667, 0.3, 0.4, mean 0.779. Two are above.
    """
    towards = np.array([0.9, 0.8, 0.3, 0.4])
    directions = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    found = class_centroid(np.stack([1 - towards, towards], 1), directions)
    np.testing.assert_allclose(found.centroid, [0.5, 0.5])
    assert found.confident == 2
    # 0.85 and 0.75 in place of them: the mean of 0.575 makes 1.2565, 0.9783; the bound is 0.734.
    towards = np.array([0.85, 0.75, 0.3, 0.4])
    assert class_centroid(np.stack([1 - towards, towards], 1), directions).confident == 2
    towards = np.array([0.85, 0.7, 0.3, 0.4])  # and 0.5625 makes 1.284, 0.871; 0.714
    found = class_centroid(np.stack([1 - towards, towards], 1), directions)
    np.testing.assert_allclose(found.centroid, [1, 0])
    assert found.confident == 1


def test_centroid_where_nobody_is_confident():
    """Equal predictions are not above their mean: all are taken."""
    found = class_centroid(np.full((4, 2), [0.3, 0.7]), np.eye(4))
    np.testing.assert_allclose(found.centroid, np.full(4, 0.25))
    assert found.confident == 4


def test_overtaken_by_hand():
    """A ratio of softmax is e to the difference of products: within a tenth if that is above log 0.9."""
    centroids = np.array([[1.0, 0.0], [0.95, 0.0], [0.0, 1.0]])
    # Class 0: 1.0 and 0.95, e^-0.05 = 0.951. Class 1: 0.9025 and 0.95, e^0.0475 = 1.049. Class 2: 1 and 0.
    assert overtaken(centroids, np.array([5, 4, 3])).tolist() == [False, True, False]
    assert overtaken(centroids, np.array([4, 5, 3])).tolist() == [True, False, False]
    assert overtaken(centroids, np.array([4, 4, 4])).tolist() == [False, False, False]
    centroids[1, 0] = 0.88  # e^-0.12 = 0.887, and 0.7744 and 0.88: e^0.1056 = 1.111, too far above
    assert overtaken(centroids, np.array([4, 5, 3])).tolist() == [False, False, False]
    assert overtaken(centroids, np.array([5, 4, 3])).tolist() == [False, False, False]
    assert overtaken(centroids[:1], np.array([4])).tolist() == [False]


# The decision. Two heaps of each measure; of whom each holds is told example by example.


def heaps(low, jitter=0.02, *, low_jitter=None, seed=0):
    """A mixture of numbers that are near 0 where `low` is true, near 1 elsewhere."""
    rng = np.random.default_rng(seed)
    low = np.asarray(low)
    width = np.where(low, jitter if low_jitter is None else low_jitter, jitter)
    return two_gaussians(np.where(low, 0.0, 1.0) + width * rng.uniform(-1, 1, len(low)), 30)


HALF = np.arange(40) < 20


@pytest.mark.parametrize("is_overtaken", [False, True])
def test_measures_that_agree_leave_it_to_the_acd(is_overtaken):
    """A1 falls in one component and A2 in the other, and the upper spreads no less than the lower."""
    wjsd, acd = heaps(~HALF), heaps(HALF, seed=1)
    group, posterior = choose(wjsd, acd, is_overtaken, 40)
    assert group == ("A1" if is_overtaken else "A2")
    np.testing.assert_array_equal(posterior > 0.5, HALF if is_overtaken else ~HALF)


def test_an_upper_component_that_spreads_less_makes_the_wjsd_decide():
    wjsd, acd = heaps(~HALF, 0.02, low_jitter=0.1), heaps(HALF, seed=1)
    group, posterior = choose(wjsd, acd, True, 40)
    assert group == "W1"
    np.testing.assert_array_equal(posterior > 0.5, ~HALF)
    # The bound is 0.65.
    for jitter, expected in ((0.07, "A2"), (0.05, "W1")):
        rng = np.random.default_rng(4)
        noise = rng.permutation(np.linspace(-1, 1, 20))
        values = np.concatenate([1 + jitter * noise, 0.1 * noise])  # the lower ones are not of A1
        mixture = two_gaussians(values, 30)
        assert choose(mixture, acd, False, 40)[0] == expected


def test_groups_that_both_look_wrong_make_the_wjsd_decide():
    """A tenth has a low WJSD: by their means both groups are in the upper component; then in the lower."""
    few = np.arange(40) % 10 == 0
    group, posterior = choose(heaps(few), heaps(HALF, seed=1), False, 40)
    assert group == "W1"
    np.testing.assert_array_equal(posterior > 0.5, few)
    group, posterior = choose(heaps(~few), heaps(HALF, seed=1), False, 40)
    assert group == "A2"  # of the upper one nothing is known, and its spread is 1
    np.testing.assert_array_equal(posterior > 0.5, ~HALF)


def test_groups_of_equal_wjsd_have_a_spread_of_a_tenth():
    """Upper 0.1 by rule; lower 0.1 too, or 0.29."""
    acd = heaps(HALF, seed=1)
    assert choose(two_gaussians(np.where(HALF, 1.0, 0.0), 30), acd, False, 40)[0] == "A2"
    spread = np.concatenate([np.full(20, 2.0), np.tile([0.0, 1.0], 10)])  # sd 0.25 once 2 is 1
    assert choose(two_gaussians(spread, 30), acd, False, 40)[0] == "W1"


def test_a_measure_that_is_equal_for_all_leaves_it_to_the_other():
    one = heaps(HALF)
    for is_overtaken in (False, True):
        group, posterior = choose(one, None, is_overtaken, 40)
        assert group == "W1" and (posterior == one.lower).all()
        group, posterior = choose(None, one, is_overtaken, 40)
        assert group == ("A1" if is_overtaken else "A2")
        np.testing.assert_array_equal(posterior > 0.5, HALF if is_overtaken else ~HALF)
        group, posterior = choose(None, None, is_overtaken, 40)
        assert group == "all" and (posterior == np.ones(40)).all()


def test_a_group_that_nobody_is_in_is_the_other_one():
    all_low = heaps(HALF)._replace(lower=np.full(40, 0.9))
    all_high = all_low._replace(lower=np.full(40, 0.2))
    for is_overtaken in (False, True):
        assert (choose(None, all_low, is_overtaken, 40)[1] == 0.9).all()
        np.testing.assert_allclose(choose(None, all_high, is_overtaken, 40)[1], 0.8)


# The whole selection.


def some_classes(counts, wrong=0.4, seed=0, width=5):
    """Logits, features and labels of long-tailed classes, a share of them wrong; whether each is right."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(counts)), counts)
    right = rng.random(len(true)) >= wrong
    labels = np.where(right, true, rng.integers(0, len(counts), len(true)))
    features = rng.normal(0, 1.0, (len(true), width)) + 4 * rng.normal(0, 1, (len(counts), width))[true]
    logits = rng.normal(0, 1.0, (len(true), len(counts)))
    # The network has learned the frequent classes, and of rare ones that they look like the first.
    learned = np.where(np.asarray(counts)[true] > 10, true, 0)
    logits[np.arange(len(true)), learned] += rng.uniform(1, 5, len(true))
    logits[np.arange(len(true)), labels] += rng.uniform(0, 2, len(true))
    return logits.astype(np.float32), features.astype(np.float32), labels.astype(np.int32), labels == true


def posterior_of(mixture, values, component):
    """By Bayes' rule from means, variances and shares."""
    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    density = mixture.weights_ * np.exp(-((values[:, None] - means) ** 2) / 2 / variances)
    density /= np.sqrt(variances)
    return (density / density.sum(1, keepdims=True))[:, component]


def reference(logits, features, labels):
    """The selection step by step, with loops; None where a class is too small for its mixtures."""
    p, count = softmax(logits), len(labels)
    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    f = np.array([row / np.sqrt((row**2).sum()) for row in f])
    present = sorted(set(labels.tolist()))
    mean, centroid, number = {}, {}, {}
    for c in present:
        members = [i for i in range(count) if labels[i] == c]
        mean[c] = np.mean([p[i] for i in members], 0)
        k = int(np.argmax(mean[c]))
        again = np.mean([p[i, k] * max(1, p[i, k] / mean[c][k]) for i in members])
        sure = [i for i in members if np.argmax(p[i]) == k and p[i, k] > again] or members
        centroid[c], number[c] = np.mean([f[i] for i in sure], 0), len(sure)
    result, groups = np.full(count, np.nan), {}
    for c in present:
        members = np.flatnonzero(labels == c)
        one_hot = np.eye(p.shape[1])[c]
        wjsd, acd = [], []
        for i in members:
            weight = min(p[i].max() / p[i, c], mean[c].max() / mean[c][c])
            wjsd.append(weight * divergence(p[i], one_hot))
            acd.append(f[i] @ centroid[c] / np.linalg.norm(centroid[c]))
        measures, mixtures = [], []
        for values in (np.array(wjsd), np.array(acd)):
            values = (values - values.min()) / (values.max() - values.min())
            mixture = GaussianMixture(2, max_iter=30, tol=1e-2, reg_covar=5e-4, random_state=0)
            mixtures.append(mixture.fit(values[:, None]))
            measures.append(values)
        (w, a), (of_w, of_a) = measures, mixtures
        low_w, low_a = of_w.means_.argmin(), of_a.means_.argmin()
        w1, first = posterior_of(of_w, w, low_w), posterior_of(of_a, a, low_a)
        a1 = first > 0.5
        falls = [
            int(np.argmax([posterior_of(of_w, np.array([w[g].mean()]), k)[0] for k in (0, 1)]))
            for g in (a1, ~a1)
        ]
        spread = {0: 1.0, 1: 1.0}
        for where, g in zip(falls, (a1, ~a1), strict=True):
            spread[where] = w[g].std() if w[g].std() > 0 else 0.1
        if low_w not in falls or spread[1 - low_w] / spread[low_w] < 0.65:
            groups[c], result[members] = "W1", w1
            continue
        products = np.exp([centroid[c] @ centroid[other] for other in present])
        shares = dict(zip(present, products / products.sum(), strict=True))
        nearest = max((other for other in present if other != c), key=shares.get)
        near = abs(shares[c] - shares[nearest]) < 0.1 * shares[c]
        groups[c] = "A1" if near and number[c] < number[nearest] else "A2"
        result[members] = first if groups[c] == "A1" else 1 - first
    return result, groups


def test_selection_by_a_second_implementation():
    seen = []
    for seed in range(6):
        counts = (120, 60, 30, 8, 6)
        logits, features, labels, _ = some_classes(counts, seed=seed, width=3 + seed)
        if seed % 3 == 0:  # features that hardly tell the classes apart
            features = features * 0.02 + np.random.default_rng(seed).normal(0, 1, features.shape)
        found = select(logits, features, labels)
        expected, groups = reference(logits, features, labels)
        assert found.groups == groups
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
        seen += groups.values()
    assert {"W1", "A1", "A2"} == set(seen)


def test_selection_finds_right_labels_of_frequent_classes():
    logits, features, labels, right = some_classes((300, 200, 100), wrong=0.6, width=8)
    selected = select(logits, features, labels).probabilities > 0.5
    assert right[selected].mean() > 0.85 > 0.65 > right.mean() and selected.mean() > 0.3


def test_classes_that_are_small_or_absent():
    """Given class 1 nobody, 2 one example, 3 two, 4 two that are equal."""
    logits, features, labels, _ = some_classes((60, 1, 1, 1, 1), wrong=0.0)
    logits, features = logits[:55], features[:55]
    labels = np.array([0] * 50 + [2, 3, 3, 4, 4], np.int32)
    logits[-1], features[-1] = logits[-2], features[-2]
    found = select(logits, features, labels)
    assert set(found.groups) == {0, 2, 3, 4}
    assert np.isfinite(found.probabilities).all()
    assert found.groups[2] == found.groups[4] == "all"
    np.testing.assert_array_equal(found.probabilities[[50, 53, 54]], 1)
    assert (found.probabilities[51:53] > 0.5).sum() == 1  # of two that differ, one
    # Other labels of these classes play no part in the mixture of the first but by their features.
    assert select(logits[:50], features[:50], labels[:50]).groups.keys() == {0}


def test_all_scores_equal():
    labels = np.array([0, 1, 0, 1, 2], np.int32)
    found = select(np.zeros((5, 3)), np.ones((5, 4)), labels)
    assert set(found.groups.values()) == {"all"}
    np.testing.assert_array_equal(found.probabilities, np.ones(5))


def test_selection_depends_on_neither_order_nor_scale_of_features():
    logits, features, labels, _ = some_classes((100, 50, 20))
    found = select(logits, features, labels)
    np.testing.assert_allclose(
        select(logits + 3, 7 * features - 2, labels).probabilities, found.probabilities, atol=1e-3
    )


# The method.


def test_each_network_selects_by_its_own_outputs():
    method = build("tabasco")
    ones, others = some_classes((80, 40, 20), seed=1), some_classes((80, 40, 20), seed=2)
    labels = ones[2]
    logits, features = (np.stack([ones[i], others[i]], 1) for i in (0, 1))
    division, shared = method.refresh(logits, labels, np.ones((140, 2), np.float32), (), features)
    assert shared == () and division.shape == (140, 2) and division.dtype == np.float32
    for k, one in enumerate((ones, others)):
        np.testing.assert_allclose(division[:, k], select(one[0], one[1], labels).probabilities, atol=1e-6)


def test_schedule_and_published_defaults():
    method = build("tabasco")
    assert refreshes(method, 100) == list(range(10, 100))
    assert refreshes(build("tabasco", warmup=0.3), 10) == list(range(3, 10))
    assert method.get_params() == {
        **{"warmup": 0.1, "lambda_u": 25.0, "temperature": 0.5, "mix_alpha": 4.0},
        **{"clean_bound": 0.5, "ramp": 0.16, "penalty": "uniform"},
    }


def test_it_trains_as_dividemix_does():
    shared = ("init", "prepare", "loss", "predict", "refresh_before")
    assert all(getattr(Tabasco, name) is getattr(DivideMix, name) for name in shared)


@pytest.mark.parametrize("term", [None, pytest.param(DSink(3.0), marks=pytest.mark.slow)])
def test_in_training_it_selects_after_the_warmup(term, cpus):
    data = with_auxiliaries(tiny_data(wrong=True))
    trained = tiny_training(build("tabasco"), cpus, 3, data, term=term)
    clean = [metrics["clean"] for metrics in metrics_of(trained)]
    assert clean[0] == 1
    assert all(0 < share < 1 for share in clean[1:])
