"""Losses for several labels an example: by hand, by finite differences and by those for one label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, rel_entr

from dsink_jax import losses, multilabel_class_marginal, multilabel_dsink_loss, multilabel_surrogate_labels


@pytest.fixture
def batch():
    """Logits of f, f_N and f_L, and labels, of 12 examples and 5 labels."""
    rng = np.random.default_rng(0)
    logits = (2 * rng.standard_normal((3, 12, 5))).astype(np.float32)
    return *logits, rng.integers(0, 2, (12, 5))


def test_dsink_is_the_divergence_from_q_and_its_gradient_what_is_left(batch):
    logits, noise_robust, imbalance_robust, _ = batch
    labels = multilabel_surrogate_labels(
        logits, noise_robust, multilabel_class_marginal(imbalance_robust)
    ).labels
    q, p = np.asarray(labels, float), expit(logits.astype(float))
    expected = (rel_entr(q, p) + rel_entr(1 - q, 1 - p)).sum(1)
    np.testing.assert_allclose(multilabel_dsink_loss(*batch[:3]), expected, atol=1e-5)

    def total(*each):
        return multilabel_dsink_loss(*each).sum()

    gradients = jax.grad(total, (0, 1, 2))(*map(jnp.asarray, batch[:3]))
    np.testing.assert_allclose(gradients[0], p - q, atol=1e-5)
    assert not np.asarray(gradients[1]).any() and not np.asarray(gradients[2]).any()


def test_padding_has_neither_loss_nor_gradient(batch):
    logits, noise_robust, imbalance_robust, _ = (each.copy() for each in batch)
    where = np.arange(12) % 4 > 0
    alone = multilabel_dsink_loss(logits[where], noise_robust[where], imbalance_robust[where])
    for each in (logits, noise_robust, imbalance_robust):
        each[~where] = np.nan
    models = [jnp.asarray(each) for each in (logits, noise_robust, imbalance_robust)]
    found = multilabel_dsink_loss(*models, where=where)
    np.testing.assert_allclose(found[where], alone, atol=1e-5)
    gradient = jax.grad(lambda z: multilabel_dsink_loss(z, *models[1:], where=where).sum())(models[0])
    assert (np.asarray(found)[~where] == 0).all() and (np.asarray(gradient)[~where] == 0).all()


def test_certain_labels_at_far_logits():
    far = jnp.array([[1e4, -1e4, 1e4]])
    certain = jnp.array([[1.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda z: losses.binary_divergence_from_labels(z, certain)[0])(far)
    assert value == 1e4
    np.testing.assert_array_equal(gradient, [[0.0, 0.0, 1.0]])
    sure = losses.binary_divergence_from_labels(jnp.array([[-jnp.inf]]), jnp.array([[0.0]]))
    assert sure == 0


@pytest.mark.parametrize("tau", [0.0, 1.0, 0.5])
def test_logit_adjustment_is_that_of_two_classes_each(batch, tau):
    logits, *_, labels = batch
    prior = np.linspace(0.1, 0.9, 5).astype(np.float32)
    found = losses.logit_adjusted_binary_cross_entropy(logits, labels, prior, tau)
    expected = sum(
        losses.logit_adjusted_cross_entropy(
            np.stack([np.zeros(12, np.float32), logits[:, c]], 1),
            labels[:, c],
            np.array([1 - prior[c], prior[c]]),
            tau,
        )
        for c in range(5)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_generalised_cross_entropy_is_that_of_two_classes_each(batch, q):
    logits, *_, labels = batch
    found = losses.generalized_binary_cross_entropy(logits, labels, q)
    expected = sum(
        losses.generalized_cross_entropy(
            np.stack([np.zeros(12, np.float32), logits[:, c]], 1), labels[:, c], q
        )
        for c in range(5)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


POINTWISE = {
    "divergence": lambda z, y: losses.binary_divergence_from_labels(z, y.astype(z.dtype)),
    "logit adjustment": lambda z, y: losses.logit_adjusted_binary_cross_entropy(
        z, y, jnp.full(5, 0.2, z.dtype)
    ),
    "generalised": losses.generalized_binary_cross_entropy,
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_are_slopes(batch, name, dtype):
    logits, *_, labels = batch
    loss = POINTWISE[name]
    value = loss(jnp.asarray(logits, dtype), jnp.asarray(labels))
    assert value.dtype == jnp.float32 and value.shape == (12,)
    at = logits.astype(np.float32)
    gradient = jax.grad(lambda z: loss(z, jnp.asarray(labels)).sum())(jnp.asarray(at))
    for i, c in ((0, 0), (5, 3), (11, 4)):
        step = np.zeros_like(at)
        step[i, c] = 1e-2
        slope = (loss(at + step, labels)[i] - loss(at - step, labels)[i]) / 2e-2
        assert gradient[i, c] == pytest.approx(float(slope), abs=2e-3)


def test_numbers_may_be_traced(batch):
    logits, *_, labels = batch
    adjusted = jax.jit(losses.logit_adjusted_binary_cross_entropy)
    generalised = jax.jit(losses.generalized_binary_cross_entropy)
    prior = np.full(5, 0.3, np.float32)
    np.testing.assert_allclose(
        adjusted(logits, labels, prior, 0.5),
        losses.logit_adjusted_binary_cross_entropy(logits, labels, prior, 0.5),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        generalised(logits, labels, 0.4),
        losses.generalized_binary_cross_entropy(logits, labels, 0.4),
        rtol=1e-5,
    )
