"""Forward correction: what its transition matrix does to the loss."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.losses import forward_corrected_cross_entropy
from loss_references import (
    LABELS,
    NUM_CLASSES,
    TRANSITIONS,
    draw,
    exact_forward,
    forward_of_transitions,
    one_hot,
    total_gradient,
)


def test_labels_without_information_teach_nothing():
    uniform = jnp.full((NUM_CLASSES, NUM_CLASSES), 1 / NUM_CLASSES)
    loss = partial(forward_corrected_cross_entropy, transition_matrix=uniform)
    np.testing.assert_allclose(loss(draw(), LABELS), np.log(NUM_CLASSES), rtol=1e-6)
    np.testing.assert_allclose(total_gradient(loss, draw(), LABELS), 0, rtol=0, atol=1e-6)


def test_forward_correction_is_least_at_the_true_labels():
    # All examples are of class 2, their labels drawn from its row: the risk falls as p_2 grows to 1.
    everything = jnp.arange(NUM_CLASSES)
    risks = []
    for logit in (0.0, 2.0, 4.0, 20.0):
        logits = jnp.tile(logit * jnp.asarray(one_hot(2)), (NUM_CLASSES, 1))
        risks.append((TRANSITIONS[2] * np.asarray(forward_of_transitions(logits, everything))).sum())
    assert (np.diff(risks) < 0).all()
    np.testing.assert_allclose(risks[-1], -(TRANSITIONS[2] * np.log(TRANSITIONS[2])).sum(), rtol=1e-5)


@pytest.mark.parametrize("size", [10.0, 1e4])
def test_large_logits_with_forward_correction(size):
    # A certain prediction: the label's share of that class's row. It cannot get better or worse.
    logits = jnp.array([[size, -size, -size, -size], [-size, size, -size, -size]])
    got = forward_of_transitions(logits, jnp.array([0, 0]))
    np.testing.assert_allclose(got, -np.log([0.7, 0.2]), rtol=1e-5)
    gradient = total_gradient(forward_of_transitions, logits, jnp.array([0, 0]))
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-6)


def test_label_that_the_noise_rules_out():
    # Nothing is ever mislabelled as 0, and no example of class 0 keeps its label.
    matrix = TRANSITIONS.copy()
    matrix[:, 0] = 0
    loss = partial(forward_corrected_cross_entropy, transition_matrix=jnp.asarray(matrix))
    got = np.asarray(loss(draw(), LABELS))
    np.testing.assert_array_equal(np.isposinf(got), LABELS == 0)
    expected = exact_forward(draw()[LABELS > 0], LABELS[LABELS > 0], matrix)
    np.testing.assert_allclose(got[LABELS > 0], expected, rtol=1e-5)
    assert np.isfinite(total_gradient(loss, draw(), LABELS)).all()


def test_unlikely_true_class_of_a_label_is_not_lost():
    # Only class 1 is ever labelled 0, and its prediction underflows: the loss is 200 - log 0.5.
    matrix = jnp.array([[0.0, 1.0], [0.5, 0.5]])
    got = forward_corrected_cross_entropy(jnp.array([[100.0, -100.0]]), jnp.array([0]), matrix)
    np.testing.assert_allclose(got, [200 + np.log(2)], rtol=1e-6)


def test_low_precision_transition_matrix():
    matrix = jnp.asarray(TRANSITIONS, jnp.bfloat16)
    got = forward_corrected_cross_entropy(draw(), LABELS, matrix)
    assert got.dtype == jnp.float32
    expected = exact_forward(draw(), LABELS, np.asarray(matrix, np.float64))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_vmap_over_transition_matrices():
    matrices = jnp.stack([jnp.asarray(TRANSITIONS), jnp.eye(NUM_CLASSES)])
    got = jax.vmap(partial(forward_corrected_cross_entropy, draw(), LABELS))(matrices)
    expected = [exact_forward(draw(), LABELS), exact_forward(draw(), LABELS, np.eye(NUM_CLASSES))]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
