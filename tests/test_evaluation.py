import numpy as np
import pytest
from sklearn import metrics

from dsink_jax.evaluation import (
    balanced_accuracy,
    class_groups,
    confusion_matrix,
    expected_calibration_error,
    group_accuracy,
    macro_f1,
    noisy_corrected,
    noisy_memorised,
    per_class_accuracy,
)


@pytest.mark.parametrize(
    ("counts", "many", "medium", "few"),
    [
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], [0, 1, 2], [3, 4, 5], [6, 7, 8]),
        (list(range(10, 0, -1)), [0, 1, 2], [3, 4, 5, 6], [7, 8, 9]),
        ([50, 40, 30, 20, 10], [0], [1, 2, 3], [4]),
        ([10, 30, 20], [1], [2], [0]),  # by count, not by index
        ([5, 100, 5, 1, 100, 20], [1, 4], [0, 5], [2, 3]),  # 20 then 5, 5: the tie goes by index
        ([7, 7, 7], [0], [1], [2]),
        ([0, 3], [1], [], [0]),
        ([4], [], [0], []),
        ([], [], [], []),
    ],
)
def test_class_groups(counts, many, medium, few):
    groups = class_groups(np.array(counts))
    assert [group.tolist() for group in groups] == [many, medium, few]
    assert groups.many.tolist() == many
    assert groups.few.tolist() == few


@pytest.mark.parametrize("num_classes", [2, 3, 7, 10, 100, 101])
def test_class_groups_are_a_partition_by_count(num_classes):
    counts = np.random.default_rng(num_classes).integers(0, 30, num_classes)
    many, medium, few = class_groups(counts)
    by_count = sorted(range(num_classes), key=lambda index: (-counts[index], index))
    assert [*many, *medium, *few] == [
        *sorted(by_count[: len(many)]),
        *sorted(by_count[len(many) : -len(few)]),
        *sorted(by_count[-len(few) :]),
    ]
    assert len(many) == len(few) == max(num_classes // 3, 1)


def test_per_class_accuracy():
    labels = np.array([0, 0, 0, 0, 1, 1, 3])
    predictions = np.array([0, 0, 0, 1, 1, 3, 0])
    got = per_class_accuracy(predictions, labels, num_classes=5)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [0.75, 0.5, np.nan, 0.0, np.nan])


def test_per_class_accuracy_without_examples():
    empty = np.zeros(0, int)
    np.testing.assert_array_equal(per_class_accuracy(empty, empty, 3), [np.nan] * 3)


def test_per_class_accuracy_of_balanced_data_averages_to_the_accuracy():
    rng = np.random.default_rng(0)
    labels, predictions = np.repeat(np.arange(6), 20), rng.integers(0, 6, 120)
    got = per_class_accuracy(predictions, labels, 6).mean()
    assert got == pytest.approx((predictions == labels).mean())


