"""The losses for long-tailed classes other than logit adjustment."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.losses import class_balanced_weights, focal_cross_entropy, ldam
from loss_references import (
    LABELS,
    NUM_CLASSES,
    THREE_LABELS,
    WRONG_LOGITS_OR_LABELS,
    Y,
    Z,
    draw,
    likelihood,
    numerical_gradient,
    plain_cross_entropy,
    three_rows_of_logits,
    total_gradient,
)

COUNTS = np.array([1000, 81, 16, 3])


def draw_cosines(num_examples=6, seed=0):
    return np.tanh(draw(num_examples, 0.7, seed))


def exact_ldam(cosines, labels, counts=COUNTS, max_margin=0.5, scale=30.0):
    """-log e^{s (z_y - m_y)} / (e^{s (z_y - m_y)} + sum_{c != y} e^{s z_c}), m_c = C / n_c^(1/4), float64."""
    margins = np.asarray(counts, np.float64) ** -0.25
    margins = margins * max_margin / margins.max()
    cosines = np.asarray(cosines, np.float64)
    rows = np.arange(len(labels))
    lowered = cosines.copy()
    lowered[rows, labels] = cosines[rows, labels] - margins[labels]
    return np.log(np.exp(scale * (lowered - lowered[rows, labels][:, None])).sum(-1))


def exact_focal(logits, labels, gamma=2.0):
    """-(1 - p_y)^gamma log p_y, float64."""
    p = likelihood(logits, labels)
    return -((1 - p) ** gamma) * np.log(p)


def ldam_of_counts(logits, labels):
    return ldam(logits, labels, jnp.asarray(COUNTS))


# LDAM.


def test_ldam_by_hand():
    # Counts 81 and 1: margins 0.9 / 3 and 0.9. Cosines (1/2, 0) ten times, less the label's margin:
    # (2, 0) for class 0 and (5, -9) for class 1.
    cosines = jnp.array([[0.5, 0.0], [0.5, 0.0]])
    got = ldam(cosines, jnp.array([0, 1]), jnp.array([81, 1]), max_margin=0.9, scale=10.0)
    np.testing.assert_allclose(got, np.log([1 + np.exp(-2), 1 + np.exp(14)]), rtol=1e-5)


def test_ldam_defaults_are_those_of_its_code():
    # Margin 1/2 and scale 30: 30 * (0 - 1/2) against 0 for the rarest class.
    got = ldam(jnp.zeros((1, 2)), jnp.array([1]), jnp.array([16, 1]))
    np.testing.assert_allclose(got, [np.log1p(np.exp(15.0))], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"max_margin": 0.0}, {"max_margin": 1.0, "scale": 4.0}])
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_ldam_by_its_definition(options, num_examples):
    cosines, labels = draw_cosines(num_examples), LABELS[:num_examples]
    loss = partial(ldam, **options)
    got = loss(jnp.asarray(cosines), jnp.asarray(labels), jnp.asarray(COUNTS))
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact_ldam(cosines, labels, **options), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(loss)(cosines, labels, COUNTS), got, rtol=1e-5, atol=1e-5)
    exact = numerical_gradient(lambda z: exact_ldam(z, labels, **options).sum(), cosines)
    gradient = total_gradient(lambda z, y: loss(z, y, jnp.asarray(COUNTS)), cosines, labels)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=2e-5 * options.get("scale", 30.0))


def test_ldam_without_margin_is_cross_entropy():
    got = ldam(draw(), LABELS, jnp.asarray(COUNTS), max_margin=0.0, scale=1.0)
    np.testing.assert_allclose(got, plain_cross_entropy(draw(), LABELS), rtol=1e-6)


def test_ldam_of_equal_counts_has_the_same_margin_for_all():
    # Any number of examples, as long as it is the same: each class has the full margin.
    one, many = (ldam(draw_cosines(), LABELS, jnp.full(NUM_CLASSES, n)) for n in (1, 5000))
    np.testing.assert_allclose(one, many, rtol=1e-6)
    np.testing.assert_allclose(one, exact_ldam(draw_cosines(), LABELS, np.ones(NUM_CLASSES)), rtol=1e-5)


@hypothesis.given(
    three_rows_of_logits(4), THREE_LABELS, st.integers(-4, 4), st.permutations(range(NUM_CLASSES))
)
def test_ldam_properties(logits, labels, constant, order):
    got = np.asarray(ldam_of_counts(logits, labels))
    # 30 times roundings of numbers up to 8.
    shifted = ldam_of_counts(logits + np.float32(constant), labels)
    np.testing.assert_allclose(shifted, got, rtol=1e-6, atol=1e-4)
    moved = ldam(logits[:, order], np.argsort(order)[labels], jnp.asarray(COUNTS[order]))
    np.testing.assert_allclose(moved, got, rtol=1e-6, atol=1e-5)
    assert (got >= 0).all()
    # A margin can only cost, and at most itself times the scale.
    without = exact_ldam(logits, labels, max_margin=0.0)
    assert (got >= without * (1 - 1e-6) - 1e-5).all()
    margins = 0.5 * (COUNTS.min() / COUNTS[labels]) ** 0.25
    assert (got <= (without + 30 * margins) * (1 + 1e-6) + 1e-5).all()


# Thirty times the margin of class 0.
MARGIN = 30 * 0.5 * (3 / 1000) ** 0.25


@pytest.mark.parametrize(
    ("row", "expected", "direction"),
    [
        ([1e4, -1e4, 0, 0], 0.0, [0, 0, 0, 0]),
        ([-1e4, 1e4, 0, 0], 30 * 2e4 + MARGIN, [-1, 1, 0, 0]),
        ([100, -100, 0, 0], 0.0, [0, 0, 0, 0]),
        ([-100, 100, 0, 0], 30 * 200 + MARGIN, [-1, 1, 0, 0]),
        ([-np.inf, 0, 0, 0], np.inf, [-1, 1 / 3, 1 / 3, 1 / 3]),
        ([1, -np.inf, -np.inf, 1], np.log1p(np.exp(MARGIN)), None),
    ],
)
def test_ldam_of_extreme_logits(row, expected, direction):
    logits, labels = jnp.array([row], jnp.float32), jnp.array([0])
    np.testing.assert_allclose(ldam_of_counts(logits, labels), [expected], rtol=1e-5)
    if direction is None:
        miss = np.exp(MARGIN) / (1 + np.exp(MARGIN))
        direction = [-miss, 0, 0, miss]
    gradient = total_gradient(ldam_of_counts, logits, labels)[0]
    np.testing.assert_allclose(gradient, 30 * np.array(direction), rtol=0, atol=1e-4)


# Class-balanced weights.


def exact_weights(counts, beta):
    """(1 - beta) / (1 - beta^n), brought to mean 1, float64."""
    weights = (1 - beta) / (1 - beta ** np.asarray(counts, np.float64))
    return weights / weights.sum() * len(counts)


def test_weights_by_hand():
    # 1 - 2^-n for 1, 2, 3: 1/2, 3/4, 7/8. Inverses 2, 4/3, 8/7 sum to 94/21; times 3 * 21/94.
    got = class_balanced_weights(jnp.array([1, 2, 3]), beta=0.5)
    np.testing.assert_allclose(got, np.array([63, 42, 36]) / 47, rtol=1e-6)
    assert got.dtype == jnp.float32


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9, 0.999, 0.9999, 0.999999])
@pytest.mark.parametrize("counts", [[5000, 500, 50], [1], [7, 7], [5000, 1]])
def test_weights_by_their_definition(counts, beta):
    got = class_balanced_weights(jnp.array(counts), beta)
    np.testing.assert_allclose(got, exact_weights(counts, beta), rtol=1e-5)
    jitted = jax.jit(partial(class_balanced_weights, beta=beta))(jnp.array(counts))
    np.testing.assert_allclose(jitted, got, rtol=1e-6)


def test_default_beta():
    np.testing.assert_array_equal(
        class_balanced_weights(jnp.asarray(COUNTS)), class_balanced_weights(jnp.asarray(COUNTS), beta=0.9999)
    )


def test_weights_in_the_limits():
    np.testing.assert_array_equal(class_balanced_weights(jnp.asarray(COUNTS), beta=0.0), 1)
    # The largest number below 1, which float32 does not hold: inverse counts to the last digit.
    got = class_balanced_weights(jnp.asarray(COUNTS), beta=np.nextafter(1.0, 0.0))
    np.testing.assert_allclose(got, NUM_CLASSES / COUNTS / (1 / COUNTS).sum(), rtol=1e-6)
    # All classes far larger than the 10 examples that beta 0.9 has at most: no difference any more.
    got = class_balanced_weights(jnp.array([10_000_000, 500]), beta=0.9)
    np.testing.assert_allclose(got, 1, rtol=1e-6)


@hypothesis.given(
    st.lists(st.integers(1, 100_000), min_size=1, max_size=8).map(np.array),
    st.floats(0, 1, exclude_max=True),
    st.randoms(use_true_random=False),
)
def test_weights_properties(counts, beta, random):
    got = np.asarray(class_balanced_weights(jnp.asarray(counts), beta), np.float64)
    assert (got > 0).all()
    np.testing.assert_allclose(got.sum(), len(counts), rtol=1e-5)
    # Rarer classes weigh at least as much, and at most in proportion.
    ordered = got[np.argsort(counts)]
    assert (np.diff(ordered) <= 1e-6 * ordered[:-1]).all()
    assert (got.max() / got <= counts / counts.min() * (1 + 1e-5)).all()
    order = random.sample(range(len(counts)), len(counts))
    moved = class_balanced_weights(jnp.asarray(counts[order]), beta)
    np.testing.assert_allclose(moved, got[order], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int16, jnp.uint16, jnp.float16, jnp.float32])
def test_weights_of_any_type_of_counts(dtype):
    got = class_balanced_weights(jnp.asarray(COUNTS, dtype), beta=0.99)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact_weights(COUNTS, 0.99), rtol=1e-5)


def test_weights_under_vmap():
    counts = jnp.array([[5, 3, 2], [100, 10, 1]])
    got = jax.vmap(partial(class_balanced_weights, beta=0.9))(counts)
    expected = [exact_weights(row, 0.9) for row in np.asarray(counts)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


# Focal loss.


def test_focal_by_hand():
    # p_y = 1/4: (3/4)^2 log 4, the default; (3/4)^(1/2) log 4; (3/4) log 4.
    logits, labels = jnp.zeros((1, 4)), jnp.array([2])
    np.testing.assert_allclose(focal_cross_entropy(logits, labels), [9 / 16 * np.log(4)], rtol=1e-6)
    got = focal_cross_entropy(logits, labels, 0.5)
    np.testing.assert_allclose(got, [np.sqrt(3) / 2 * np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(focal_cross_entropy(logits, labels, 1), [3 / 4 * np.log(4)], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_focal_by_its_definition(gamma, num_examples):
    logits, labels = draw(num_examples), LABELS[:num_examples]
    loss = partial(focal_cross_entropy, gamma=gamma)
    got = loss(jnp.asarray(logits), jnp.asarray(labels))
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact_focal(logits, labels, gamma), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), got, rtol=1e-5, atol=1e-7)
    exact = numerical_gradient(lambda z: exact_focal(z, labels, gamma).sum(), logits)
    np.testing.assert_allclose(total_gradient(loss, logits, labels), exact, rtol=0, atol=1e-5)


def test_focal_tends_to_cross_entropy():
    expected = plain_cross_entropy(draw(), LABELS)
    np.testing.assert_allclose(focal_cross_entropy(draw(), LABELS, gamma=0.0), expected, rtol=1e-6)
    np.testing.assert_allclose(focal_cross_entropy(draw(), LABELS, gamma=1e-6), expected, rtol=1e-5)


@hypothesis.given(
    three_rows_of_logits(4),
    THREE_LABELS,
    st.integers(-4, 4),
    st.floats(0, 8),
    st.permutations(range(NUM_CLASSES)),
)
def test_focal_properties(logits, labels, constant, gamma, order):
    got = np.asarray(focal_cross_entropy(logits, labels, gamma))
    shifted = focal_cross_entropy(logits + np.float32(constant), labels, gamma)
    np.testing.assert_allclose(shifted, got, rtol=1e-5, atol=2e-6)  # roundings of numbers up to 8
    moved = focal_cross_entropy(logits[:, order], np.argsort(order)[labels], gamma)
    np.testing.assert_allclose(moved, got, rtol=1e-4, atol=1e-6)
    assert (got >= 0).all()
    assert (got <= -np.log(likelihood(logits, labels)) * (1 + 1e-6) + 2e-6).all()
    # Down-weighted the more, the larger gamma is.
    assert (focal_cross_entropy(logits, labels, gamma + 1) <= got * (1 + 1e-6)).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("row", "expected", "gradient"),
    [
        ([1e4, -1e4, 0, 0], 0.0, [0, 0, 0, 0]),
        ([-1e4, 1e4, 0, 0], 2e4, [-1, 1, 0, 0]),
        ([100, -100, 0, 0], 0.0, [0, 0, 0, 0]),
        ([-100, 100, 0, 0], 200.0, [-1, 1, 0, 0]),
    ],
)
def test_focal_of_extreme_logits(row, expected, gradient, gamma):
    logits, labels = jnp.array([row], jnp.float32), jnp.array([0])
    got = focal_cross_entropy(logits, labels, gamma)
    np.testing.assert_allclose(got, [expected], rtol=1e-6)
    of_loss = total_gradient(partial(focal_cross_entropy, gamma=gamma), logits, labels)[0]
    np.testing.assert_allclose(of_loss, gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_of_a_class_that_the_logits_rule_out(gamma):
    # p = (1/3, 0, 1/3, 1/3); d/dx of (1 - e^-x)^gamma x at x = log 3, times p - onehot.
    logits, labels = jnp.array([[0, -np.inf, 0, 0]], jnp.float32), jnp.array([0])
    got = focal_cross_entropy(logits, labels, gamma)
    np.testing.assert_allclose(got, [(2 / 3) ** gamma * np.log(3)], rtol=1e-6)
    slope = (2 / 3) ** gamma + gamma * (2 / 3) ** (gamma - 1) * np.log(3) / 3
    gradient = total_gradient(partial(focal_cross_entropy, gamma=gamma), logits, labels)[0]
    np.testing.assert_allclose(gradient, slope * np.array([-2, 0, 1, 1]) / 3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_label_that_the_logits_rule_out(gamma):
    # As cross-entropy: infinite, with the gradient p - onehot.
    logits, labels = jnp.array([[-np.inf, 0, 0, 0]], jnp.float32), jnp.array([0])
    assert np.isposinf(focal_cross_entropy(logits, labels, gamma)[0])
    gradient = total_gradient(partial(focal_cross_entropy, gamma=gamma), logits, labels)[0]
    np.testing.assert_allclose(gradient, [-1, 1 / 3, 1 / 3, 1 / 3], rtol=0, atol=1e-6)


# Both losses.

LOSSES = [ldam_of_counts, focal_cross_entropy]


@pytest.mark.parametrize("label", [4, 100, -1, -4, -5])
@pytest.mark.parametrize("loss", LOSSES)
def test_label_out_of_range_is_not_a_silent_number(loss, label):
    got = loss(draw_cosines(), jnp.array([0, label, 2, 3, 1, 0]))
    assert np.isnan(got[1])
    expected = loss(draw_cosines(), jnp.array([0, 0, 2, 3, 1, 0]))
    np.testing.assert_array_equal(np.delete(got, 1), np.delete(expected, 1))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(("loss", "exact"), list(zip(LOSSES, [exact_ldam, exact_focal], strict=True)))
def test_low_precision_is_computed_in_float32(loss, exact, dtype):
    low = jnp.asarray(draw_cosines(), dtype)
    got = loss(low, LABELS)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact(low.astype(jnp.float32), LABELS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
@pytest.mark.parametrize("loss", LOSSES)
def test_any_integer_label(loss, dtype):
    got = loss(draw_cosines(), jnp.asarray(LABELS, dtype))
    np.testing.assert_array_equal(got, loss(draw_cosines(), LABELS))


@pytest.mark.parametrize("loss", LOSSES)
def test_vmap_is_a_loop(loss):
    logits, labels = np.stack([draw_cosines(seed=s) for s in (1, 2)]), np.stack([LABELS, LABELS[::-1]])
    got = jax.jit(jax.vmap(loss))(logits, labels)
    alone = [loss(*pair) for pair in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6)


N = jnp.array([5, 2, 1])
EMPTY = "class_counts must be positive, but class 1 has {}. Leave out classes without examples."
WRONG = [
    *((ldam, (logits, labels, N), message) for logits, labels, message in WRONG_LOGITS_OR_LABELS),
    (ldam, (Z, Y, N[:2]), r"class_counts must have shape \[C\] = \[3\], got \[2\]"),
    (ldam, (Z, Y, Z), r"class_counts must have shape \[C\] = \[3\], got \[4, 3\]"),
    (ldam, (Z, Y, jnp.array([5, 0, 1])), EMPTY.format("0")),
    (ldam, (Z, Y, jnp.array([5.0, -2.0, 1.0])), EMPTY.format("-2.0")),
    (ldam, (Z, Y, jnp.array([5.0, np.nan, 1.0])), EMPTY.format("nan")),
    (ldam, (Z, Y, N, -0.5), "max_margin must be at least 0 and finite, got -0.5"),
    (ldam, (Z, Y, N, np.nan), "max_margin must be at least 0 and finite, got nan"),
    (ldam, (Z, Y, N, 0.5, -1.0), "scale must be at least 0 and finite, got -1.0"),
    (ldam, (Z, Y, N, 0.5, np.inf), "scale must be at least 0 and finite, got inf"),
    (class_balanced_weights, (Z,), r"class_counts must have shape \[C\], got \[4, 3\]"),
    (class_balanced_weights, (N[0],), r"class_counts must have shape \[C\], got \[\]"),
    (class_balanced_weights, (jnp.array([5, 0, 0]),), EMPTY.format("0")),
    (class_balanced_weights, (N, 1.0), r"beta must be in \[0.0, 1.0\), got 1.0"),
    (class_balanced_weights, (N, -0.1), r"beta must be in \[0.0, 1.0\), got -0.1"),
    (class_balanced_weights, (N, np.nan), r"beta must be in \[0.0, 1.0\), got nan"),
    *((focal_cross_entropy, (logits, labels), message) for logits, labels, message in WRONG_LOGITS_OR_LABELS),
    (focal_cross_entropy, (Z, Y, -0.5), "gamma must be at least 0 and finite, got -0.5"),
    (focal_cross_entropy, (Z, Y, np.nan), "gamma must be at least 0 and finite, got nan"),
    (focal_cross_entropy, (Z, Y, np.inf), "gamma must be at least 0 and finite, got inf"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
