"""Baselines that are made of two trained auxiliaries."""

import numpy as np
import pytest

from dsink_jax.errors import InputError
from dsink_jax.methods import AdjustedNoiseRobust, Ensemble
from method_references import CLASSES, IMBALANCE_ROBUST, NOISE_ROBUST, rows, softmax

TRAINING = rows(9, count=30)


def test_ensemble_is_the_mean_of_probabilities():
    combined = Ensemble().combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING)
    expected = (softmax(NOISE_ROBUST) + softmax(IMBALANCE_ROBUST)) / 2
    np.testing.assert_allclose(np.exp(combined), expected, rtol=1e-10)
    # It does not depend on the logits' offsets.
    shifted = Ensemble().combine(NOISE_ROBUST + 100, IMBALANCE_ROBUST - 50, TRAINING)
    np.testing.assert_allclose(shifted, combined, atol=1e-4)


def test_ensemble_of_sure_models_is_finite():
    one, other = np.array([[0.0, -2000.0]]), np.array([[-2000.0, 0.0]])
    np.testing.assert_allclose(np.exp(Ensemble().combine(one, other, TRAINING)), [[0.5, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_adjusted_by_the_mean_prediction_on_the_training_set(tau):
    combined = AdjustedNoiseRobust(tau=tau).combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING)
    prior = softmax(TRAINING).mean(0)
    expected = softmax(NOISE_ROBUST) / prior**tau
    expected = expected / expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax(combined), expected, rtol=1e-10)


def test_adjusted_by_a_given_prior():
    prior = (0.7, 0.2, 0.1)
    combined = AdjustedNoiseRobust(prior).combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING)
    expected = softmax(NOISE_ROBUST) / np.array(prior)
    np.testing.assert_allclose(softmax(combined), expected / expected.sum(-1, keepdims=True), rtol=1e-10)
    # f_L has no part in it.
    other = AdjustedNoiseRobust(prior).combine(NOISE_ROBUST, rows(77), TRAINING)
    np.testing.assert_array_equal(other, combined)


def test_a_uniform_prior_changes_no_prediction():
    combined = AdjustedNoiseRobust((1 / 3,) * CLASSES).combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING)
    np.testing.assert_allclose(softmax(combined), softmax(NOISE_ROBUST), rtol=1e-10)


def test_a_class_without_examples_is_refused():
    with pytest.raises(InputError, match="class 1 has none"):
        AdjustedNoiseRobust((0.7, 0.0, 0.3))
