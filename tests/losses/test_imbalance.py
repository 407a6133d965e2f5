import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.losses import logit_adjusted_cross_entropy
from loss_references import (
    LABELS,
    WRONG_LOGITS_OR_LABELS,
    Y,
    Z,
    draw,
    numerical_gradient,
    plain_cross_entropy,
)

PRIOR = np.array([0.6, 0.25, 0.1, 0.05])


def exact_loss(logits, labels, prior, tau):
    """-log(prior_y^tau e^z_y / sum_c prior_c^tau e^z_c), float64."""
    weighted = np.asarray(prior, np.float64) ** tau * np.exp(np.asarray(logits, np.float64))
    return -np.log(weighted[np.arange(len(labels)), labels] / weighted.sum(-1))


def gradient(logits, labels, prior, tau=1.0):
    total = jax.jit(jax.grad(lambda z: logit_adjusted_cross_entropy(z, labels, prior, tau).sum()))
    return np.asarray(total(jnp.asarray(logits)))


def test_by_hand():
    # Equal logits: the prior is the prediction.
    prior = jnp.array([0.8, 0.2])
    got = logit_adjusted_cross_entropy(jnp.zeros((2, 2)), jnp.array([0, 1]), prior)
    np.testing.assert_allclose(got, -np.log([0.8, 0.2]), rtol=1e-6)
    # Logits (log 3, 0) with tau 2: weights 3 * 0.64 and 0.04.
    got = logit_adjusted_cross_entropy(jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([1]), prior, 2.0)
    np.testing.assert_allclose(got, [-np.log(0.04 / 1.96)], rtol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_by_its_definition(tau, num_examples):
    logits, labels = draw(num_examples), LABELS[:num_examples]
    got = logit_adjusted_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(PRIOR), tau)
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact_loss(logits, labels, PRIOR, tau), rtol=1e-5)
    jitted = jax.jit(logit_adjusted_cross_entropy, static_argnames="tau")(logits, labels, PRIOR, tau)
    np.testing.assert_allclose(jitted, got, rtol=1e-6)
    exact = numerical_gradient(lambda z: exact_loss(z, labels, PRIOR, tau).sum(), logits)
    np.testing.assert_allclose(gradient(logits, labels, jnp.asarray(PRIOR), tau), exact, rtol=0, atol=1e-5)


def test_default_tau_is_one():
    arguments = draw(), LABELS, jnp.asarray(PRIOR)
    np.testing.assert_array_equal(
        logit_adjusted_cross_entropy(*arguments), logit_adjusted_cross_entropy(*arguments, tau=1.0)
    )


