"""Examples that are there more than once, and folds that keep them together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax import InputError, audit
from dsink_jax.data.copies import find_copies
from dsink_jax.training_set import TrainingSet, make_folds


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30), st.sampled_from([np.float32, np.uint8, np.int64])
)
def test_equal_rows_have_equal_numbers(kinds, dtype):
    rows = np.array([[kind, 7, kind * 2] for kind in kinds], dtype)
    found = find_copies(rows)
    assert ((found[:, None] == found) == (rows[:, None] == rows).all(-1)).all()
    assert sorted(set(found)) == list(range(len(set(kinds))))
    np.testing.assert_array_equal(find_copies(rows.reshape(len(rows), 3, 1)), found)


def test_copies_are_in_one_fold_and_without_any_nothing_changes():
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 4
    once = TrainingSet(inputs, labels, 4)
    assert once.folds_by is None
    np.testing.assert_array_equal(once.make_folds(5, 0), make_folds(labels, 5, 0))
    order = rng.permutation(120)
    thrice = TrainingSet(np.tile(inputs, (3, 1))[order], np.tile(labels, 3)[order], 4)
    fold = thrice.make_folds(5, 0)
    assert all(len(set(fold[thrice.folds_by == group])) == 1 for group in range(40))
    # Every class is dealt out evenly all the same.
    assert (np.stack([np.bincount(fold[thrice.labels == c], minlength=5) for c in range(4)]) == 6).all()
    with pytest.raises(InputError, match="2 different examples, too few for 5 folds"):
        TrainingSet(np.repeat(inputs[:2], 10, 0), np.arange(20) % 2, 2).make_folds(5, 0)


def test_wrong_labels_of_copies_are_found_as_those_of_single_examples():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 150)
    vectors = (0.25 * rng.normal(size=(3, 256))[true] + rng.normal(size=(150, 256))).astype(np.float32)
    labels = np.where(np.arange(150) % 10 == 0, (true + 1) % 3, true)
    how = {"epochs": 20, "batch_size": 32, "selection": False}
    once = audit.audit_labels(vectors, labels, **how)
    twice = audit.audit_labels(np.tile(vectors, (2, 1)), np.tile(labels, 2), **how)
    wrong = labels != true
    assert (once.is_wrong & wrong).sum() >= 8
    assert (twice.is_wrong[:150] & wrong).sum() >= 8
