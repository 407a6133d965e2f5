"""Transition matrices read off a model's predictions, and forward correction by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.errors import InputError
from dsink_jax.methods import estimate_noise_rate, estimate_transition_matrix
from method_references import (
    CLASSES,
    EXAMPLES,
    FACTS,
    LABELS,
    LOGITS,
    MATRIX,
    PRIOR,
    build,
    cross_entropy,
    facts_of,
    loss_of,
    metrics_of,
    refreshes,
    softmax,
    tiny_data,
    tiny_training,
)


def noisy_predictions(count=60_000, wrong=0.1, seed=0):
    """Labels drawn through MATRIX, and a model that knows the true class, less surely where it errs."""
    rng = np.random.default_rng(seed)
    true = rng.choice(CLASSES, count, p=[0.6, 0.3, 0.1])
    observed = (rng.random(count)[:, None] > MATRIX.cumsum(1)[true]).sum(1)
    errs = rng.random(count) < wrong
    believed = np.where(errs, (true + rng.integers(1, CLASSES, count)) % CLASSES, true)
    logits = rng.normal(0, 0.1, (count, CLASSES))
    logits[np.arange(count), believed] += np.where(errs, 1.0, 4.0)
    return logits.astype(np.float32), observed.astype(np.int32), true


def test_estimate_is_close_to_the_truth():
    logits, observed, _ = noisy_predictions()
    estimated = estimate_transition_matrix(logits, observed)
    np.testing.assert_allclose(estimated.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(estimated, MATRIX, atol=0.02)
    # Counting all predictions alike would be off, because one in ten is wrong.
    predicted = logits.argmax(-1)
    counted = np.stack([np.bincount(observed[predicted == c], minlength=CLASSES) for c in range(CLASSES)])
    assert np.abs(counted / counted.sum(-1, keepdims=True) - MATRIX).max() > 0.1


def test_estimated_rate_is_close_to_the_truth():
    logits, observed, true = noisy_predictions(wrong=0.02)
    assert estimate_noise_rate(logits, observed) == pytest.approx(np.mean(observed != true), abs=0.01)


def test_estimates_by_hand():
    # Class 0: confidences by logit difference 3, 3 and 1, of which the mean leaves the last out.
    logits = np.array([[3, 0, 0], [3, 0, 0], [1, 0, 0], [0, 2, 0]], np.float32)
    labels = np.array([0, 2, 1, 0])
    # Nobody is predicted as 2: what is added to the diagonal is all there is.
    expected = np.array([[2, 0, 1], [1, 1, 0], [0, 0, 1]]) / np.array([[3], [2], [1]])
    np.testing.assert_allclose(estimate_transition_matrix(logits, labels), expected, rtol=1e-12)
    more = estimate_transition_matrix(logits, labels, smoothing=3.0)
    np.testing.assert_allclose(more[0], np.array([4, 0, 1]) / 5, rtol=1e-12)
    # 1 - (3/4 * 2/3 + 1/4 * 1/2).
    assert estimate_noise_rate(logits, labels) == pytest.approx(3 / 8)


def test_no_noise_is_the_identity():
    logits, _, _ = noisy_predictions(2000)
    predicted = logits.argmax(-1)
    np.testing.assert_allclose(estimate_transition_matrix(logits, predicted), np.eye(CLASSES), atol=1e-12)
    assert estimate_noise_rate(logits, predicted) == pytest.approx(0, abs=1e-12)


def test_the_known_matrix_is_that_of_the_facts():
    method = build("forward_correction", matrix="known")
    np.testing.assert_allclose(method.init_shared(FACTS), MATRIX, rtol=1e-6)
    assert refreshes(method, 20) == []
    expected = -np.log((softmax(LOGITS) @ MATRIX)[np.arange(EXAMPLES), LABELS])
    np.testing.assert_allclose(loss_of(method).values, expected, rtol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_correction_of_adjusted_logits_by_hand(tau):
    """Logits are shifted first, and what comes of them goes through the noise; so does the gradient."""
    method = build("forward_correction", matrix="known", tau=tau, temperature=3.0)

    def values(logits):
        shifted = softmax(logits + tau * np.log(PRIOR))
        return -np.log((shifted @ MATRIX)[np.arange(EXAMPLES), LABELS])

    np.testing.assert_allclose(loss_of(method).values, values(LOGITS), rtol=1e-5)
    gradient = jax.grad(lambda logits: loss_of(method, logits).values.sum())(jnp.asarray(LOGITS))
    step = 1e-5 * np.eye(CLASSES)
    for c in range(CLASSES):  # of each example by itself
        slope = (values(LOGITS + step[c]) - values(LOGITS - step[c])) / 2e-5
        np.testing.assert_allclose(gradient[:, c], slope, atol=1e-5)


def test_an_estimated_matrix_is_the_identity_at_first_and_then_the_estimate():
    """The matrix of the facts has no part in it."""
    method = build("forward_correction")
    np.testing.assert_array_equal(method.init_shared(FACTS), np.eye(CLASSES))
    np.testing.assert_allclose(loss_of(method).values, cross_entropy(LOGITS), rtol=1e-5)
    logits, observed, _ = noisy_predictions()
    state, matrix = method.refresh(logits, observed, (), np.eye(CLASSES))
    assert state == () and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, MATRIX, atol=0.02)
    expected = -np.log((softmax(LOGITS) @ matrix)[np.arange(EXAMPLES), LABELS])
    np.testing.assert_allclose(loss_of(method, shared=jnp.asarray(matrix)).values, expected, rtol=1e-5)


def test_schedule_of_the_estimate():
    method = build("forward_correction")
    assert [refreshes(method, epochs) for epochs in (100, 4, 1)] == [[10], [1], []]
    assert refreshes(build("forward_correction", estimate_after=0.5), 20) == [10]


def test_a_matrix_that_is_not_known_is_refused():
    with pytest.raises(InputError, match=r"^forward_correction: .*not known. Take matrix estimated"):
        build("forward_correction", facts_of(20), matrix="known")
    build("forward_correction", facts_of(20))


def test_the_estimate_reaches_the_training(cpus):
    """The training with an estimate after epoch 1 leaves the path of cross-entropy there and not before."""
    losses = np.array(
        [
            [metrics["loss"] for metrics in metrics_of(tiny_training(build(name), cpus, 3, tiny_data(True)))]
            for name in ("forward_correction", "cross_entropy")
        ]
    )
    assert losses[0, 0] == pytest.approx(losses[1, 0], rel=1e-5)
    assert (np.abs(losses[0, 1:] - losses[1, 1:]) > 1e-3).all()
