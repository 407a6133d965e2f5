"""A fit warns of auxiliary models that have learned nothing, and of no others."""

import warnings

import numpy as np
import pytest

from dsink_jax import fit
from dsink_jax.estimator.cautions import warn_of_hopeless

LABELS = np.arange(80) % 4


def test_labels_that_do_not_belong_to_the_inputs_are_warned_of():
    vectors = np.random.default_rng(0).standard_normal((80, 5))
    with pytest.warns(UserWarning) as caught:
        fit(vectors, LABELS, epochs=2, selection=False)
    words = [str(one.message) for one in caught if one.category is UserWarning]
    assert [word.partition(" ")[0] for word in words] == ["f_L", "f_N"]
    assert all("by guessing 25 %" in word and "epochs=" in word for word in words)


def test_models_that_have_learned_are_not():
    vectors = np.eye(4)[LABELS] + 0.1 * np.random.default_rng(0).standard_normal((80, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(vectors, LABELS, epochs=30)


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    """Always the frequent class: 90 % of the labels, and no better than chance."""
    labels = np.repeat([0, 1], [90, 10])
    with pytest.warns(UserWarning, match="balanced accuracy 50 %, by guessing 50 %"):
        warn_of_hopeless(labels, {"noise_robust": np.eye(2)[np.zeros(100, int)]})
