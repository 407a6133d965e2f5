"""Losses of the methods that define nothing else, by their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax import losses
from dsink_jax.methods import EarlyLearningRegularization, LogitAdjustment
from method_references import (
    BASES,
    CLASSES,
    EXAMPLES,
    FACTS,
    LABELS,
    LOGITS,
    base_values,
    build,
    cross_entropy,
    elr,
    evaluate,
    log_softmax,
    loss_of,
    rows,
    softmax,
)


@pytest.mark.parametrize("name", BASES)
def test_base_losses_by_their_definitions(name):
    output = evaluate(BASES[name])
    assert output.values.shape == (EXAMPLES,)
    assert output.values.dtype == jnp.float32
    assert output.metrics == {}
    np.testing.assert_allclose(output.values, base_values(name), rtol=1e-5, atol=1e-6)


def focal(gamma):
    return (1 - np.exp(-cross_entropy(LOGITS))) ** gamma * cross_entropy(LOGITS)


def smoothed(amount):
    targets = (1 - amount) * np.eye(CLASSES)[LABELS] + amount / CLASSES
    return -(targets * log_softmax(LOGITS)).sum(-1)


def symmetric(alpha, beta):
    # Reverse cross-entropy -sum_c p_c log y_c, with log 0 taken as log 1e-4.
    log_labels = np.where(np.eye(CLASSES)[LABELS] == 1, 0.0, np.log(1e-4))
    return alpha * cross_entropy(LOGITS) - beta * (softmax(LOGITS) * log_labels).sum(-1)


def bootstrapped(beta, *, hard):
    believed = np.eye(CLASSES)[LOGITS.argmax(-1)] if hard else softmax(LOGITS)
    targets = beta * np.eye(CLASSES)[LABELS] + (1 - beta) * believed
    return -(targets * log_softmax(LOGITS)).sum(-1)


def class_balanced(counts, beta):
    """Weights by the effective number of examples, with mean 1 over the batch."""
    weights = np.array([(1 - beta) / (1 - beta**n) for n in counts])[LABELS]
    return weights / weights.mean() * cross_entropy(LOGITS)


# By name, with options, and what the papers say.
SIMPLE = {
    "class balanced": ("class_balanced", {}, class_balanced((50, 30, 20), 0.9999)),
    "class balanced, other beta": (
        "class_balanced",
        {"class_balanced_beta": 0.9},
        class_balanced((50, 30, 20), 0.9),
    ),
    "focal": ("focal", {}, focal(2.0)),
    "focal, other gamma": ("focal", {"focal_gamma": 0.5}, focal(0.5)),
    "label smoothing": ("label_smoothing", {}, smoothed(0.1)),
    "label smoothing, other": ("label_smoothing", {"label_smoothing_amount": 0.4}, smoothed(0.4)),
    "sce": ("sce", {}, symmetric(0.1, 1.0)),
    "sce, other weights": ("sce", {"sce_alpha": 6.0, "sce_beta": 0.1}, symmetric(6.0, 0.1)),
    "soft bootstrapping": ("soft_bootstrapping", {}, bootstrapped(0.95, hard=False)),
    "soft bootstrapping, other": (
        "soft_bootstrapping",
        {"soft_bootstrapping_beta": 0.3},
        bootstrapped(0.3, hard=False),
    ),
    "hard bootstrapping": ("hard_bootstrapping", {}, bootstrapped(0.8, hard=True)),
    "hard bootstrapping, other": (
        "hard_bootstrapping",
        {"hard_bootstrapping_beta": 0.3},
        bootstrapped(0.3, hard=True),
    ),
    "post-hoc logit adjustment": ("posthoc_logit_adjustment", {}, cross_entropy(LOGITS)),
    "normalised classifier": ("tau_norm", {}, cross_entropy(LOGITS)),
    "classifier retraining": ("crt", {}, cross_entropy(LOGITS)),
    "balanced softmax": ("balanced_softmax", {}, cross_entropy(LOGITS + np.log([0.5, 0.3, 0.2]))),
}


@pytest.mark.parametrize("case", SIMPLE)
def test_simple_losses_by_their_definitions(case):
    name, options, expected = SIMPLE[case]
    method = build(name, **options)
    output = evaluate(method)
    np.testing.assert_allclose(output.values, expected, rtol=1e-5, atol=1e-6)
    assert output.metrics == {}
    assert method.init(EXAMPLES, CLASSES) == output.example_state == ()


def test_class_balanced_weights_follow_the_prior_that_may_be_used():
    for prior, counts in (("clean", (70, 20, 10)), ("uniform", (1, 1, 1))):
        method = build("class_balanced", FACTS._replace(prior=prior))
        np.testing.assert_allclose(evaluate(method).values, class_balanced(counts, 0.9999), rtol=1e-5)


def test_balanced_softmax_is_logit_adjustment_with_tau_1():
    balanced, adjusted = build("balanced_softmax"), build("logit_adjustment")
    assert balanced.tau == 1
    np.testing.assert_array_equal(evaluate(balanced).values, evaluate(adjusted).values)
    np.testing.assert_array_equal(balanced.predict(jnp.asarray(LOGITS)), LOGITS)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_posthoc_logit_adjustment_shifts_the_prediction(tau):
    method = build("posthoc_logit_adjustment", posthoc_logit_adjustment_tau=tau)
    expected = LOGITS - tau * np.log([0.5, 0.3, 0.2])
    np.testing.assert_allclose(method.predict(jnp.asarray(LOGITS)), expected, rtol=1e-5, atol=1e-6)
    # It divides p(y | x) by p(y)^tau.
    ratio = softmax(LOGITS) / np.array([0.5, 0.3, 0.2]) ** tau
    probabilities = softmax(method.predict(jnp.asarray(LOGITS)))
    np.testing.assert_allclose(probabilities, ratio / ratio.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_is_the_loss_function(tau):
    prior = (0.6, 0.3, 0.1)
    values = loss_of(LogitAdjustment(prior, tau)).values
    expected = losses.logit_adjusted_cross_entropy(
        jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.array(prior), tau
    )
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(values, cross_entropy(LOGITS + tau * np.log(prior)), rtol=1e-5, atol=1e-6)


def test_uniform_prior_makes_logit_adjustment_cross_entropy():
    method = build("logit_adjustment", FACTS._replace(prior="uniform"))
    np.testing.assert_allclose(evaluate(method).values, cross_entropy(LOGITS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "logit_adjustment", "gce"])
def test_methods_without_state(name):
    assert BASES[name].init(EXAMPLES, CLASSES) == ()
    assert evaluate(BASES[name]).example_state == ()


def test_elr_keeps_a_target_for_each_example():
    method = EarlyLearningRegularization(weight=2.0, momentum=0.9)
    state = method.init(EXAMPLES, CLASSES)
    assert (state.shape, state.dtype) == ((EXAMPLES, CLASSES), jnp.float32)
    np.testing.assert_array_equal(state, np.zeros((EXAMPLES, CLASSES)))
    expected = np.zeros((EXAMPLES, CLASSES))
    for seed in range(3):  # three visits with other predictions
        output = evaluate(method, rows(seed), state)
        expected, values = elr(rows(seed), expected, momentum=0.9, weight=2.0)
        state = output.example_state
        np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(output.values, values, rtol=1e-4, atol=1e-5)
    # Of a running mean from 0 with momentum 0.9, 1 - 0.9^3 is there after three visits.
    np.testing.assert_allclose(state.sum(-1), 1 - 0.9**3, rtol=1e-5)


def test_elr_rows_do_not_depend_on_each_other():
    method = BASES["elr"]
    state = jnp.asarray(softmax(rows(7)), jnp.float32)
    together = loss_of(method, state=state)
    changed = loss_of(method, np.concatenate([LOGITS[:4], rows(9)[4:]]), state)
    np.testing.assert_array_equal(changed.example_state[:4], together.example_state[:4])
    np.testing.assert_array_equal(changed.values[:4], together.values[:4])
    assert (np.asarray(changed.example_state[4:]) != np.asarray(together.example_state[4:])).all()
