import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax.data import noise
from dsink_jax.errors import InputError

SYNTHETIC = ("none", "symmetric", "symmetric_others", "asymmetric", "joint", "joint_inclusive")

# Class maps of TABASCO's `flip` noise: its training script seeds with 1, its second loader with 25.
MAP_10_SEED_1 = [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]
MAP_10_SEED_25 = [5, 7, 8, 2, 9, 4, 4, 5, 1, 7]
MAP_100_SEED_1 = [
    *(38, 13, 73, 10, 76, 6, 80, 65, 17, 1, 77, 72, 6, 26, 51, 21, 19, 85, 11, 29, 30, 14, 51, 69, 88),
    *(88, 95, 97, 87, 13, 9, 7, 64, 62, 22, 58, 1, 0, 61, 82, 8, 89, 13, 48, 73, 30, 72, 3, 71, 21),
    *(49, 58, 3, 69, 24, 43, 77, 26, 52, 81, 41, 83, 15, 65, 69, 25, 99, 88, 7, 26, 25, 22, 9, 67, 23),
    *(27, 37, 57, 84, 38, 8, 32, 34, 10, 23, 15, 88, 25, 71, 93, 74, 62, 46, 32, 88, 23, 55, 65, 77, 3),
]

# Five standard deviations: about one cell in two million falls outside by chance.
SIGMAS = 5.0


def matrix(kind, rate=0.4, num_classes=10, **options):
    if kind.startswith("joint"):
        options.setdefault("class_counts", np.arange(1, num_classes + 1))
    return noise.transition_matrix(kind, rate, num_classes, **options)


@pytest.mark.parametrize(
    ("num_classes", "map_seed", "expected"),
    [(10, 1, MAP_10_SEED_1), (10, 25, MAP_10_SEED_25), (100, 1, MAP_100_SEED_1)],
)
def test_class_map_is_the_published_one(num_classes, map_seed, expected):
    assert noise.random_class_map(num_classes, map_seed).tolist() == expected
    # The same row by row in the matrix.
    full = matrix("asymmetric", 1.0, num_classes, map_seed=map_seed)
    assert full.tolist() == [[float(k == to) for k in range(num_classes)] for to in expected]


@given(num_classes=st.integers(2, 120), map_seed=st.integers(0, 2**32 - 1))
def test_class_map_has_another_class_for_each(num_classes, map_seed):
    class_map = noise.random_class_map(num_classes, map_seed)
    assert class_map.shape == (num_classes,)
    assert ((class_map >= 0) & (class_map < num_classes)).all()
    assert (class_map != np.arange(num_classes)).all()


def test_default_map_seed_is_that_of_the_training_script():
    np.testing.assert_array_equal(matrix("asymmetric"), matrix("asymmetric", map_seed=1))
    assert (matrix("asymmetric") != matrix("asymmetric", map_seed=25)).any()


def test_matrices_by_hand():
    cases = {
        ("none", 0.3): [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        # 0.7 stays; 0.3 is spread over 3 classes, the true one included.
        ("symmetric", 0.3): [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],
        ("symmetric_others", 0.3): [[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]],
        # Counts 6, 3, 1: own class left out, the others in proportion.
        ("joint", 0.5): [[1 / 2, 3 / 8, 1 / 8], [3 / 7, 1 / 2, 1 / 14], [1 / 3, 1 / 6, 1 / 2]],
        # Own class included: half a label stays, half is drawn 0.6, 0.3, 0.1.
        ("joint_inclusive", 0.5): [[0.8, 0.15, 0.05], [0.3, 0.65, 0.05], [0.3, 0.15, 0.55]],
    }
    for (kind, rate), expected in cases.items():
        actual = noise.transition_matrix(kind, rate, 3, class_counts=np.array([6, 3, 1]))
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, expected, rtol=1e-14, err_msg=kind)


def test_asymmetric_matrix_by_hand():
    expected = np.zeros((10, 10))
    for true, observed in enumerate(MAP_10_SEED_25):
        expected[true, true], expected[true, observed] = 0.8, 0.2
    np.testing.assert_allclose(matrix("asymmetric", 0.2, map_seed=25), expected, rtol=1e-14)


