import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corruption_references import CIFAR10_RATIO_10, CIFAR10_RATIO_100, MAP_10_SEED_1, SIGMAS, drawn
from dsink_jax.data.corruption import (
    long_tail_counts,
    long_tail_index,
)
from dsink_jax.errors import InputError

# The long tail.


def test_counts_of_cifar10_are_the_published_ones():
    assert long_tail_counts(5000, 10, 10).tolist() == CIFAR10_RATIO_10
    assert long_tail_counts(5000, 10, 100).tolist() == CIFAR10_RATIO_100
    assert sum(CIFAR10_RATIO_10) == 20_431
    assert sum(CIFAR10_RATIO_100) == 12_406


@pytest.mark.parametrize(("ratio", "total", "smallest"), [(10, 19_573, 50), (100, 10_847, 5)])
def test_counts_of_cifar100_are_the_published_ones(ratio, total, smallest):
    counts = long_tail_counts(500, 100, ratio)
    # The formula of the published code, class by class in Python's floats.
    assert counts.tolist() == [int(500 * (1 / ratio) ** (c / 99.0)) for c in range(100)]
    assert (counts.sum(), counts[0], counts[-1]) == (total, 500, smallest)


@given(
    max_count=st.integers(1, 10_000), num_classes=st.integers(2, 200), share=st.floats(0, 1), data=st.data()
)
def test_counts_fall_from_the_largest_class_by_the_ratio(max_count, num_classes, share, data):
    ratio = 1 + share * (0.99 * max_count - 1) if max_count > 1 else 1.0
    counts = long_tail_counts(max_count, num_classes, ratio)
    assert counts.dtype == np.int64
    assert counts[0] == max_count
    assert (np.diff(counts) <= 0).all()
    # Rounded down, up to the last bit of the floating-point power.
    c = data.draw(st.integers(0, num_classes - 1))
    exact = max_count * ratio ** (-c / (num_classes - 1))
    assert exact * (1 - 1e-12) - 1 < counts[c] <= exact * (1 + 1e-12)