def test_balanced_accuracy_and_macro_f1_by_hand():
    """Class 3 has no example, and is predicted once."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 0, 1, 1, 3, 0])
    assert balanced_accuracy(predictions, labels, 5) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # TP, FP, FN: (3, 1, 1), (1, 1, 1), (0, 0, 1).
    assert macro_f1(predictions, labels, 5) == pytest.approx((6 / 8 + 2 / 4 + 0) / 3)
    assert isinstance(balanced_accuracy(predictions, labels, 5), float)
    assert isinstance(macro_f1(predictions, labels, 5), float)


@pytest.mark.parametrize("measure", [balanced_accuracy, macro_f1])
def test_balanced_measures_at_the_ends(measure):
    labels, empty = np.array([0, 2, 2, 2]), np.zeros(0, int)
    assert measure(labels, labels, 3) == 1
    assert measure((labels + 1) % 3, labels, 3) == 0
    assert np.isnan(measure(empty, empty, 3))
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 2\)"):
        measure(labels, labels, 2)


def test_balanced_measures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(8, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0]).astype(np.uint8)
    predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(0, 7, 300)).astype(np.uint8)
    expected = metrics.balanced_accuracy_score(labels, predictions)
    assert balanced_accuracy(predictions, labels, 8) == pytest.approx(expected)
    expected = metrics.f1_score(labels, predictions, average="macro")
    assert macro_f1(predictions, labels, 8) == pytest.approx(expected)


def test_confusion_matrix_by_hand():
    true, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 2, 0])
    matrix = confusion_matrix(predicted, true, 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_confusion_matrix_agrees_with_accuracies():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 100, (2, 5000)).astype(np.uint8)  # products of uint8 would wrap around
    matrix = confusion_matrix(predicted, true, 100)
    assert matrix.sum() == 5000
    np.testing.assert_allclose(np.diag(matrix) / matrix.sum(1), per_class_accuracy(predicted, true, 100))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_confusion_matrix_refuses_other_classes(wrong):
    good, bad = np.array([0, 1]), np.array([0, wrong])
    for arguments in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\)"):
            confusion_matrix(*arguments, 3)


def test_group_accuracy():
    per_class = np.array([1.0, 0.5, 0.25, 0.0])
    assert group_accuracy(per_class, np.array([0, 2])) == 0.625
    assert isinstance(group_accuracy(per_class, np.array([1])), float)
    assert np.isnan(group_accuracy(per_class, np.array([], int)))
    assert np.isnan(group_accuracy(np.array([1.0, np.nan]), np.array([0, 1])))  # a class was not tested


def test_noisy_corrected():
    true = np.array([0, 1, 2, 0, 1, 2])
    observed = np.array([0, 2, 2, 1, 0, 1])  # examples 1, 3, 4, 5 are mislabelled
    predictions = np.array([1, 1, 0, 1, 1, 0])  # right, the wrong label again, right, a third class
    assert noisy_corrected(predictions, observed, true) == 0.5
    assert noisy_corrected(true, observed, true) == 1.0
    assert noisy_corrected(observed, observed, true) == 0.0
    assert isinstance(noisy_corrected(predictions, observed, true), float)
    assert np.isnan(noisy_corrected(predictions, true, true))


def test_noisy_memorised():
    true = np.array([0, 1, 2, 0, 1, 2])
    observed = np.array([0, 2, 2, 1, 0, 1])  # examples 1, 3, 4, 5 are mislabelled
    predictions = np.array([1, 1, 0, 1, 1, 0])  # right, the wrong label again, right, a third class
    assert noisy_memorised(predictions, observed, true) == 0.25
    assert noisy_memorised(observed, observed, true) == 1.0
    assert noisy_memorised(true, observed, true) == 0.0
    assert np.isnan(noisy_memorised(predictions, true, true))


def two_classes(confidences, correct):
    """Predictions of class 0 with the given confidence; the label is 0 where correct."""
    confidences = np.array(confidences)
    return np.stack([confidences, 1 - confidences], 1), np.where(correct, 0, 1)


@pytest.mark.parametrize(
    ("confidences", "correct", "bins", "expected"),
    [
        ([1.0, 1.0], [True, True], 15, 0.0),
        ([1.0, 1.0], [False, False], 15, 1.0),
        # Confidence 1 belongs to the last bin, here with 0.75: |0 - 1 + 1 - 0.75| / 2.
        ([1.0, 0.75], [False, True], 2, 0.375),
        ([0.75] * 4, [True, True, True, False], 10, 0.0),
        ([0.75] * 4, [True, False, False, False], 10, 0.5),
        # One bin of [0.5, 1): mean confidence 0.75, accuracy 1/2; the gaps of its members cancel.
        ([0.625, 0.875], [True, False], 2, 0.25),
        # The same in bins of their own: (|1 - 0.625| + |0 - 0.875|) / 2.
        ([0.625, 0.875], [True, False], 4, 0.625),
        # Bins weigh as many examples as they have: 3/4 * |1 - 0.625| + 1/4 * |0 - 0.875|.
        ([0.625, 0.625, 0.625, 0.875], [True, True, True, False], 4, 0.5),
    ],
)
def test_expected_calibration_error(confidences, correct, bins, expected):
    probabilities, labels = two_classes(confidences, correct)
    got = expected_calibration_error(probabilities, labels, bins)
    assert isinstance(got, float)
    assert got == pytest.approx(expected)


def test_expected_calibration_error_by_its_definition():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.4), 500)
    labels = rng.integers(0, 5, 500)
    confidence, prediction = probabilities.max(1), probabilities.argmax(1)
    expected = 0.0
    for low in np.arange(15) / 15:
        member = (confidence >= low) & (confidence < low + 1 / 15)
        if member.any():
            accuracy = (prediction[member] == labels[member]).mean()
            expected += member.mean() * abs(accuracy - confidence[member].mean())
    assert expected > 0.1
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    single = expected_calibration_error(probabilities.astype(np.float32), labels)
    assert single == pytest.approx(expected, abs=1e-5)
