"""The losses that change the label, or what it is compared with, for mislabelled examples."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.losses import (
    forward_corrected_cross_entropy,
    hard_bootstrapping,
    soft_bootstrapping,
    symmetric_cross_entropy,
)
from loss_references import (
    LABELS,
    NUM_CLASSES,
    THREE_LABELS,
    TRANSITIONS,
    WRONG_LOGITS_OR_LABELS,
    Y,
    Z,
    draw,
    exact_forward,
    forward_of_transitions,
    numerical_gradient,
    one_hot,
    plain_cross_entropy,
    softmax,
    three_rows_of_logits,
    total_gradient,
)


def exact_symmetric(logits, labels, alpha=0.1, beta=1.0):
    """alpha * -sum_c y_c log p_c + beta * -sum_c p_c log y_c with log 0 = log 1e-4, float64."""
    p, y = softmax(logits), one_hot(labels)
    return -alpha * (y * np.log(p)).sum(-1) - beta * (p * np.log(np.where(y == 0, 1e-4, y))).sum(-1)


def exact_soft(logits, labels, beta=0.95):
    """-sum_c (beta y_c + (1 - beta) p_c) log p_c, float64."""
    p = softmax(logits)
    return -((beta * one_hot(labels) + (1 - beta) * p) * np.log(p)).sum(-1)


def exact_hard(logits, labels, beta=0.8):
    """-sum_c (beta y_c + (1 - beta) z_c) log p_c with z the predicted class, float64."""
    p = softmax(logits)
    return -((beta * one_hot(labels) + (1 - beta) * one_hot(p.argmax(-1))) * np.log(p)).sum(-1)


CASES = [
    (symmetric_cross_entropy, exact_symmetric, {}),
    (symmetric_cross_entropy, exact_symmetric, {"alpha": 6.0, "beta": 0.1}),
    (symmetric_cross_entropy, exact_symmetric, {"alpha": 0.0}),
    (symmetric_cross_entropy, exact_symmetric, {"alpha": 0.0, "beta": 0.0}),
    (soft_bootstrapping, exact_soft, {}),
    *((soft_bootstrapping, exact_soft, {"beta": beta}) for beta in (0.0, 0.3, 1.0)),
    (hard_bootstrapping, exact_hard, {}),
    *((hard_bootstrapping, exact_hard, {"beta": beta}) for beta in (0.0, 0.3, 1.0)),
    (forward_of_transitions, exact_forward, {}),
]
LOSSES = [symmetric_cross_entropy, soft_bootstrapping, hard_bootstrapping, forward_of_transitions]
EXACT = [exact_symmetric, exact_soft, exact_hard, exact_forward]


# By hand: p = (3/4, 1/4).
P, SECOND = jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([1])
SELF = np.log(4) - 3 / 4 * np.log(3)  # the entropy of p, 3/4 log(4/3) + 1/4 log 4


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # The reverse term is -3/4 log 1e-4 = 3 log 10.
        (symmetric_cross_entropy, 0.1 * np.log(4) + 3 * np.log(10)),
        (partial(symmetric_cross_entropy, alpha=2, beta=0.5), 2 * np.log(4) + 1.5 * np.log(10)),
        (soft_bootstrapping, 0.95 * np.log(4) + 0.05 * SELF),
        (partial(soft_bootstrapping, beta=0.5), 0.5 * np.log(4) + 0.5 * SELF),
        (hard_bootstrapping, 0.8 * np.log(4) + 0.2 * np.log(4 / 3)),
        (partial(hard_bootstrapping, beta=0.25), 0.25 * np.log(4) + 0.75 * np.log(4 / 3)),
        # 3/4 * 0.2 + 1/4 * 0.6 = 0.3; the transposed matrix would give 3/4 * 0.4 + 1/4 * 0.6.
        (
            partial(forward_corrected_cross_entropy, transition_matrix=jnp.array([[0.8, 0.2], [0.4, 0.6]])),
            -np.log(0.3),
        ),
    ],
)
def test_by_hand(loss, expected):
    np.testing.assert_allclose(loss(P, SECOND), [expected], rtol=1e-6)


@pytest.mark.parametrize(("function", "exact", "options"), CASES)
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_by_their_definition(function, exact, options, num_examples):
    logits, labels = draw(num_examples), LABELS[:num_examples]
    loss, exact = partial(function, **options), partial(exact, **options)
    got = loss(jnp.asarray(logits), jnp.asarray(labels))
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact(logits, labels), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), got, rtol=1e-5, atol=1e-6)
    # The predicted class does not change within a step, so that differences see it as the constant it is.
    expected = numerical_gradient(lambda z: exact(z, labels).sum(), logits)
    np.testing.assert_allclose(total_gradient(loss, logits, labels), expected, rtol=0, atol=2e-5)


# Limits.


@pytest.mark.parametrize(
    "loss",
    [
        partial(symmetric_cross_entropy, alpha=1.0, beta=0.0),
        partial(soft_bootstrapping, beta=1.0),
        partial(hard_bootstrapping, beta=1.0),
        partial(forward_corrected_cross_entropy, transition_matrix=jnp.eye(NUM_CLASSES)),
    ],
)
def test_limits_are_plain_cross_entropy(loss):
    np.testing.assert_allclose(loss(draw(), LABELS), plain_cross_entropy(draw(), LABELS), rtol=1e-5)


def test_reverse_cross_entropy_is_a_mean_absolute_error():
    p_y = softmax(draw())[np.arange(len(LABELS)), LABELS]
    got = symmetric_cross_entropy(draw(), LABELS, alpha=0.0)
    np.testing.assert_allclose(got, 4 * np.log(10) * (1 - p_y), rtol=1e-5)


@pytest.mark.parametrize("loss", [soft_bootstrapping, hard_bootstrapping])
def test_bootstrapping_without_labels_does_not_look_at_them(loss):
    one, other = (loss(draw(), jnp.full(len(LABELS), label), beta=0.0) for label in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_bootstrapping_of_the_predicted_class():
    # Where label and prediction agree, hard bootstrapping is cross-entropy for any share.
    predicted = draw().argmax(-1)
    expected = plain_cross_entropy(draw(), predicted)
    for beta in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(hard_bootstrapping(draw(), predicted, beta), expected, rtol=1e-5)


def test_gradient_of_hard_bootstrapping():
    mixture = 0.3 * one_hot(LABELS) + 0.7 * one_hot(draw().argmax(-1))
    got = total_gradient(partial(hard_bootstrapping, beta=0.3), draw(), LABELS)
    np.testing.assert_allclose(got, softmax(draw()) - mixture, rtol=0, atol=1e-6)


# Properties.

# The spacing of float32 at logits up to 15, 2^-20, as symmetric cross-entropy magnifies it: 0.1 + 4 log 10.
ROUNDING = 9.4 * 2**-20


@hypothesis.given(three_rows_of_logits(10), THREE_LABELS, st.integers(-4, 4))
def test_a_constant_changes_nothing(logits, labels, constant):
    for loss in LOSSES:
        shifted = loss(logits + np.float32(constant), labels)
        np.testing.assert_allclose(shifted, loss(logits, labels), rtol=1e-6, atol=ROUNDING)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_large_constant_changes_nothing(loss):
    logits = np.round(draw() * 16) / 16
    shifted = logits + np.float32(1e4)
    np.testing.assert_array_equal(shifted - np.float32(1e4), logits)  # float32 holds them exactly
    np.testing.assert_allclose(loss(shifted, LABELS), loss(logits, LABELS), rtol=1e-5, atol=1e-6)
    gradient = total_gradient(loss, logits, LABELS)
    np.testing.assert_allclose(total_gradient(loss, shifted, LABELS), gradient, rtol=0, atol=1e-6)


@hypothesis.given(three_rows_of_logits(10), THREE_LABELS, st.permutations(range(NUM_CLASSES)))
def test_the_order_of_classes_is_arbitrary(logits, labels, order):
    logits = logits + np.arange(NUM_CLASSES, dtype=np.float32) / 64  # one predicted class, not several
    for loss in LOSSES[:3]:
        moved = loss(logits[:, order], np.argsort(order)[labels])
        np.testing.assert_allclose(moved, loss(logits, labels), rtol=1e-6, atol=ROUNDING)
    matrix = jnp.asarray(TRANSITIONS[np.ix_(order, order)])
    moved = forward_corrected_cross_entropy(logits[:, order], np.argsort(order)[labels], matrix)
    np.testing.assert_allclose(moved, forward_of_transitions(logits, labels), rtol=1e-6, atol=ROUNDING)


@hypothesis.given(three_rows_of_logits(10), THREE_LABELS, st.floats(0, 1))
def test_bounds(logits, labels, share):
    cross_entropy = np.asarray(plain_cross_entropy(logits, labels))
    symmetric = np.asarray(symmetric_cross_entropy(logits, labels, alpha=share, beta=2.0))
    assert (symmetric >= share * cross_entropy * (1 - 1e-6)).all()
    assert (symmetric <= (share * cross_entropy + 8 * np.log(10)) * (1 + 1e-6)).all()
    soft, hard = (
        np.asarray(loss(logits, labels, share)) for loss in (soft_bootstrapping, hard_bootstrapping)
    )
    label_part = share * cross_entropy
    assert (soft >= label_part * (1 - 1e-6)).all()
    assert (soft <= (label_part + (1 - share) * np.log(NUM_CLASSES)) * (1 + 1e-6) + 1e-6).all()
    # The predicted class has at least an even share, so it costs log C at most, and no more than the label.
    assert (hard >= label_part * (1 - 1e-6)).all()
    assert (hard <= (label_part + (1 - share) * np.log(NUM_CLASSES)) * (1 + 1e-6) + 1e-6).all()
    assert (hard <= cross_entropy * (1 + 1e-6) + 1e-6).all()
    forward = np.asarray(forward_of_transitions(logits, labels))
    assert (forward >= -np.log(TRANSITIONS.max(0)[labels]) - 1e-5).all()
    assert (forward <= -np.log(TRANSITIONS.min(0)[labels]) + 1e-5).all()


# Extreme logits.


@pytest.mark.parametrize("sizes", [1e4, 100.0])
@pytest.mark.parametrize(
    ("loss", "right", "wrong", "slope"),
    [
        # What the label costs if p is (1, 0, 0, 0) and if it is (0, 1, 0, 0), the latter as
        # (multiple of cross-entropy, rest), and the multiple of p - onehot that its gradient is.
        (symmetric_cross_entropy, 0.0, (0.1, 4 * np.log(10)), 0.1),
        (soft_bootstrapping, 0.0, (0.95, 0.0), 0.95),
        (hard_bootstrapping, 0.0, (0.8, 0.0), 0.8),
        (partial(soft_bootstrapping, beta=0.0), 0.0, (0.0, 0.0), 0.0),
        (partial(hard_bootstrapping, beta=0.0), 0.0, (0.0, 0.0), 0.0),
        (partial(forward_corrected_cross_entropy, transition_matrix=jnp.eye(4)), 0.0, (1.0, 0.0), 1.0),
    ],
)
def test_large_logits(loss, right, wrong, slope, sizes):
    label = jnp.array([0])
    rows = [jnp.array([[sign * sizes, -sign * sizes, 0.0, 0.0]]) for sign in (1, -1)]
    np.testing.assert_allclose(loss(rows[0], label), [right], rtol=1e-6)
    np.testing.assert_allclose(loss(rows[1], label), [wrong[0] * 2 * sizes + wrong[1]], rtol=1e-6)
    np.testing.assert_allclose(total_gradient(loss, rows[0], label), np.zeros((1, 4)), rtol=0, atol=1e-6)
    expected = slope * np.array([[-1, 1, 0, 0]])
    np.testing.assert_allclose(total_gradient(loss, rows[1], label), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("loss", "exact"), list(zip(LOSSES, EXACT, strict=True)))
@pytest.mark.parametrize("label", [0, 2])
def test_class_that_the_logits_rule_out(loss, exact, label):
    row, finite = np.array([[1, -np.inf, 0, -1]]), np.array([[1, -200.0, 0, -1]])
    labels = np.array([label])
    np.testing.assert_allclose(loss(jnp.asarray(row), labels), exact(finite, labels), rtol=1e-5)
    expected = numerical_gradient(lambda z: exact(z, labels).sum(), finite)
    np.testing.assert_allclose(total_gradient(loss, jnp.asarray(row), labels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "expected", "gradient"),
    [
        (symmetric_cross_entropy, np.inf, [-0.1, 0.1 / 3, 0.1 / 3, 0.1 / 3]),
        (soft_bootstrapping, np.inf, [-0.95, 0.95 / 3, 0.95 / 3, 0.95 / 3]),
        (hard_bootstrapping, np.inf, [-0.8, 0.4 / 3, 1 / 3, 1 / 3]),
        # p = (0, 1/3, 1/3, 1/3), t = (0.2 + 0.05 + 0.3) / 3: the gradient is p - p * T_y / t.
        (
            forward_of_transitions,
            -np.log(0.55 / 3),
            [0, 1 / 3 - 0.2 / 0.55, 1 / 3 - 0.05 / 0.55, 1 / 3 - 0.3 / 0.55],
        ),
        (partial(symmetric_cross_entropy, alpha=0.0), 4 * np.log(10), [0, 0, 0, 0]),
        (partial(soft_bootstrapping, beta=0.0), np.log(3), [0, 0, 0, 0]),
        (partial(hard_bootstrapping, beta=0.0), np.log(3), [0, -2 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_label_that_the_logits_rule_out(loss, expected, gradient):
    logits, labels = jnp.array([[-np.inf, 0.0, 0.0, 0.0]]), jnp.array([0])
    np.testing.assert_allclose(loss(logits, labels), [expected], rtol=1e-5)
    np.testing.assert_allclose(total_gradient(loss, logits, labels)[0], gradient, rtol=0, atol=1e-6)


# All of them.


@pytest.mark.parametrize("label", [4, 100, -1, -4, -5])
@pytest.mark.parametrize("loss", LOSSES)
def test_label_out_of_range_is_not_a_silent_number(loss, label):
    got = loss(draw(), jnp.array([0, label, 2, 3, 1, 0]))
    assert np.isnan(got[1])
    expected = loss(draw(), jnp.array([0, 0, 2, 3, 1, 0]))
    np.testing.assert_array_equal(np.delete(got, 1), np.delete(expected, 1))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(("loss", "exact"), list(zip(LOSSES, EXACT, strict=True)))
def test_low_precision_is_computed_in_float32(loss, exact, dtype):
    low = jnp.asarray(draw(), dtype)
    got = loss(low, LABELS)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact(low.astype(jnp.float32), LABELS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
@pytest.mark.parametrize("loss", LOSSES)
def test_any_integer_label(loss, dtype):
    np.testing.assert_array_equal(loss(draw(), jnp.asarray(LABELS, dtype)), loss(draw(), LABELS))


@pytest.mark.parametrize("loss", LOSSES)
def test_vmap_is_a_loop(loss):
    logits, labels = np.stack([draw(seed=seed) for seed in (1, 2)]), np.stack([LABELS, LABELS[::-1]])
    got = jax.jit(jax.vmap(loss))(logits, labels)
    alone = [loss(*pair) for pair in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6)


T = jnp.eye(3)
WRONG = [
    *(
        (function, (logits, labels), message)
        for function in (symmetric_cross_entropy, soft_bootstrapping, hard_bootstrapping)
        for logits, labels, message in WRONG_LOGITS_OR_LABELS
    ),
    *(
        (forward_corrected_cross_entropy, (logits, labels, T), message)
        for logits, labels, message in WRONG_LOGITS_OR_LABELS
    ),
    (symmetric_cross_entropy, (Z, Y, -0.1), "alpha must be at least 0 and finite, got -0.1"),
    (symmetric_cross_entropy, (Z, Y, np.inf), "alpha must be at least 0 and finite, got inf"),
    (symmetric_cross_entropy, (Z, Y, 0.1, -1.0), "beta must be at least 0 and finite, got -1.0"),
    (symmetric_cross_entropy, (Z, Y, 0.1, np.nan), "beta must be at least 0 and finite, got nan"),
    *(
        (function, (Z, Y, beta), rf"beta must be in \[0.0, 1.0\], got {beta}")
        for function in (soft_bootstrapping, hard_bootstrapping)
        for beta in (-0.1, 1.1, np.nan)
    ),
    (
        forward_corrected_cross_entropy,
        (Z, Y, T[:2]),
        r"transition_matrix must have shape \[C, C\] = \[3, 3\], got \[2, 3\]",
    ),
    (
        forward_corrected_cross_entropy,
        (Z, Y, T[0]),
        r"transition_matrix must have shape \[C, C\] = \[3, 3\], got \[3\]",
    ),
]


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