def test_the_largest_ratio_the_refusal_offers_is_accepted():
    with pytest.raises(InputError, match="at most 49"):
        long_tail_counts(49, 10, 50)
    assert long_tail_counts(49, 10, 49)[-1] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5000, 10, 0.1), "at least 1, got 0.1"),
        ((5000, 10, 0), "at least 1, got 0"),
        ((5000, 10, -10), "at least 1, got -10"),
        ((5000, 10, float("nan")), "at least 1, got nan"),
        ((5000, 10, float("inf")), "at least 1, got inf"),
        ((5000, 1, 10), "at least 2 classes, got 1"),
        # 30 * 100^(-c / 9) is below 1 for c = 7, 8, 9: 0.84, 0.50, 0.30.
        ((30, 10, 100), "ratio 100 leaves 3 of 10 classes empty.*30 examples.*at most 30"),
    ],
)
def test_counts_refuse(arguments, words):
    with pytest.raises(InputError, match=words):
        long_tail_counts(*arguments)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    shares=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    seed=st.integers(0, 1000),
)
def test_subset_is_drawn_without_replacement(sizes, shares, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    counts = np.array([int(share * size) for share, size in zip(shares, sizes, strict=False)])
    index = long_tail_index(labels, counts, seed)
    assert index.dtype == np.int32
    assert (np.diff(index) > 0).all()  # ascending, so without repetition
    np.testing.assert_array_equal(np.bincount(labels[index], minlength=len(sizes)), counts)


def test_every_member_of_a_class_can_be_drawn():
    labels = np.array([1, 0, 1, 0, 0, 1])
    seen = {tuple(long_tail_index(labels, np.array([1, 2]), seed).tolist()) for seed in range(200)}
    assert len(seen) == 3 * 3  # one of three zeros, two of three ones


def test_subset_refuses_more_than_there_is():
    with pytest.raises(InputError, match="5 examples of class 1, which has 3"):
        long_tail_index(np.array([0, 0, 1, 1, 1]), np.array([2, 5]), 0)


# The corrupted set.


@pytest.mark.parametrize(("ratio", "counts"), [(10, CIFAR10_RATIO_10), (100, CIFAR10_RATIO_100)])
def test_corrupted_cifar10(cifar10_labels, ratio, counts):
    made = drawn(cifar10_labels, 10, imbalance_ratio=ratio)
    assert (np.diff(made.index) > 0).all()
    assert made.index.min() >= 0
    assert made.index.max() < 50_000
    np.testing.assert_array_equal(cifar10_labels[made.index], made.clean_labels)
    assert made.clean_counts.tolist() == counts
    assert made.counts_before.tolist() == [5000] * 10
    assert made.noisy_counts.sum() == sum(counts) == len(made.noisy_labels)
    assert made.noisy_counts.tolist() == [(made.noisy_labels == c).sum() for c in range(10)]
    dtypes = {name: getattr(made, name).dtype.name for name in ("index", "clean_labels", "noisy_labels")}
    assert set(dtypes.values()) == {"int32"}
    assert (made.counts_before.dtype, made.class_map.dtype) == (np.int64, np.int32)
    assert (made.noise, made.nominal_rate, made.imbalance_ratio) == ("symmetric", 0.4, float(ratio))
    assert (made.num_classes, made.data_seed) == (10, 0)


def test_largest_class_takes_the_size_of_the_smallest():
    labels = np.repeat(np.arange(3), [400, 100, 300])
    made = drawn(labels, 3, imbalance_ratio=4.0)
    assert made.counts_before.tolist() == [400, 100, 300]
    assert made.clean_counts.tolist() == [100, 50, 25]


def test_ratio_one_keeps_every_example():
    labels = np.repeat([2, 0, 1], [5, 40, 7])
    made = drawn(labels, 3, imbalance_ratio=1.0)
    np.testing.assert_array_equal(made.index, np.arange(52))
    np.testing.assert_array_equal(made.clean_labels, labels)
    assert made.clean_counts.tolist() == made.counts_before.tolist() == [40, 7, 5]


def test_subset_follows_the_data_seed_and_not_the_noise(cifar10_labels):
    kinds = {
        "none": 0.4,
        "symmetric": 0.4,
        "symmetric_others": 0.4,
        "asymmetric": 0.2,
        "asymmetric_dividemix": 0.4,
        "joint": 0.1,
        "joint_inclusive": 0.6,
    }
    made = [drawn(cifar10_labels, 10, noise=kind, noise_rate=rate) for kind, rate in kinds.items()]
    for other in made[1:]:
        np.testing.assert_array_equal(other.index, made[0].index)
    another = drawn(cifar10_labels, 10, data_seed=1)
    assert another.clean_counts.tolist() == made[0].clean_counts.tolist()
    # The last class keeps a tenth, and two draws of a tenth share a tenth: hypergeometric with mean 50 and
    # deviation 6.4, so that 100 is more than seven deviations away.
    tail, other_tail = (part.index[part.clean_labels == 9] for part in (made[0], another))
    assert len(np.intersect1d(tail, other_tail)) < 100


def test_noise_is_drawn_after_the_long_tail(cifar10_labels):
    made = drawn(cifar10_labels, 10, imbalance_ratio=100)
    # The true labels have the exact tail; the observed ones are what noise makes of it, far flatter.
    assert made.clean_counts.max() / made.clean_counts.min() == 100
    assert made.noisy_counts.max() / made.noisy_counts.min() < 8


def test_noise_changes_with_the_data_seed():
    labels = np.arange(3000) % 10
    first, second = (drawn(labels, 10, imbalance_ratio=1.0, data_seed=seed) for seed in (0, 1))
    assert (first.noisy_labels != second.noisy_labels).mean() > 0.3
    again = drawn(labels, 10, imbalance_ratio=1.0, data_seed=0)
    np.testing.assert_array_equal(first.noisy_labels, again.noisy_labels)


def expected_share(num_classes, noise, rate):
    """P(observed | true), written out apart from the library."""
    rows = np.zeros((num_classes, num_classes))
    if noise == "symmetric":
        rows += rate / num_classes
    else:
        targets = MAP_10_SEED_1
        if num_classes == 100:
            legacy = np.random.RandomState(1)
            targets = [legacy.choice([k for k in range(100) if k != c]) for c in range(100)]
        rows[np.arange(num_classes), targets] = rate
    rows[np.diag_indices(num_classes)] += 1 - rate
    return rows


# Classes, ratio, noise, rate; then observed largest and smallest class, share of wrong labels and right
# share in the worst observed class, all as published.
OBSERVED = [
    (10, 10, "symmetric", 0.4, 3817, 1117, 0.36, 0.29),
    (10, 10, "symmetric", 0.6, 3226, 1426, 0.54, 0.16),
    (10, 100, "symmetric", 0.4, 3496, 526, 0.36, 0.06),
    (10, 100, "symmetric", 0.6, 2744, 764, 0.54, 0.03),
    (10, 10, "asymmetric", 0.2, 4823, 667, 0.20, 0.33),
    (10, 10, "asymmetric", 0.4, 4646, 500, 0.40, 0.15),
    (10, 100, "asymmetric", 0.2, 4344, 111, 0.20, 0.06),
    (10, 100, "asymmetric", 0.4, 3689, 83, 0.40, 0.02),
    (100, 10, "symmetric", 0.4, 378, 108, 0.40, 0.28),
    (100, 10, "symmetric", 0.6, 317, 137, 0.59, 0.15),
    (100, 100, "symmetric", 0.4, 343, 46, 0.40, 0.07),
    (100, 100, "symmetric", 0.6, 265, 67, 0.59, 0.03),
    (100, 100, "asymmetric", 0.2, 466, 4, 0.20, 0.08),
    (100, 100, "asymmetric", 0.4, 500, 3, 0.40, 0.03),
]


@pytest.mark.parametrize(
    ("num_classes", "ratio", "noise", "rate", "largest", "smallest", "wrong", "right"), OBSERVED
)
def test_observed_classes_are_the_published_ones(
    num_classes, ratio, noise, rate, largest, smallest, wrong, right, cifar10_labels, cifar100_labels
):
    labels = {10: cifar10_labels, 100: cifar100_labels}[num_classes]
    made = drawn(labels, num_classes, imbalance_ratio=ratio, noise=noise, noise_rate=rate)
    counts, rows = made.clean_counts, expected_share(num_classes, noise, rate)
    expected = counts @ rows
    rounding = 0.5 + 1e-9
    assert abs(expected.max() - largest) <= rounding
    assert abs(expected.min() - smallest) <= rounding
    assert abs((counts * (1 - rows.diagonal())).sum() / counts.sum() - wrong) <= rounding / 100
    assert abs((counts * rows.diagonal() / expected).min() - right) <= rounding / 100
    # What was drawn is a draw of that expectation.
    deviation = np.sqrt(counts @ (rows * (1 - rows)))
    assert (np.abs(made.noisy_counts - expected) <= SIGMAS * deviation).all()
    share = (counts * (1 - rows.diagonal())).sum() / counts.sum()
    assert abs(made.realised_rate - share) <= SIGMAS * np.sqrt(share * (1 - share) / counts.sum())


def test_realised_rate_counts_wrong_labels(small):
    wrong = sum(a != b for a, b in zip(small.clean_labels, small.noisy_labels, strict=True))
    assert small.realised_rate == wrong / len(small.index)


@given(rate=st.floats(0.005, 1), seed=st.integers(0, 100))
def test_joint_noise_changes_an_exact_number(rate, seed):
    made = drawn(np.arange(500) % 5, 5, imbalance_ratio=3.0, noise="joint", noise_rate=rate, data_seed=seed)
    assert (made.clean_labels != made.noisy_labels).sum() == int(rate * len(made.index))


def test_joint_noise_prefers_the_head(cifar10_labels):
    made = drawn(cifar10_labels, 10, imbalance_ratio=100, noise="joint", noise_rate=0.5)
    counts = np.array(CIFAR10_RATIO_100)
    # Labels of the last class that were changed go to the others by the long-tailed counts.
    rows = counts * (1 - np.eye(10))
    rows /= rows.sum(1, keepdims=True)
    wrong = made.clean_labels != made.noisy_labels
    into = np.bincount(made.noisy_labels[wrong], minlength=10)
    expected = 0.5 * counts @ rows
    deviation = np.sqrt(0.5 * counts @ rows)  # not below that of a sum of rare events
    assert (np.abs(into - expected) <= SIGMAS * deviation).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "noise",
    [
        "none",
        "symmetric",
        "symmetric_others",
        "asymmetric",
        "joint_inclusive",
        "joint",
    ],
)
def test_rate_zero_leaves_the_labels(noise):
    made = drawn(np.arange(300) % 10, 10, noise=noise, noise_rate=0.0)
    np.testing.assert_array_equal(made.noisy_labels, made.clean_labels)
    assert made.realised_rate == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"noise": "asymmetric"}, MAP_10_SEED_1),
        ({"noise": "asymmetric", "map_seed": 25}, [5, 7, 8, 2, 9, 4, 4, 5, 1, 7]),
        ({"noise": "asymmetric_dividemix"}, [-1, -1, 0, 5, 7, 3, -1, -1, -1, 1]),
        ({"noise": "asymmetric", "noise_rate": 0.0}, [-1] * 10),
        ({"noise": "symmetric"}, [-1] * 10),
        ({"noise": "none"}, [-1] * 10),
        ({"noise": "joint"}, [-1] * 10),
    ],
)
def test_class_map_is_kept(options, expected):
    made = drawn(np.arange(2000) % 10, 10, **options)
    assert made.class_map.tolist() == expected
    if expected != [-1] * 10:
        wrong = made.clean_labels != made.noisy_labels
        np.testing.assert_array_equal(made.noisy_labels[wrong], np.array(expected)[made.clean_labels[wrong]])
        assert wrong.any()


