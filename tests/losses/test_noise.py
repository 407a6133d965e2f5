from functools import partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.losses import (
    early_learning_regularized,
    early_learning_targets,
    generalized_cross_entropy,
)
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
    one_hot,
    plain_cross_entropy,
    softmax,
    total_gradient,
)


def exact_generalized(logits, labels, q):
    """(1 - p_y^q) / q, float64."""
    return (1 - likelihood(logits, labels) ** q) / q


def exact_regularized(logits, labels, targets, weight):
    """-log p_y + weight log(1 - <t, p>) with p held in [1e-4, 1 - 1e-4], float64."""
    agreement = (np.asarray(targets, np.float64) * np.clip(softmax(logits), 1e-4, 1 - 1e-4)).sum(-1)
    return -np.log(likelihood(logits, labels)) + weight * np.log(1 - agreement)


# Generalised cross-entropy.


def test_generalized_by_hand():
    # p_y = 1/4 with q = 1/2: (1 - 1/2) / (1/2) = 1.
    got = generalized_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), q=0.5)
    np.testing.assert_allclose(got, [1.0], rtol=1e-6)


@pytest.mark.parametrize("q", [None, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_generalized_by_its_definition(q, num_examples):
    logits, labels = draw(num_examples), LABELS[:num_examples]
    loss = generalized_cross_entropy if q is None else partial(generalized_cross_entropy, q=q)
    q = 0.7 if q is None else q
    got = loss(jnp.asarray(logits), jnp.asarray(labels))
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact_generalized(logits, labels, q), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), got, rtol=1e-6, atol=1e-7)
    exact = numerical_gradient(lambda z: exact_generalized(z, labels, q).sum(), logits)
    gradient = total_gradient(lambda z: loss(z, labels), logits)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-5)


def test_generalized_tends_to_cross_entropy():
    logits = draw()
    cross_entropy = plain_cross_entropy(logits, LABELS)
    for q in (1e-1, 1e-2, 1e-4):
        gap = cross_entropy - generalized_cross_entropy(logits, LABELS, q=q)
        # 0 <= x - (1 - exp(-q x)) / q <= q x^2 / 2
        assert (gap >= -1e-5).all()
        assert (gap <= q * cross_entropy**2 / 2 + 1e-5).all()


def test_generalized_with_q_one_is_mean_absolute_error():
    logits = draw()
    expected = 1 - likelihood(logits, LABELS)
    np.testing.assert_allclose(generalized_cross_entropy(logits, LABELS, q=1), expected, rtol=0, atol=1e-6)
    # The L1 distance of the prediction to the one-hot label is twice that.
    distance = np.abs(softmax(logits) - one_hot(LABELS)).sum(1)
    np.testing.assert_allclose(distance, 2 * expected, rtol=1e-12)


@hypothesis.given(
    hnp.arrays(np.float32, (3, NUM_CLASSES), elements=st.floats(-50, 50, width=32)),
    st.floats(0.01, 0.99),
    THREE_LABELS,
)
def test_generalized_is_bounded_and_below_cross_entropy(logits, q, labels):
    got = np.asarray(generalized_cross_entropy(jnp.asarray(logits), labels, q=q), np.float64)
    assert (got >= 0).all()
    assert (got <= 1 / q * (1 + 1e-6)).all()
    assert (got <= -np.log(np.maximum(likelihood(logits, labels), 1e-300)) * (1 + 1e-5) + 1e-5).all()
    assert (got >= exact_generalized(logits, labels, 1.0) * (1 - 1e-5) - 1e-6).all()


@pytest.mark.parametrize("q", [0.01, 0.7, 1.0])
@pytest.mark.parametrize(
    ("row", "expected_likelihood"),
    [
        ([1e4, -1e4, 0, 0], 1.0),
        ([-1e4, 1e4, 0, 0], 0.0),
        ([-np.inf, 0, 0, 0], 0.0),
        ([0, -np.inf, 0, 0], 1 / 3),
        ([0, 200, 0, 0], 0.0),
    ],
)
def test_generalized_of_extreme_logits(row, expected_likelihood, q):
    logits = jnp.array([row], jnp.float32)
    got = generalized_cross_entropy(logits, jnp.array([0]), q=q)
    # The last row has p_y = exp(-200), which float32 cannot hold; its power q is not 0.
    power = np.exp(-200 * q) if row[1] == 200 else expected_likelihood**q
    np.testing.assert_allclose(got, [(1 - power) / q], rtol=1e-5, atol=1e-6)
    gradient = total_gradient(lambda z: generalized_cross_entropy(z, jnp.array([0]), q=q), logits)[0]
    expected = power * (softmax(row) - [1, 0, 0, 0])
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


# Early-learning regularisation.


def draw_targets(num_examples=6, seed=1):
    return (0.8 * softmax(draw(num_examples, seed=seed))).astype(np.float32)