def test_dividemix_matrix_by_hand():
    airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck = range(10)
    expected = np.eye(10)
    for true, observed in (
        (truck, automobile),
        (bird, airplane),
        (cat, dog),
        (dog, cat),
        (deer, horse),
    ):
        expected[true, true], expected[true, observed] = 0.6, 0.4
    np.testing.assert_allclose(matrix("asymmetric_dividemix"), expected, rtol=1e-14)
    np.testing.assert_array_equal(
        np.flatnonzero(expected.diagonal() == 1), [airplane, automobile, frog, horse, ship]
    )


@pytest.mark.parametrize(
    ("rate", "num_classes", "wrong"), [(0.4, 10, 0.36), (0.6, 10, 0.54), (0.4, 100, 0.396), (0.6, 100, 0.594)]
)
def test_real_error_of_symmetric_noise(rate, num_classes, wrong):
    np.testing.assert_allclose(1 - matrix("symmetric", rate, num_classes).diagonal(), wrong, rtol=1e-12)
    # The other convention makes the nominal rate the real one.
    others = matrix("symmetric_others", rate, num_classes)
    np.testing.assert_allclose(1 - others.diagonal(), rate, rtol=1e-12)


@given(
    kind=st.sampled_from(SYNTHETIC),
    rate=st.floats(0, 1),
    counts=st.lists(st.integers(1, 5000), min_size=2, max_size=40),
)
def test_rows_are_distributions(kind, rate, counts):
    rows = noise.transition_matrix(kind, rate, len(counts), class_counts=np.array(counts))
    assert rows.shape == (len(counts),) * 2
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-12)
    if kind not in ("symmetric", "joint_inclusive", "none"):
        np.testing.assert_allclose(1 - rows.diagonal(), rate, atol=1e-12)


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_rate_zero_changes_nothing(kind):
    np.testing.assert_array_equal(matrix(kind, 0.0), np.eye(10))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flip", 0.4, 10), "Unknown noise 'flip'.*symmetric_others.*human_worse"),
        (("", 0.4, 10), "Unknown noise ''"),
        (("symmetric", 1.01, 10), r"in \[0, 1\], got 1.01"),
        (("symmetric", -0.1, 10), r"in \[0, 1\], got -0.1"),
        (("symmetric", float("nan"), 10), r"in \[0, 1\], got nan"),
        (("none", float("nan"), 10), r"in \[0, 1\], got nan"),
        (("symmetric", float("inf"), 10), r"in \[0, 1\], got inf"),
        (("asymmetric_dividemix", 0.4, 100), "CIFAR-10, got 100 classes. Use 'asymmetric'"),
        (("joint", 0.4, 10), "'joint' needs class_counts"),
        (("joint_inclusive", 0.4, 10), "'joint_inclusive' needs class_counts"),
        *(
            ((kind, 0.4, 10), f"'{kind}' is a set of labels, not a matrix")
            for kinds in noise.HUMAN_KINDS.values()
            for kind in kinds
        ),
    ],
)
def test_matrix_refuses(arguments, words):
    with pytest.raises(InputError, match=words):
        noise.transition_matrix(*arguments)


def test_every_kind_is_listed():
    human = [kind for kinds in noise.HUMAN_KINDS.values() for kind in kinds]
    assert sorted(noise.NOISE_KINDS) == sorted((*SYNTHETIC, "asymmetric_dividemix", *human))
    for kind in noise.NOISE_KINDS:
        noise.check_noise(kind, None)  # the rate of human labels is not known before


def frequencies(true, observed, num_classes):
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (true, observed), 1)
    return counts


@pytest.mark.parametrize("kind", [*SYNTHETIC, "asymmetric_dividemix"])
def test_draws_follow_the_matrix(kind):
    per_class = 20_000
    rows = matrix(kind)
    true = np.repeat(np.arange(10), per_class)
    observed = noise.draw_labels(true, rows, 3)
    assert observed.dtype == np.int32
    counts = frequencies(true, observed, 10)
    deviation = np.sqrt(per_class * rows * (1 - rows))
    # Cells of probability 0 and 1 have no deviation: they are exact.
    assert (np.abs(counts - per_class * rows) <= SIGMAS * deviation).all()


