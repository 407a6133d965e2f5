import dataclasses
import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax.data import corruption as corruptions
from dsink_jax.data.corruption import (
    corrupt,
    describe,
    load_corruption,
    long_tail_counts,
    long_tail_index,
    save_corruption,
)
from dsink_jax.errors import InputError

CIFAR10_RATIO_10 = [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]
CIFAR10_RATIO_100 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
MAP_10_SEED_1 = [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]

SIGMAS = 5.0  # of a binomial: about one draw in two million falls outside


@pytest.fixture(scope="module")
def cifar10_labels():
    """The labels of a balanced set of the size of CIFAR-10, in an order of no meaning."""
    return np.random.default_rng(0).permutation(np.arange(50_000) % 10)


@pytest.fixture(scope="module")
def cifar100_labels():
    return np.random.default_rng(0).permutation(np.arange(50_000) % 100)


def drawn(labels, num_classes, **changes):
    options = {"imbalance_ratio": 10.0, "noise": "symmetric", "noise_rate": 0.4, "data_seed": 0} | changes
    return corrupt(labels, num_classes, **options)


@pytest.fixture(scope="module")
def small():
    labels = np.arange(600) % 3
    return drawn(labels, 3, noise="asymmetric", data_seed=4)


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
        ({"noise": "asymmetric_dividemix"}, [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]),
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
        (np.arange(100) % 10, 10, {"data_seed": -1}, "must not be negative, got -1"),
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


# The digest and the file.

# The digest of a small set, drawn once; another value would mean other subsets or labels for every seed.
GOLDEN = "0ddc44f156955c5d1f9e02ad85a38f386ad98cb4146a7bb9b8b3d1e52f716674"
GOLDEN_SCRIPT = """
import numpy as np
from dsink_jax.data.corruption import corrupt

made = corrupt(
    np.arange(1000) % 10, 10, imbalance_ratio=10.0, noise="symmetric", noise_rate=0.4, data_seed=5
)
print(made.sha256)
"""


def golden():
    return drawn(np.arange(1000) % 10, 10, data_seed=5)


def test_digest_is_pinned():
    assert golden().sha256 == GOLDEN


