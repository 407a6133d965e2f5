"""Baselines that are made of two trained auxiliaries."""

import numpy as np
import pytest

from dsink_jax.methods import AdjustedNoiseRobust, Ensemble, make_facts
from method_references import FACTS, IMBALANCE_ROBUST, NOISE_ROBUST, PRIOR, rows, softmax

TRAINING = rows(9, count=30)


def test_ensemble_is_the_mean_of_probabilities():
    combined = Ensemble().combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING, FACTS)
    expected = (softmax(NOISE_ROBUST) + softmax(IMBALANCE_ROBUST)) / 2
    np.testing.assert_allclose(np.exp(combined), expected, rtol=1e-10)
    # It does not depend on the logits' offsets.
    shifted = Ensemble().combine(NOISE_ROBUST + 100, IMBALANCE_ROBUST - 50, TRAINING, FACTS)
    np.testing.assert_allclose(shifted, combined, atol=1e-4)


def test_ensemble_of_sure_models_is_finite():
    one, other = np.array([[0.0, -2000.0]]), np.array([[-2000.0, 0.0]])
    combined = Ensemble().combine(one, other, TRAINING, FACTS)
    np.testing.assert_allclose(np.exp(combined), [[0.5, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("prior", ["predicted", "counts"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_adjusted_by_a_prior(prior, tau):
    """The mean prediction on the training set, or what the counts tell."""
    combined = AdjustedNoiseRobust(prior, tau).combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING, FACTS)
    expected = softmax(NOISE_ROBUST) / (softmax(TRAINING).mean(0) if prior == "predicted" else PRIOR) ** tau
    np.testing.assert_allclose(softmax(combined), expected / expected.sum(-1, keepdims=True), rtol=1e-6)
    # f_L has no part in it.
    other = AdjustedNoiseRobust(prior, tau).combine(NOISE_ROBUST, rows(77), TRAINING, FACTS)
    np.testing.assert_array_equal(other, combined)


@pytest.mark.parametrize("prior", ["predicted", "counts"])
def test_a_class_without_examples_is_left_as_it_is(prior):
    facts = make_facts((70, 0, 30), 20)
    combined = AdjustedNoiseRobust(prior).combine(NOISE_ROBUST, IMBALANCE_ROBUST, TRAINING, facts)
    shares = softmax(TRAINING).mean(0) if prior == "predicted" else np.array([0.7, 1.0, 0.3])
    shares[1] = 1.0
    np.testing.assert_allclose(np.exp(combined), softmax(NOISE_ROBUST) / shares, rtol=1e-6)