def test_limits_are_plain_cross_entropy():
    logits = draw()
    expected = plain_cross_entropy(logits, LABELS)
    uniform = logit_adjusted_cross_entropy(logits, LABELS, jnp.full(4, 0.25))
    np.testing.assert_allclose(uniform, expected, rtol=1e-5)
    # With tau 0 not even a class of prior 0 matters.
    without = logit_adjusted_cross_entropy(logits, LABELS, jnp.array([0.5, 0.5, 0.0, 0.0]), tau=0.0)
    np.testing.assert_allclose(without, expected, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_is_cross_entropy_of_shifted_logits(tau):
    logits = draw()
    expected = plain_cross_entropy(logits + tau * np.log(PRIOR).astype(np.float32), LABELS)
    got = logit_adjusted_cross_entropy(logits, LABELS, jnp.asarray(PRIOR), tau)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_prior_may_be_counts():
    logits = draw()
    shares = logit_adjusted_cross_entropy(logits, LABELS, jnp.asarray(PRIOR))
    counts = logit_adjusted_cross_entropy(logits, LABELS, jnp.array([600, 250, 100, 50]))
    np.testing.assert_allclose(counts, shares, rtol=1e-5)


def test_uninformative_input_is_best_predicted_evenly():
    # Labels drawn from the prior whatever the input: the loss is stationary at equal logits, which is
    # the balanced prediction, and not at the prior.
    everything = jnp.arange(4)

    def risk(logits):
        losses = logit_adjusted_cross_entropy(jnp.tile(logits, (4, 1)), everything, jnp.asarray(PRIOR))
        return (PRIOR * losses).sum()

    np.testing.assert_allclose(jax.grad(risk)(jnp.zeros(4)), 0, rtol=0, atol=1e-6)
    assert np.abs(jax.grad(risk)(jnp.log(jnp.asarray(PRIOR)))).max() > 0.1


def test_class_of_prior_zero_is_left_out():
    prior = jnp.array([0.5, 0.0, 0.3, 0.2])
    logits, labels = draw(), np.array([0, 3, 2, 3, 1, 0])
    got = logit_adjusted_cross_entropy(logits, labels, prior)
    rest = labels != 1
    expected = exact_loss(
        logits[rest][:, [0, 2, 3]], np.array([0, 2, 1, 2, 0]), prior[np.array([0, 2, 3])], 1.0
    )
    np.testing.assert_allclose(got[rest], expected, rtol=1e-5)
    assert np.isposinf(got[~rest]).all()
    gradients = gradient(logits, labels, prior)
    assert np.isfinite(gradients).all()
    np.testing.assert_array_equal(gradients[rest, 1], 0)


@pytest.mark.parametrize("row", [[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0], [0, -np.inf, 0, 0]])
def test_extreme_logits(row):
    logits, labels = jnp.array([row], jnp.float32), jnp.array([0])
    losses = logit_adjusted_cross_entropy(logits, labels, jnp.asarray(PRIOR))
    with np.errstate(over="ignore"):
        shifted = np.array(row) + np.log(PRIOR)
    expected = np.log(np.exp(shifted - shifted.max()).sum()) + shifted.max() - shifted[0]
    np.testing.assert_allclose(losses, [expected], rtol=1e-6)
    prediction = np.exp(shifted - shifted.max()) / np.exp(shifted - shifted.max()).sum()
    np.testing.assert_allclose(
        gradient(logits, labels, jnp.asarray(PRIOR))[0], prediction - [1, 0, 0, 0], rtol=0, atol=1e-6
    )


def test_label_that_the_logits_rule_out():
    logits = jnp.array([[-np.inf, 0.0, 0.0, 0.0]])
    assert np.isposinf(logit_adjusted_cross_entropy(logits, jnp.array([0]), jnp.asarray(PRIOR))[0])
    expected = np.r_[-1, PRIOR[1:] / PRIOR[1:].sum()]
    got = gradient(logits, jnp.array([0]), jnp.asarray(PRIOR))[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prior", [[np.nan, 0.5, 0.3, 0.2], [-0.1, 0.5, 0.3, 0.3]])
def test_invalid_prior_is_not_a_silent_number(prior):
    assert np.isnan(logit_adjusted_cross_entropy(draw(), LABELS, jnp.array(prior))).all()


@pytest.mark.parametrize("label", [4, 100, -1, -4, -5])
def test_label_out_of_range_is_not_a_silent_number(label):
    labels = jnp.array([0, label, 2, 3, 1, 0])
    got = logit_adjusted_cross_entropy(draw(), labels, jnp.asarray(PRIOR))
    assert np.isnan(got[1])
    expected = exact_loss(draw(), np.array([0, 0, 2, 3, 1, 0]), PRIOR, 1.0)
    np.testing.assert_allclose(np.delete(got, 1), np.delete(expected, 1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_logits_are_computed_in_float32(dtype):
    low = jnp.asarray(draw(), dtype)
    got = logit_adjusted_cross_entropy(low, LABELS, jnp.asarray(PRIOR, dtype))
    assert got.dtype == jnp.float32
    expected = exact_loss(low.astype(jnp.float32), LABELS, jnp.asarray(PRIOR, dtype).astype(jnp.float32), 1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
def test_any_integer_label(dtype):
    got = logit_adjusted_cross_entropy(draw(), jnp.asarray(LABELS, dtype), jnp.asarray(PRIOR))
    np.testing.assert_allclose(got, exact_loss(draw(), LABELS, PRIOR, 1.0), rtol=1e-5)


P = jnp.full(3, 1 / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(((logits, labels, P), message) for logits, labels, message in WRONG_LOGITS_OR_LABELS),
        ((Z, Y, P[:2]), r"class_prior must have shape \[C\] = \[3\], got \[2\]"),
        ((Z, Y, P[0]), r"class_prior must have shape \[C\] = \[3\], got \[\]"),
        ((Z, Y, Z), r"class_prior must have shape \[C\] = \[3\], got \[4, 3\]"),
        ((Z, Y, P, -0.5), "tau must be at least 0 and finite, got -0.5"),
        ((Z, Y, P, np.nan), "tau must be at least 0 and finite, got nan"),
        ((Z, Y, P, np.inf), "tau must be at least 0 and finite, got inf"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        logit_adjusted_cross_entropy(*arguments)
