"""Losses of several labels an example, against their formulas in float64 and finite differences."""

from functools import partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit, rel_entr

from allocation_references import MAPPINGS, VALID_ROWS
from dsink_jax.losses import (
    binary_divergence_from_labels,
    generalized_binary_cross_entropy,
    generalized_cross_entropy,
    logit_adjusted_binary_cross_entropy,
    logit_adjusted_cross_entropy,
    multilabel_dsink_loss,
)
from loss_references import numerical_gradient, total_gradient
from multilabel_references import counted_labels, draw_problem, reference_labels

PRIOR = np.float32([0.5, 0.1, 0.02, 0.9])
dsink = jax.jit(multilabel_dsink_loss)


def draw(seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.random((6, 4)) < 0.4
    return (scale * rng.standard_normal((6, 4))).astype(np.float32), labels


def divergence(labels, logits):
    """sum_c KL(q_ic || sigmoid(z_ic)) by its definition."""
    predictions, absences = expit(np.float64(logits)), expit(-np.float64(logits))
    return (rel_entr(labels, predictions) + rel_entr(1 - labels, absences)).sum(1)


def exact_adjusted(logits, labels, tau=1.0):
    prior = np.float64(PRIOR)
    shifted = np.float64(logits) + tau * np.log(prior / (1 - prior))
    return -(labels * log_expit(shifted) + (1 - np.float64(labels)) * log_expit(-shifted)).sum(1)


def exact_generalized(logits, labels, q=0.7):
    present, absent = expit(np.float64(logits)), expit(-np.float64(logits))
    return (labels * (1 - present**q) + (1 - np.float64(labels)) * (1 - absent**q)).sum(1) / q


adjusted = partial(logit_adjusted_binary_cross_entropy, class_prior=jnp.asarray(PRIOR))
POINTWISE = {
    "adjusted": (adjusted, exact_adjusted),
    "generalized": (generalized_binary_cross_entropy, exact_generalized),
}

VALUES_AND_GRADIENTS = {
    name: jax.jit(jax.value_and_grad(lambda z, labels, loss=loss: loss(z, labels).sum()))
    for name, (loss, _) in POINTWISE.items()
}


# D-SINK.


@pytest.mark.parametrize("scale", [1, 6])
def test_dsink_is_the_divergence_from_brents_labels(scale):
    logits, noise_robust, imbalance_robust, marginal = draw_problem(64, 8, scale)
    labels = reference_labels(logits, noise_robust, marginal)
    got = dsink(logits, noise_robust, imbalance_robust)
    assert got.shape == (64,) and got.dtype == np.float32
    np.testing.assert_allclose(got, divergence(labels, logits), rtol=1e-4, atol=1e-4)
    gradient = total_gradient(multilabel_dsink_loss, logits, noise_robust, imbalance_robust)
    np.testing.assert_allclose(gradient, expit(np.float64(logits)) - labels, rtol=0, atol=1e-5)
    differences = numerical_gradient(lambda z: divergence(labels[:2], z).sum(), logits[:2])
    np.testing.assert_allclose(gradient[:2], differences, rtol=0, atol=2e-5)


def test_dsink_with_counts():
    logits, noise_robust, imbalance_robust, marginal = draw_problem(32, 5, 2)
    counts = np.random.default_rng(0).integers(1, 4, 32)
    labels = counted_labels(logits, noise_robust, marginal, counts)
    got = dsink(logits, noise_robust, imbalance_robust, label_counts=counts)
    np.testing.assert_allclose(got, divergence(labels, logits), rtol=1e-4, atol=1e-4)


def test_no_gradient_reaches_the_auxiliaries():
    arrays = draw_problem(16, 3, 2)[:3]
    for gradient in total_gradient(multilabel_dsink_loss, *arrays, argnums=(1, 2)):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_dsink_with_padding_over_devices(mapping):
    arrays = draw_problem(32, 5, 3)[:3]
    where = (np.arange(4) < VALID_ROWS[:, None]).reshape(32)
    for array in arrays:
        array[~where] = np.nan

    def values_and_gradient(logits, *others, axis_name=None):
        *auxiliaries, where = others

        def total(logits):
            values = multilabel_dsink_loss(logits, *auxiliaries, where=where, axis_name=axis_name)
            return values.sum(), values

        gradient, values = jax.grad(total, has_aux=True)(logits)
        return values, gradient

    values, gradient = mapping(partial(values_and_gradient, axis_name="batch"), *arrays, where)
    values, gradient = np.reshape(values, 32), np.reshape(gradient, (32, 5))
    expected = dsink(*(array[where] for array in arrays))
    np.testing.assert_allclose(values[where], expected, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(values[~where], 0)
    np.testing.assert_array_equal(gradient[~where], 0)
    _, alone = jax.jit(values_and_gradient)(*arrays, where)
    np.testing.assert_allclose(gradient, alone, rtol=0, atol=1e-5)


def test_dsink_of_huge_logits_is_finite():
    logits, noise_robust, imbalance_robust, _ = draw_problem(64, 4, 1e4)
    assert np.isfinite(dsink(logits, noise_robust, imbalance_robust)).all()
    assert np.isfinite(total_gradient(multilabel_dsink_loss, logits, noise_robust, imbalance_robust)).all()


def test_dsink_of_a_nan_is_nan():
    logits, noise_robust, imbalance_robust, _ = draw_problem(16, 4, 2)
    noise_robust[3, 1] = np.nan
    assert np.isnan(dsink(logits, noise_robust, imbalance_robust)).all()


def test_certain_labels_at_far_logits():
    far, certain = jnp.array([[1e4, -1e4, 1e4]]), jnp.array([[1.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda z: binary_divergence_from_labels(z, certain)[0])(far)
    assert value == 1e4
    np.testing.assert_array_equal(gradient, [[0.0, 0.0, 1.0]])
    assert binary_divergence_from_labels(jnp.array([[-jnp.inf]]), jnp.array([[0.0]])) == 0


# Pointwise.


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("soft", [False, True])
def test_pointwise_losses_are_their_formulas(name, soft):
    loss, exact = POINTWISE[name]
    logits, labels = draw()
    if soft:
        labels = np.random.default_rng(1).random((6, 4)).astype(np.float32)
    got = jax.jit(loss)(logits, labels)
    assert got.shape == (6,) and got.dtype == np.float32
    np.testing.assert_allclose(got, exact(logits, labels), rtol=2e-6)
    gradient = jax.grad(lambda z: loss(z, labels).sum())(jnp.asarray(logits))
    differences = numerical_gradient(lambda z: exact(z, labels).sum(), logits)
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=2e-6)


@pytest.mark.parametrize("q", [1e-3, 0.3, 1.0])
def test_robustness_of_generalized(q):
    logits, labels = draw(2)
    got = generalized_binary_cross_entropy(logits, labels, q)
    np.testing.assert_allclose(got, exact_generalized(logits, labels, q), rtol=2e-5)
    traced = jax.jit(generalized_binary_cross_entropy)(logits, labels, q)
    np.testing.assert_allclose(traced, got, rtol=1e-5)


@pytest.mark.parametrize("tau", [0, 0.5, 2])
def test_strength_of_the_adjustment(tau):
    logits, labels = draw(3)
    got = adjusted(logits, labels, tau=tau)
    np.testing.assert_allclose(got, exact_adjusted(logits, labels, tau), rtol=2e-6)
    traced = jax.jit(lambda tau: adjusted(logits, labels, tau=tau))(tau)
    np.testing.assert_allclose(traced, got, rtol=1e-6)


def test_one_label_is_the_problem_of_two_classes():
    logits, labels = draw(4)
    pair = jnp.stack([jnp.zeros(6), logits[:, 0]], axis=1)
    present = labels[:, 0].astype(np.int32)
    got = generalized_binary_cross_entropy(logits[:, :1], labels[:, :1])
    np.testing.assert_allclose(got, generalized_cross_entropy(pair, present), rtol=1e-5)
    prior = jnp.array([0.9, 0.1])
    got = logit_adjusted_binary_cross_entropy(logits[:, :1], labels[:, :1], prior[1:])
    np.testing.assert_allclose(got, logit_adjusted_cross_entropy(pair, present, prior), rtol=1e-5)


def test_labels_may_be_of_any_number_type():
    logits, labels = draw(5)
    for loss, _ in POINTWISE.values():
        for dtype in (np.int32, np.uint8, np.float16, np.float32):
            np.testing.assert_array_equal(loss(logits, labels.astype(dtype)), loss(logits, labels))


def test_priors_of_0_and_1():
    prior, logits = jnp.array([0.0, 1.0]), jnp.zeros((2, 2))
    labels = jnp.array([[0, 1], [1, 1]])
    got = logit_adjusted_binary_cross_entropy(logits, labels, prior)
    np.testing.assert_array_equal(got, [0, np.inf])
    for tau in (0, jnp.float32(0)):
        got = jax.jit(lambda t: logit_adjusted_binary_cross_entropy(logits, labels, prior, t))(tau)
        np.testing.assert_allclose(got, 2 * np.log(2), rtol=1e-6)
    gradient = jax.grad(lambda z: logit_adjusted_binary_cross_entropy(z, labels[:1], prior).sum())(logits[:1])
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("bad", [-0.1, 1.5, np.nan])
def test_labels_out_of_range_make_the_loss_nan(bad):
    logits, labels = draw(6)
    labels = labels.astype(np.float32)
    labels[2, 1] = bad
    for loss, _ in POINTWISE.values():
        np.testing.assert_array_equal(np.isnan(loss(logits, labels)), np.arange(6) == 2)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    logits=hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32)),
    labels=hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
)
def test_any_pointwise_loss_is_finite_and_not_negative(logits, labels):
    for name, (_, exact) in POINTWISE.items():
        value, gradient = VALUES_AND_GRADIENTS[name](logits, labels)
        assert value >= 0 and np.isfinite(gradient).all()
        np.testing.assert_allclose(value, exact(logits, labels).sum(), rtol=1e-5, atol=1e-5)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    arrays=hnp.arrays(np.float32, (3, 3, 4), elements=st.floats(-1e4, 1e4, width=32)),
    where=hnp.arrays(bool, 3),
)
def test_any_dsink_loss_is_a_divergence(arrays, where):
    got = np.asarray(dsink(*arrays, where=where))
    assert np.isfinite(got).all() and (got >= -1e-5).all() and (got[~where] == 0).all()