def test_regularized_by_hand():
    # p = (3/4, 1/4), t = (1/2, 1/2): -log(1/4) + 3 log(1 - 1/2).
    logits, targets = jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([[0.5, 0.5]])
    got = early_learning_regularized(logits, jnp.array([1]), targets)
    np.testing.assert_allclose(got, [np.log(4) - 3 * np.log(2)], rtol=0, atol=1e-6)
    got = early_learning_regularized(logits, jnp.array([1]), targets, weight=7.0)
    np.testing.assert_allclose(got, [np.log(4) - 7 * np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("weight", [None, 0.0, 1.0, 7.0])
@pytest.mark.parametrize("num_examples", [1, len(LABELS)])
def test_regularized_by_its_definition(weight, num_examples):
    logits, labels, targets = draw(num_examples), LABELS[:num_examples], draw_targets(num_examples)
    loss = (
        early_learning_regularized if weight is None else partial(early_learning_regularized, weight=weight)
    )
    weight = 3.0 if weight is None else weight
    got = loss(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(targets))
    assert got.dtype == jnp.float32
    assert got.shape == (num_examples,)
    np.testing.assert_allclose(got, exact_regularized(logits, labels, targets, weight), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(loss)(logits, labels, targets), got, rtol=1e-6, atol=1e-6)
    exact = numerical_gradient(lambda z: exact_regularized(z, labels, targets, weight).sum(), logits)
    to_logits, to_targets = total_gradient(
        lambda z, t: loss(z, labels, t), logits, jnp.asarray(targets), argnums=(0, 1)
    )
    np.testing.assert_allclose(to_logits, exact, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(to_targets, 0)


def test_regularized_without_targets_is_cross_entropy():
    # The first epoch: nothing has been predicted yet.
    got = early_learning_regularized(draw(), LABELS, jnp.zeros((len(LABELS), NUM_CLASSES)))
    np.testing.assert_allclose(got, plain_cross_entropy(draw(), LABELS), rtol=1e-6)


def test_regulariser_pulls_towards_the_targets():
    # The label says class 1, earlier predictions class 0: a descent step must favour class 0.
    logits, targets = jnp.zeros((1, NUM_CLASSES)), jnp.array([[0.9, 0.0, 0.0, 0.0]])
    loss = partial(early_learning_regularized, weight=20.0)
    gradient = total_gradient(lambda z: loss(z, jnp.array([1]), targets), logits)[0]
    assert gradient[0] < 0
    assert np.argmin(gradient) == 0


@pytest.mark.parametrize(
    ("row", "target", "expected"),
    [
        # Agreement is held below 1 - 1e-4, so the regulariser stops at log 1e-4.
        ([1e4, -1e4, 0, 0], [1, 0, 0, 0], 3 * np.log(1e-4)),
        ([-1e4, 1e4, 0, 0], [0, 1, 0, 0], 2e4 + 3 * np.log(1e-4)),
        ([1e4, -1e4, 0, 0], [0, 1, 0, 0], 3 * np.log(1 - 1e-4)),
        ([0, -np.inf, 0, 0], [0, 0, 0, 0], np.log(3)),
        ([0, -np.inf, 0, 0], [1, 0, 0, 0], np.log(3) + 3 * np.log(2 / 3)),
        ([-np.inf, 0, 0, 0], [0, 1, 0, 0], np.inf),
    ],
)
def test_regularized_of_extreme_logits(row, target, expected):
    logits, targets = jnp.array([row], jnp.float32), jnp.array([target], jnp.float32)
    got = early_learning_regularized(logits, jnp.array([0]), targets)
    np.testing.assert_allclose(got, [expected], rtol=2e-4)
    gradient = total_gradient(lambda z: early_learning_regularized(z, jnp.array([0]), targets), logits)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(), 0, rtol=0, atol=1e-6)


def test_targets_by_hand():
    # p = (3/4, 1/4) at first and (1/4, 3/4) afterwards, momentum 1/2.
    first, second = jnp.log(jnp.array([[3.0, 1.0]])), jnp.log(jnp.array([[1.0, 3.0]]))
    targets = early_learning_targets(first, jnp.zeros((1, 2)), momentum=0.5)
    np.testing.assert_allclose(targets, [[0.375, 0.125]], rtol=1e-6)
    targets = early_learning_targets(second, targets, momentum=0.5)
    np.testing.assert_allclose(targets, [[0.3125, 0.4375]], rtol=1e-6)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.9, 1.0])