def test_each_label_is_drawn_on_its_own():
    # The number of wrong labels over many draws varies as a binomial one, unlike an exact count.
    size, repeats, wrong = 1000, 400, 0.36
    true = np.arange(size) % 10
    rows = matrix("symmetric")
    counts = [(noise.draw_labels(true, rows, (7, draw)) != true).sum() for draw in range(repeats)]
    variance = size * wrong * (1 - wrong)
    assert abs(np.mean(counts) - size * wrong) <= SIGMAS * np.sqrt(variance / repeats)
    # The variance of a sample variance of a normal is 2 / (n - 1) of its square.
    assert abs(np.var(counts, ddof=1) / variance - 1) <= SIGMAS * np.sqrt(2 / (repeats - 1))
    # Neighbours in order do not depend on each other.
    flipped = noise.draw_labels(np.zeros(100_000, int), rows, 0) != 0
    pairs = flipped[1:] & flipped[:-1]
    # Each pair shares a label with the next one: that is the second term.
    variance = wrong**2 * (1 - wrong**2) + 2 * wrong**3 * (1 - wrong)
    assert abs(pairs.sum() - len(pairs) * wrong**2) <= SIGMAS * np.sqrt(len(pairs) * variance)


@given(
    size=st.integers(1, 300),
    share=st.floats(0, 1),
    counts=st.lists(st.integers(1, 50), min_size=2, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_exact_count_changes_as_many_labels(size, share, counts, seed):
    true = np.arange(size) % len(counts)
    exact = int(share * size)
    rows = noise.transition_matrix("joint", 0.5, len(counts), class_counts=np.array(counts))
    observed = noise.draw_labels(true, rows, seed, exact_count=exact)
    assert (observed != true).sum() == exact
    assert ((observed >= 0) & (observed < len(counts))).all()


def test_exact_count_draws_the_other_classes_by_their_counts():
    counts = np.array([60, 30, 10])
    true = np.repeat(np.arange(3), 40_000)
    rows = noise.transition_matrix("joint", 0.4, 3, class_counts=counts)
    observed = noise.draw_labels(true, rows, 5, exact_count=48_000)
    for c in range(3):
        changed = observed[(true == c) & (observed != c)]
        # Which labels are changed does not depend on the class: 0.4 of each.
        assert abs(len(changed) - 16_000) <= SIGMAS * np.sqrt(40_000 * 0.4 * 0.6)
        for other in set(range(3)) - {c}:
            probability = counts[other] / (100 - counts[c])
            deviation = np.sqrt(len(changed) * probability * (1 - probability))
            assert abs((changed == other).sum() - len(changed) * probability) <= SIGMAS * deviation


def test_exact_count_ignores_the_rate_of_the_matrix():
    # Only the rows without their diagonal count.
    true = np.arange(500) % 10
    low, high = (noise.draw_labels(true, matrix("joint", rate), 2, exact_count=200) for rate in (0.1, 0.9))
    np.testing.assert_array_equal(low, high)


def test_inclusive_joint_noise_is_wrong_less_often_than_its_rate():
    counts = np.array([5000, 3000, 2000])
    true = np.repeat(np.arange(3), counts)
    rows = noise.transition_matrix("joint_inclusive", 0.6, 3, class_counts=counts)
    # 0.6 * (1 - 0.5^2 - 0.3^2 - 0.2^2)
    expected = 0.6 * 0.62
    wrong = (noise.draw_labels(true, rows, 11) != true).mean()
    assert abs(wrong - expected) <= SIGMAS * np.sqrt(expected * (1 - expected) / len(true))


@given(seed=st.integers(0, 2**64), stream=st.integers(0, 5))
def test_draws_depend_on_the_seed_alone(seed, stream):
    true = np.arange(200) % 10
    before = true.copy()
    rows = matrix("symmetric")
    first = noise.draw_labels(true, rows, (seed, stream))
    np.testing.assert_array_equal(first, noise.draw_labels(true, rows, (seed, stream)))
    np.testing.assert_array_equal(true, before)
    assert (first != noise.draw_labels(true, rows, (seed, stream + 1))).any()


def test_global_numpy_state_is_neither_read_nor_changed():
    true = np.arange(1000) % 10
    results = []
    for seed in (0, 1):
        np.random.seed(seed)
        state = np.random.get_state()[1].copy()
        results.append((noise.random_class_map(10, 25), noise.draw_labels(true, matrix("asymmetric"), 9)))
        np.testing.assert_array_equal(np.random.get_state()[1], state)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_any_integer_labels(dtype):
    true = np.arange(100) % 10
    expected = noise.draw_labels(true, matrix("symmetric"), 1)
    observed = noise.draw_labels(true.astype(dtype), matrix("symmetric"), 1)
    assert observed.dtype == np.int32
    np.testing.assert_array_equal(observed, expected)


def test_no_labels():
    assert noise.draw_labels(np.zeros(0, int), matrix("symmetric"), 0).shape == (0,)