@pytest.mark.slow
def test_digest_is_the_same_in_another_process():
    root = pathlib.Path(corruptions.__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        [sys.executable, "-c", GOLDEN_SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == GOLDEN


def test_digest_covers_integers_as_int64_and_settings_as_text(small):
    digest = hashlib.sha256()
    for array in (
        small.index,
        small.clean_labels,
        small.noisy_labels,
        small.counts_before,
        small.class_map,
    ):
        digest.update(b"".join(int(value).to_bytes(8, "little", signed=True) for value in array))
    digest.update(b"['asymmetric', '0.4', '10.0', '4']")
    assert small.sha256 == digest.hexdigest()


def changes(made):
    """One change of each array and setting, by its name."""
    return {
        "index": made.index[::-1],
        "clean_labels": (made.clean_labels + 1) % 3,
        "noisy_labels": np.where(
            np.arange(len(made.index)) == 7, (made.noisy_labels + 1) % 3, made.noisy_labels
        ),
        "counts_before": made.counts_before + np.array([0, 0, 1]),
        "class_map": made.class_map[::-1],
        "noise": "symmetric",
        "nominal_rate": 0.4000001,
        "imbalance_ratio": 11.0,
        "data_seed": 5,
    }


def test_digest_changes_with_every_part(small):
    changed = changes(small)
    assert set(changed) == {field.name for field in dataclasses.fields(small)}
    digests = {dataclasses.replace(small, **{name: value}).sha256 for name, value in changed.items()}
    assert len(digests | {small.sha256}) == len(changed) + 1


def assert_same(actual, expected):
    for field in dataclasses.fields(expected):
        one, two = getattr(actual, field.name), getattr(expected, field.name)
        assert type(one) is type(two), field.name
        np.testing.assert_array_equal(one, two, err_msg=field.name, strict=True)
    assert actual.sha256 == expected.sha256


def test_round_trip(tmp_path, small):
    path = tmp_path / "corruption.npz"
    save_corruption(path, small)
    assert_same(load_corruption(path), small)
    assert [file.name for file in tmp_path.iterdir()] == ["corruption.npz"]  # nothing half-written is left


def test_round_trip_of_human_labels(tmp_path):
    labels = np.arange(100) % 10
    made = drawn(labels, 10, noise="human_aggre", human_labels=labels[::-1])
    save_corruption(tmp_path / "c.npz", made)
    loaded = load_corruption(tmp_path / "c.npz")
    assert np.isnan(loaded.nominal_rate)
    assert_same(loaded, made)


def test_saving_replaces_an_older_file(tmp_path, small):
    path = tmp_path / "corruption.npz"
    path.write_text("something else")
    save_corruption(path, small)
    assert_same(load_corruption(path), small)


def saved_parts(made, path):
    save_corruption(path, made)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize(
    "name",
    [field.name for field in dataclasses.fields(corruptions.Corruption)],
)
def test_a_changed_part_is_noticed(tmp_path, small, name):
    path = tmp_path / "corruption.npz"
    parts = saved_parts(small, path)
    np.savez(path, **parts | {name: changes(small)[name]})
    with pytest.raises(InputError, match="does not match its digest"):
        load_corruption(path)
    np.savez(path, **parts)  # the same route without the change is fine
    assert_same(load_corruption(path), small)


@given(data=st.data())
def test_one_changed_label_is_noticed(tmp_path_factory, small, data):
    path = tmp_path_factory.getbasetemp() / "one-label.npz"
    parts = saved_parts(small, path)
    name = data.draw(st.sampled_from(["index", "clean_labels", "noisy_labels"]))
    position = data.draw(st.integers(0, len(small.index) - 1))
    parts[name][position] += data.draw(st.sampled_from([-1, 1]))
    np.savez(path, **parts)
    with pytest.raises(InputError, match="does not match its digest"):
        load_corruption(path)


@given(data=st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, small, data):
    path = tmp_path_factory.getbasetemp() / "truncated.npz"
    save_corruption(path, small)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match="not a readable corrupted set"):
        load_corruption(path)


def test_a_flipped_byte_is_refused_or_harmless(tmp_path, small):
    path = tmp_path / "flipped.npz"
    save_corruption(path, small)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            loaded = load_corruption(path)
        except InputError:
            refused += 1
        else:
            assert_same(loaded, small)
    assert refused > len(whole) // 2


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file .*nowhere\.npz\.\nGive the corruption.npz of a run"):
        load_corruption(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("index,label\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps({"index": [1]})),
        lambda path: path.mkdir(),
        lambda path: np.savez(path, labels=np.arange(3)),
        lambda path: np.savez(path, **dict.fromkeys(("index", "clean_labels"), np.array([None]))),
        lambda path: zipfile.ZipFile(path, "w").close(),
        lambda path: path.write_bytes(_npy(np.arange(3))),
    ],
    ids=["text", "empty", "pickle", "folder", "other_npz", "objects", "empty_zip", "npy"],
)
def test_another_file_is_refused(tmp_path, write):
    path = tmp_path / "corruption.npz"
    write(path)
    with pytest.raises(InputError, match=r"not a readable corrupted set.*\nGive the corruption.npz"):
        load_corruption(path)


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# The description.


def test_describe_states_the_numbers(cifar10_labels):
    made = drawn(cifar10_labels, 10, imbalance_ratio=100, noise="asymmetric", noise_rate=0.2, data_seed=17)
    text = describe(made)
    assert "12,406 training images, imbalance ratio 100, data seed 17" in text
    wrong = 100 * (made.clean_labels != made.noisy_labels).mean()
    assert f"noise asymmetric: nominal rate 0.2, realised {wrong:.1f} % wrong labels" in text
    assert "5000 2997 1796 1077 645 387 232 139 83 50  (of 10 x 5000)" in text
    assert " ".join(str((made.noisy_labels == c).sum()) for c in range(10)) in text
    assert text.splitlines()[-1].split() == ["class", "map", *map(str, MAP_10_SEED_1)]


def test_describe_shortens_many_classes(cifar100_labels):
    lines = describe(drawn(cifar100_labels, 100, imbalance_ratio=100)).splitlines()
    assert lines[0].startswith("10,847 training images")
    assert " ".join(lines[2].split()[4:]) == "500 477 455 434 415 ... 6 5 5 5 5 (of 100 x 500)"
    assert len(lines) == 4  # no class map


def test_describe_without_a_nominal_rate():
    labels = np.arange(100) % 10
    text = describe(drawn(labels, 10, noise="human_aggre", human_labels=labels, imbalance_ratio=1.0))
    assert "human_aggre" in text
    assert "realised 0.0 %" in text
    assert "10 x 10" in text
