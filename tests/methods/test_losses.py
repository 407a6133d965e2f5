"""Losses of the methods that define nothing else, by their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.methods import make_facts
from method_references import (
    CLASSES,
    EXAMPLES,
    LABELS,
    LOGITS,
    PRIOR,
    build,
    cross_entropy,
    log_softmax,
    loss_of,
    rows,
    softmax,
)

ONE_HOT = np.eye(CLASSES)[LABELS]


def focal(gamma):
    return (1 - np.exp(-cross_entropy(LOGITS))) ** gamma * cross_entropy(LOGITS)


def generalized(q):
    return (1 - np.exp(-cross_entropy(LOGITS)) ** q) / q


def smoothed(amount):
    return -(((1 - amount) * ONE_HOT + amount / CLASSES) * log_softmax(LOGITS)).sum(-1)


def symmetric(alpha, beta):
    # Reverse cross-entropy -sum_c p_c log y_c, with log 0 taken as log 1e-4.
    log_labels = np.where(ONE_HOT == 1, 0.0, np.log(1e-4))
    return alpha * cross_entropy(LOGITS) - beta * (softmax(LOGITS) * log_labels).sum(-1)


def bootstrapped(beta, *, hard):
    believed = np.eye(CLASSES)[LOGITS.argmax(-1)] if hard else softmax(LOGITS)
    return -((beta * ONE_HOT + (1 - beta) * believed) * log_softmax(LOGITS)).sum(-1)


def class_balanced(counts, beta):
    """Weights by the effective number of examples, with mean 1 over the batch."""
    weights = np.array([(1 - beta) / (1 - beta**n) for n in counts])[LABELS]
    return weights / weights.mean() * cross_entropy(LOGITS)


def adjusted(tau):
    return cross_entropy(LOGITS + tau * np.log(PRIOR))


# Name, options, and what the papers say.
CASES = [
    ("cross_entropy", {}, cross_entropy(LOGITS)),
    ("logit_adjustment", {}, adjusted(1)),
    ("logit_adjustment", {"tau": 0.0}, cross_entropy(LOGITS)),
    ("logit_adjustment", {"tau": 2.0}, adjusted(2)),
    ("balanced_softmax", {}, adjusted(1)),
    ("posthoc_logit_adjustment", {}, cross_entropy(LOGITS)),
    ("tau_norm", {}, cross_entropy(LOGITS)),
    ("crt", {}, cross_entropy(LOGITS)),
    ("class_balanced", {}, class_balanced((50, 30, 20), 0.9999)),
    ("class_balanced", {"beta": 0.9}, class_balanced((50, 30, 20), 0.9)),
    ("focal", {}, focal(2.0)),
    ("focal", {"gamma": 0.5}, focal(0.5)),
    ("gce", {}, generalized(0.7)),
    ("gce", {"q": 0.2}, generalized(0.2)),
    ("label_smoothing", {}, smoothed(0.1)),
    ("label_smoothing", {"amount": 0.4}, smoothed(0.4)),
    ("sce", {}, symmetric(0.1, 1.0)),
    ("sce", {"alpha": 6.0, "beta": 0.1}, symmetric(6.0, 0.1)),
    ("soft_bootstrapping", {}, bootstrapped(0.95, hard=False)),
    ("soft_bootstrapping", {"beta": 0.3}, bootstrapped(0.3, hard=False)),
    ("hard_bootstrapping", {}, bootstrapped(0.8, hard=True)),
    ("hard_bootstrapping", {"beta": 0.3}, bootstrapped(0.3, hard=True)),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_losses_by_their_definitions(name, options, expected):
    result = loss_of(build(name, **options))
    np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-6)
    assert result.metrics == {}


def test_losses_follow_the_counts_that_may_be_used():
    for counts in ((70, 20, 10), (1, 1, 1)):
        facts, prior = make_facts(counts, 20), np.array(counts) / sum(counts)
        values = loss_of(build("class_balanced"), facts=facts).values
        np.testing.assert_allclose(values, class_balanced(counts, 0.9999), rtol=1e-5)
        values = loss_of(build("logit_adjustment"), facts=facts).values
        np.testing.assert_allclose(values, cross_entropy(LOGITS + np.log(prior)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_posthoc_logit_adjustment_divides_by_the_prior(tau):
    method = build("posthoc_logit_adjustment", tau=tau)
    ratio = softmax(LOGITS) / PRIOR**tau
    predicted = softmax(method.predict(jnp.asarray(LOGITS), make_facts((50, 30, 20), 20)))
    np.testing.assert_allclose(predicted, ratio / ratio.sum(-1, keepdims=True), rtol=1e-5)


def test_elr_keeps_a_target_for_each_example():
    method = build("elr", weight=2.0, momentum=0.9)
    state = method.init(EXAMPLES, CLASSES)
    targets = np.zeros((EXAMPLES, CLASSES))
    np.testing.assert_array_equal(state, targets)
    for seed in range(3):  # three visits with other predictions
        result = loss_of(method, rows(seed), state)
        probabilities = np.clip(softmax(rows(seed)), 1e-4, 1 - 1e-4)
        targets = 0.9 * targets + 0.1 * probabilities / probabilities.sum(-1, keepdims=True)
        values = cross_entropy(rows(seed)) + 2 * np.log(1 - (targets * probabilities).sum(-1))
        state = result.example_state
        np.testing.assert_allclose(state, targets, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.values, values, rtol=1e-4, atol=1e-5)
    # Of a running mean from 0 with momentum 0.9, 1 - 0.9^3 is there after three visits.
    np.testing.assert_allclose(state.sum(-1), 1 - 0.9**3, rtol=1e-5)