def test_human_labels_are_taken_as_they_are():
    labels = np.arange(1000) % 10
    human = np.random.default_rng(3).integers(0, 10, 1000)
    made = drawn(labels, 10, noise="human_worse", human_labels=human)
    np.testing.assert_array_equal(made.noisy_labels, human[made.index])
    assert made.noisy_labels.dtype == np.int32
    assert np.isnan(made.nominal_rate)
    assert made.class_map.tolist() == [-1] * 10
    # The same subset as for synthetic noise.
    np.testing.assert_array_equal(made.index, drawn(labels, 10).index)
    assert made.realised_rate == (human[made.index] != labels[made.index]).mean()


@pytest.mark.parametrize(
    ("labels", "num_classes", "options", "words"),
    [
        (np.arange(100) % 10, 10, {"imbalance_ratio": 100}, "leaves 5 of 10 classes empty.*at most 10"),
        (np.arange(100) % 10, 10, {"imbalance_ratio": 0.5}, "at least 1, got 0.5"),
        (np.arange(100) % 10, 10, {"imbalance_ratio": float("nan")}, "at least 1, got nan"),
        (np.arange(100) % 10, 10, {"noise": "flip"}, "Unknown noise 'flip'"),
        (np.arange(100) % 10, 10, {"noise_rate": 1.5}, r"in \[0, 1\], got 1.5"),
        (np.arange(100) % 10, 10, {"noise_rate": float("nan")}, r"in \[0, 1\], got nan"),
        (np.arange(100) % 10, 10, {"data_seed": -1}, "must be an integer in .0, 2.32., got -1"),
        (np.arange(100) % 10, 10, {"noise": "human_worse"}, "'human_worse' needs human labels"),
        (np.arange(100) % 20, 20, {"noise": "asymmetric_dividemix", "imbalance_ratio": 1}, "20 classes"),
        (np.array([0, 0, 2, 2, 4]), 5, {}, r"Classes \[1, 3\] have no training example"),
        (np.arange(100) % 10, 11, {}, r"Classes \[10\] have no training example"),
        (np.zeros(0, int), 2, {}, r"Classes \[0, 1\] have no training example"),
    ],
)
def test_corrupt_refuses(labels, num_classes, options, words):
    with pytest.raises(InputError, match=words):
        drawn(labels, num_classes, **options)
