"""Shares of the true classes against Gaussian classes whose shares are known, and against an optimiser."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

from dsink_jax.class_shares import estimate_class_shares

TRUE = np.array([0.9, 0.1])


def gaussian_classes(count, seed=0):
    """log p(x | class) `[M, 2]` of points of two classes one apart from 0 on either side."""
    rng = np.random.default_rng(seed)
    classes = rng.random(count) < TRUE[1]
    points = np.where(classes, 1.0, -1.0) + rng.standard_normal(count)
    return np.stack([norm.logpdf(points, -1), norm.logpdf(points, 1)], 1)


def test_shares_of_gaussian_classes_are_found():
    likelihoods = gaussian_classes(40_000)
    found = estimate_class_shares(likelihoods, likelihoods + np.log(TRUE))
    np.testing.assert_allclose(found, TRUE, atol=0.01)
    assert found.dtype == np.float32


def test_it_is_the_mean_of_the_mean_prediction_and_the_likeliest_shares():
    likelihoods = gaussian_classes(500, seed=1)
    noise_robust = likelihoods + np.log([0.6, 0.4])
    mean_prediction = np.exp(log_softmax(noise_robust, 1)).mean(0)

    def unlikeliness(share):
        return -logsumexp(likelihoods + np.log([share, 1 - share]), axis=1).sum()

    likeliest = minimize_scalar(unlikeliness, bounds=(1e-6, 1 - 1e-6), method="bounded").x
    assert abs(likeliest - mean_prediction[0]) > 0.1  # they are not the same thing
    expected = (np.array([likeliest, 1 - likeliest]) + mean_prediction) / 2
    found = estimate_class_shares(likelihoods, noise_robust)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # the iterations stop before they end


def test_by_hand_where_the_model_is_sure():
    """Three of four are of class 0, and f_N says nothing: the mean of (3/4, 1/4, 0) and thirds."""
    sure = 200.0 * np.eye(3)[[0, 0, 1, 0]]
    found = estimate_class_shares(sure, np.zeros((4, 3)))
    np.testing.assert_allclose(found, np.array([13, 7, 4]) / 24, rtol=1e-6)


def test_models_that_exclude_each_others_class_give_numbers():
    far = np.array([[0.0, -1e9], [0.0, -1e9]])
    np.testing.assert_allclose(estimate_class_shares(far, far), [1, 0], atol=1e-6)
    np.testing.assert_allclose(estimate_class_shares(far, far[:, ::-1]), [0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize(
    ("balanced", "noise_robust", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), r"one shape \[M, C\], got \[3, 2\] and \[3, 4\]"),
        (np.zeros(3), np.zeros(3), r"got \[3\] and \[3\]"),
        (np.zeros((0, 2)), np.zeros((0, 2)), r"got \[0, 2\]"),
        ([[0.0, 1.0]], np.zeros((1, 2)), "balanced_logits must be an array"),
    ],
)
def test_other_shapes_are_refused(balanced, noise_robust, message):
    with pytest.raises(ValueError, match=message):
        estimate_class_shares(balanced, noise_robust)