def test_targets_follow_the_recursion(momentum):
    options = {} if momentum is None else {"momentum": momentum}
    momentum = 0.7 if momentum is None else momentum
    step = jax.jit(partial(early_learning_targets, **options))
    targets, expected = jnp.zeros((len(LABELS), NUM_CLASSES)), np.zeros((len(LABELS), NUM_CLASSES))
    for epoch in range(1, 7):
        logits = draw(scale=6, seed=epoch)  # confident enough for the clipping to matter
        targets = step(logits, targets)
        clipped = np.clip(softmax(logits), 1e-4, 1 - 1e-4)
        assert (clipped != softmax(logits)).any()
        expected = momentum * expected + (1 - momentum) * clipped / clipped.sum(1, keepdims=True)
        np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(targets.sum(1), 1 - momentum**epoch, rtol=0, atol=1e-6)
    assert targets.dtype == jnp.float32
    np.testing.assert_allclose(
        early_learning_targets(logits, targets, **options), step(logits, targets), rtol=1e-6
    )


def test_targets_have_no_gradient_to_the_logits():
    gradient = total_gradient(lambda z: early_learning_targets(z, draw_targets())[:, 0], draw())
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("row", [[1e4, -1e4, 0, 0], [-np.inf, 0, 0, 0]])
def test_targets_of_extreme_logits(row):
    got = early_learning_targets(jnp.array([row], jnp.float32), jnp.zeros((1, 4)), momentum=0.0)
    clipped = np.clip(softmax(row), 1e-4, 1 - 1e-4)
    np.testing.assert_allclose(got[0], clipped / clipped.sum(), rtol=1e-5)


# All of them.


def regularized_with_targets(logits, labels):
    return early_learning_regularized(logits, labels, jnp.asarray(draw_targets()))


@pytest.mark.parametrize("label", [4, 100, -1, -4, -5])
@pytest.mark.parametrize("loss", [generalized_cross_entropy, regularized_with_targets])
def test_label_out_of_range_is_not_a_silent_number(loss, label):
    got = loss(draw(), jnp.array([0, label, 2, 3, 1, 0]))
    assert np.isnan(got[1])
    expected = loss(draw(), jnp.array([0, 0, 2, 3, 1, 0]))
    np.testing.assert_array_equal(np.delete(got, 1), np.delete(expected, 1))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    logits, targets = jnp.asarray(draw(), dtype), jnp.asarray(draw_targets(), dtype)
    single, single_targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    generalized = generalized_cross_entropy(logits, LABELS)
    regularized = early_learning_regularized(logits, LABELS, targets)
    next_targets = early_learning_targets(logits, targets)
    assert {generalized.dtype, regularized.dtype, next_targets.dtype} == {jnp.dtype("float32")}
    np.testing.assert_allclose(generalized, exact_generalized(single, LABELS, 0.7), rtol=1e-5, atol=1e-6)
    expected = exact_regularized(single, LABELS, single_targets, 3.0)
    np.testing.assert_allclose(regularized, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(next_targets, early_learning_targets(single, single_targets))


WRONG = [
    *(
        (generalized_cross_entropy, (logits, labels), message)
        for logits, labels, message in WRONG_LOGITS_OR_LABELS
    ),
    (generalized_cross_entropy, (Z, Y, 0.0), r"q must be in \(0.0, 1.0\], got 0.0"),
    (generalized_cross_entropy, (Z, Y, -0.7), r"q must be in \(0.0, 1.0\], got -0.7"),
    (generalized_cross_entropy, (Z, Y, 1.1), r"q must be in \(0.0, 1.0\], got 1.1"),
    (generalized_cross_entropy, (Z, Y, np.nan), r"q must be in \(0.0, 1.0\], got nan"),
    *(
        (early_learning_regularized, (logits, labels, Z), message)
        for logits, labels, message in WRONG_LOGITS_OR_LABELS
    ),
    (
        early_learning_regularized,
        (Z, Y, Z[:2]),
        r"targets must have the shape of logits, \[4, 3\], got \[2, 3\]",
    ),
    (
        early_learning_regularized,
        (Z, Y, Z[:, 0]),
        r"targets must have the shape of logits, \[4, 3\], got \[4\]",
    ),
    (early_learning_regularized, (Z, Y, Z.astype(int)), "targets must be floating point, got int32"),
    (early_learning_regularized, (Z, Y, Z, -1.0), "weight must be at least 0 and finite, got -1.0"),
    (early_learning_regularized, (Z, Y, Z, np.nan), "weight must be at least 0 and finite, got nan"),
    (early_learning_targets, (Z[0, 0], Z[0, 0]), r"logits must have shape \[..., C\], got \[\]"),
    (early_learning_targets, (Z.astype(int), Z), "logits must be floating point, got int32"),
    (early_learning_targets, (Z, Z[:2]), r"targets must have the shape of logits, \[4, 3\], got \[2, 3\]"),
    (early_learning_targets, (Z, Z.astype(int)), "targets must be floating point, got int32"),
    (early_learning_targets, (Z, Z, -0.1), r"momentum must be in \[0.0, 1.0\], got -0.1"),
    (early_learning_targets, (Z, Z, 1.1), r"momentum must be in \[0.0, 1.0\], got 1.1"),
    (early_learning_targets, (Z, Z, np.nan), r"momentum must be in \[0.0, 1.0\], got nan"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
