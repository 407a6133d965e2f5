"""Losses of the methods that define nothing else, by their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.methods import METHODS, make_facts
from method_references import (
    CLASSES,
    EXAMPLES,
    FACTS,
    LABELS,
    LOGITS,
    PRIOR,
    build,
    cross_entropy,
    full_batch,
    log_softmax,
    loss_of,
    rows,
    softmax,
)

ONE_HOT = np.eye(CLASSES)[LABELS]


def focal(gamma):
    return (1 - np.exp(-cross_entropy(LOGITS))) ** gamma * cross_entropy(LOGITS)


def generalized(q, tau=0.0):
    return (1 - np.exp(-cross_entropy(LOGITS + tau * np.log(PRIOR))) ** q) / q


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
    ("gce", {"tau": 1.0}, generalized(0.7, 1)),
    ("gce", {"q": 0.3, "tau": 0.5, "temperature": 4.0}, generalized(0.3, 0.5)),
    ("logit_adjustment", {"temperature": 4.0}, adjusted(1)),
    ("balanced_softmax", {"temperature": 4.0}, adjusted(1)),
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


ADJUSTED = ("logit_adjustment", "balanced_softmax", "gce", "forward_correction")


@pytest.mark.parametrize("name", ADJUSTED)
def test_predictions_are_of_the_logits_that_were_not_shifted(name):
    """Divided by the temperature; a class without examples has no probability, unless nothing is adjusted."""
    facts = make_facts((50, 0, 20), 20)
    taus = (1.0,) if name == "balanced_softmax" else (0.0, 0.5, 1.0)
    for tau in taus:
        strength = {} if name == "balanced_softmax" else {"tau": tau}
        for temperature in (0.25, 1.0, 4.0):
            method = build(name, temperature=temperature, **strength)
            np.testing.assert_allclose(method.predict(LOGITS, FACTS), LOGITS / temperature, rtol=1e-6)
            excludes = tau > 0 or name == "logit_adjustment"
            seen = LOGITS[:, [0, 2]] / temperature
            probabilities = softmax(np.asarray(method.predict(jnp.asarray(LOGITS), facts)))
            if excludes:
                np.testing.assert_array_equal(probabilities[:, 1], 0)
                np.testing.assert_allclose(probabilities[:, [0, 2]], softmax(seen), rtol=1e-5)
            else:
                np.testing.assert_allclose(probabilities, softmax(LOGITS / temperature), rtol=1e-5)


def test_shifted_predictions_have_a_temperature_too():
    method = build("posthoc_logit_adjustment", tau=0.5, temperature=4.0)
    expected = (LOGITS - 0.5 * np.log(PRIOR)) / 4
    np.testing.assert_allclose(method.predict(LOGITS, FACTS), expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{"tau": 1.0}, {"q": 0.3, "tau": 0.5}])
def test_gradient_of_adjusted_generalised_cross_entropy_by_finite_differences(options):
    method = build("gce", **options)
    gradient = jax.grad(lambda logits: loss_of(method, logits).values.sum())(jnp.asarray(LOGITS))
    q, tau, step = method.q, method.tau, 1e-5

    def total(logits):
        return ((1 - np.exp(-cross_entropy(logits + tau * np.log(PRIOR))) ** q) / q).sum()

    for place in np.ndindex(LOGITS.shape):
        moved = step * (
            np.arange(LOGITS.size).reshape(LOGITS.shape) == np.ravel_multi_index(place, LOGITS.shape)
        )
        slope = (total(LOGITS + moved) - total(LOGITS - moved)) / (2 * step)
        assert gradient[place] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("name", ["gce", "forward_correction"])
def test_adjusted_losses_without_examples_of_a_class(name):
    """It is as if the class were not there."""
    facts = make_facts((50, 0, 20), 20, np.eye(CLASSES))
    batch = full_batch()._replace(labels=jnp.asarray(np.where(LABELS == 1, 0, LABELS)))
    method = build(name, tau=1.0)
    value, gradient = jax.value_and_grad(
        lambda logits: loss_of(method, logits, batch=batch, facts=facts).values.sum()
    )(jnp.asarray(LOGITS))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 1], 0)
    other = LOGITS + np.array([0, 5, 0], np.float32)
    assert loss_of(method, other, batch=batch, facts=facts).values.sum() == pytest.approx(
        float(value), rel=1e-6
    )


@pytest.mark.parametrize(
    ("name", "tau", "expected"),
    [
        *(
            (name, None, name in ("logit_adjustment", "balanced_softmax", "posthoc_logit_adjustment"))
            for name in METHODS
        ),
        ("logit_adjustment", 0.5, False),
        ("posthoc_logit_adjustment", 2.0, False),
        ("gce", 1.0, True),
        ("gce", 0.5, False),
        ("forward_correction", 1.0, True),
    ],
)
def test_which_predictions_count_all_classes_alike(name, tau, expected):
    assert build(name, **({} if tau is None else {"tau": tau})).is_balanced is expected


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
