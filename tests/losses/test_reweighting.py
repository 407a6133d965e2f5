"""The transport distance that weights examples against a meta set, and its costs."""

from functools import partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from dsink_jax.losses import feature_cost, label_cost, transport_distance
from loss_references import converged_plan, numerical_gradient

pytestmark = pytest.mark.slow

EPSILON = 0.1
NUM_DEVICES = 8

# To the end of what float32 can do, so that what is left is not the solver's threshold.
solve = jax.jit(
    partial(transport_distance, threshold=1e-6, max_iterations=1000),
    static_argnames=("epsilon", "max_iterations"),
)
value_and_gradient = jax.jit(
    jax.value_and_grad(partial(transport_distance, threshold=1e-6, max_iterations=1000))
)


def softmax(weights):
    exponentials = np.exp(np.asarray(weights, np.float64) - np.max(weights))
    return exponentials / exponentials.sum()


def draw(num_examples, num_members, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(num_examples).astype(np.float32)
    return weights, rng.uniform(0, 2, (num_examples, num_members)).astype(np.float32)


def pot_distance(weights, cost, epsilon=EPSILON):
    """<plan, cost> by POT, float64."""
    cost = np.asarray(cost, np.float64)
    plan = ot.sinkhorn(
        softmax(weights),
        np.full(cost.shape[1], 1 / cost.shape[1]),
        cost,
        epsilon,
        method="sinkhorn_log",
        stopThr=1e-12,
        numItermax=20_000,
    )
    return (plan * cost).sum()


def exact_distance(weights, cost, epsilon=EPSILON):
    """<plan, cost> by the iteration itself, float64."""
    cost = np.asarray(cost, np.float64)
    plan = converged_plan(softmax(weights), np.full(cost.shape[1], 1 / cost.shape[1]), cost, epsilon)
    return (plan * cost).sum()


# Value.


def test_by_hand():
    # One member takes everything: the plan is the marginal, (3/4, 1/4).
    weights = jnp.log(jnp.array([3.0, 1.0]))
    got = transport_distance(weights, jnp.array([[1.0], [5.0]]))
    np.testing.assert_allclose(got, 2.0, rtol=1e-5)
    # Two of each with even marginals and cost 1 off the diagonal: x on it and 1/2 - x off it, where
    # x / (1/2 - x) = exp(1 / epsilon). Epsilon 1/log 3 makes that 3 : 1, so a quarter travels.
    cost = 1 - jnp.eye(2)
    got = transport_distance(jnp.zeros(2), cost, epsilon=1 / np.log(3))
    np.testing.assert_allclose(got, 0.25, rtol=1e-5)
    assert got.shape == ()
    assert got.dtype == jnp.float32


@pytest.mark.parametrize(
    ("shape", "epsilon"),
    [((6, 4), EPSILON), ((4, 6), EPSILON), ((1, 5), EPSILON), ((5, 1), EPSILON), ((16, 10), 1.0)],
)
def test_is_pots(shape, epsilon):
    weights, cost = draw(*shape)
    got = solve(weights, cost, epsilon=epsilon)
    np.testing.assert_allclose(got, pot_distance(weights, cost, epsilon), rtol=2e-5)
    np.testing.assert_allclose(got, exact_distance(weights, cost, epsilon), rtol=2e-5)


def test_limits_in_epsilon():
    # Large: the product of the marginals. Small: the exact problem, without entropy.
    weights, cost = draw(6, 4)
    product = softmax(weights) @ cost.mean(1)
    np.testing.assert_allclose(solve(weights, cost, epsilon=1e4), product, rtol=1e-3)
    emd = ot.emd2(softmax(weights), np.full(4, 1 / 4), cost.astype(np.float64))
    got = solve(weights, cost, epsilon=0.01, max_iterations=5000)
    np.testing.assert_allclose(got, emd, rtol=0, atol=0.01)
    assert got >= emd - 1e-5


def test_a_constant_on_the_weights_changes_nothing():
    weights, cost = draw(6, 4)
    np.testing.assert_allclose(solve(weights + 3, cost), solve(weights, cost), rtol=1e-5)


def test_order_of_examples_and_members_is_arbitrary():
    weights, cost = draw(6, 4)
    rows, columns = np.random.default_rng(1).permutation(6), np.random.default_rng(2).permutation(4)
    got, gradient = value_and_gradient(weights, cost)
    moved, moved_gradient = value_and_gradient(weights[rows], cost[np.ix_(rows, columns)])
    np.testing.assert_allclose(moved, got, rtol=1e-5)
    np.testing.assert_allclose(moved_gradient, gradient[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    weights, cost = (jnp.asarray(array, dtype) for array in draw(6, 4))
    got = solve(weights, cost)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, solve(weights.astype(jnp.float32), cost.astype(jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize(
    "weights",
    [[1e4, 0, 0, 0, 0, 0], [-1e4, 0, 1, 0, 0, 2], [1, -np.inf, 0, 0, 0, 0], [50, -50, 49, 0, 0, 48]],
)
def test_extreme_weights(weights):
    # Examples of no weight: as if they were not there. What stands in for 0 moves 1e-9 of the mass.
    weights, cost = np.array(weights, np.float32), draw(6, 4)[1]
    got, gradient = value_and_gradient(weights, cost)
    there = softmax(weights) > 1e-12
    np.testing.assert_allclose(got, exact_distance(weights[there], cost[there]), rtol=2e-5)
    np.testing.assert_allclose(gradient[~there], 0, rtol=0, atol=1e-20)
    expected = numerical_gradient(lambda w: exact_distance(w, cost[there]), weights[there])
    np.testing.assert_allclose(gradient[there], expected, rtol=0, atol=2e-4)


# Gradient.


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_gradient_is_that_of_an_independent_solver(shape):
    weights, cost = draw(*shape)
    _, gradient = value_and_gradient(weights, cost)
    expected = numerical_gradient(lambda w: exact_distance(w, cost), weights, step=1e-4)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4)
    # A constant on the weights changes nothing.
    np.testing.assert_allclose(gradient.sum(), 0, rtol=0, atol=1e-5)


def test_defaults():
    weights, cost = draw(16, 10)
    got, gradient = jax.jit(jax.value_and_grad(transport_distance))(weights, cost)
    # Epsilon 0.1. The marginal is off by at most 1e-4 in L1 and the cost at most 2.
    np.testing.assert_allclose(got, exact_distance(weights, cost, 0.1), rtol=0, atol=2e-4)
    expected = numerical_gradient(lambda w: exact_distance(w, cost), weights, step=1e-4)
    cosine = gradient @ expected / np.linalg.norm(gradient) / np.linalg.norm(expected)
    assert cosine > 0.999
    np.testing.assert_allclose(np.linalg.norm(gradient), np.linalg.norm(expected), rtol=0.02)


def test_gradient_under_pmap():
    problems = [draw(6, 4, seed) for seed in range(NUM_DEVICES)]
    weights, costs = (np.stack(arrays) for arrays in zip(*problems, strict=True))
    loss = jax.value_and_grad(partial(transport_distance, threshold=1e-6, max_iterations=1000))
    mapped = jax.pmap(loss, axis_name="devices")
    values, gradients = mapped(weights, costs)
    assert len({float(value) for value in values}) == NUM_DEVICES
    for (weight, cost), value, gradient in zip(problems, values, gradients, strict=True):
        expected, expected_gradient = value_and_gradient(weight, cost)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5)
    # The same problem on all devices: the same gradient on all.
    _, same = mapped(*(np.stack([array] * NUM_DEVICES) for array in problems[0]))
    np.testing.assert_array_equal(same, np.repeat(np.asarray(same)[:1], NUM_DEVICES, axis=0))
    np.testing.assert_allclose(same[0], value_and_gradient(*problems[0])[1], rtol=0, atol=1e-5)


def test_vmap_is_a_loop():
    problems = [draw(6, 4, seed) for seed in range(3)]
    weights, costs = (np.stack(arrays) for arrays in zip(*problems, strict=True))
    loss = jax.value_and_grad(partial(transport_distance, threshold=1e-6, max_iterations=1000))
    values, gradients = jax.jit(jax.vmap(loss))(weights, costs)
    for (weight, cost), value, gradient in zip(problems, values, gradients, strict=True):
        expected, expected_gradient = value_and_gradient(weight, cost)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5)


def test_no_gradient_to_the_cost():
    weights, cost = draw(6, 4)
    to_weights, to_cost = jax.jit(jax.grad(transport_distance, argnums=(0, 1)))(weights, cost)
    np.testing.assert_array_equal(to_cost, np.zeros_like(cost))
    assert np.abs(to_weights).max() > 0.05


def test_descent_balances_the_classes():
    # Three examples of class 0 and one of class 1, a balanced meta set: the one is to weigh half.
    labels = jnp.array([0, 0, 0, 1])
    cost = 10 * label_cost(labels, jnp.array([0, 1]), num_classes=10)
    step = jax.jit(jax.grad(transport_distance))
    weights = jnp.zeros(4)
    for _ in range(200):
        weights = weights - step(weights, cost)
    np.testing.assert_allclose(softmax(weights), [1 / 6, 1 / 6, 1 / 6, 1 / 2], rtol=0, atol=0.02)


# Padding.


@pytest.mark.parametrize("filling", [0.0, np.nan, np.inf, -1e30])
def test_padding_takes_no_part(filling):
    weights, cost = draw(9, 4)
    where = np.array([True, False, True, True, False, True, True, False, True])
    padded = np.where(where[:, None], cost, np.float32(filling))
    padded_weights = np.where(where, weights, np.float32(filling))
    got, gradient = value_and_gradient(padded_weights, padded, where=where)
    np.testing.assert_allclose(got, exact_distance(weights[where], cost[where]), rtol=2e-5)
    np.testing.assert_array_equal(gradient[~where], 0)
    without = value_and_gradient(weights[where], cost[where])[1]
    np.testing.assert_allclose(gradient[where], without, rtol=0, atol=2e-5)


def test_where_true_everywhere_changes_nothing():
    weights, cost = draw(6, 4)
    got = value_and_gradient(weights, cost, where=np.ones(6, bool))
    for one, other in zip(got, value_and_gradient(weights, cost), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_padding_alone_is_finite():
    # What a device is given whose part of the last batch is empty.
    weights, cost = draw(6, 4)
    got, gradient = value_and_gradient(weights, cost, where=np.zeros(6, bool))
    np.testing.assert_array_equal(gradient, 0)
    assert np.isfinite(got)


# Costs.


def test_feature_cost_by_hand():
    # Angles of 0, 60, 90, 180 degrees; lengths do not count.
    features = jnp.array([[3.0, 0.0]])
    meta = jnp.array([[0.1, 0.0], [5.0, 5 * np.sqrt(3)], [0.0, 7.0], [-2.0, 0.0]])
    np.testing.assert_allclose(feature_cost(features, meta), [[0, 0.5, 1, 2]], rtol=0, atol=1e-6)


def test_feature_cost_by_its_definition():
    rng = np.random.default_rng(0)
    features, meta = rng.standard_normal((7, 5)), rng.standard_normal((3, 5))
    got = feature_cost(jnp.asarray(features, jnp.float32), jnp.asarray(meta, jnp.float32))
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(meta, axis=1)
    np.testing.assert_allclose(got, 1 - features @ meta.T / lengths, rtol=0, atol=1e-6)
    assert got.dtype == jnp.float32
    assert got.shape == (7, 3)
    np.testing.assert_allclose(jax.jit(feature_cost)(features, meta), got, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_feature_cost_of_low_precision(dtype):
    low = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), dtype)
    got = feature_cost(low, low)
    assert got.dtype == jnp.float32
    single = low.astype(jnp.float32)
    np.testing.assert_array_equal(got, feature_cost(single, single))


def test_feature_cost_of_no_features():
    # A zero vector has no direction: as far from all as a right angle.
    got = feature_cost(jnp.zeros((1, 3)), jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(got, [[1, 1]])


@hypothesis.given(
    hnp.arrays(np.float32, (2, 4), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
)
def test_feature_cost_is_symmetric_and_bounded(features, meta):
    got = np.asarray(feature_cost(jnp.asarray(features), jnp.asarray(meta)))
    np.testing.assert_allclose(
        got, feature_cost(jnp.asarray(meta), jnp.asarray(features)).T, rtol=0, atol=1e-6
    )
    # In [0, 2] but for the rounding of a vector to length 1.
    assert (got >= -1e-6).all()
    assert (got <= 2 + 1e-6).all()


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_label_cost_is_the_mean_square_of_one_hot_labels(num_classes):
    labels, meta = np.array([0, 1, 1, 0, num_classes - 1]), np.arange(num_classes)
    rows, columns = np.eye(num_classes)[labels], np.eye(num_classes)[meta]
    expected = ((rows[:, None] - columns) ** 2).mean(-1)
    got = label_cost(jnp.asarray(labels), jnp.asarray(meta), num_classes)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.dtype == jnp.float32
    jitted = jax.jit(label_cost, static_argnames="num_classes")(labels, meta, num_classes)
    np.testing.assert_array_equal(jitted, got)


# Wrong arguments.

W, C = jnp.zeros(4), jnp.zeros((4, 3))
SHAPES = r"weights must have shape \[N\] for cost \[N, M\], got {} and {}"


@pytest.mark.parametrize(
    ("weights", "cost", "options", "message"),
    [
        (W[:3], C, {}, SHAPES.format(r"\[3\]", r"\[4, 3\]")),
        (C, C, {}, SHAPES.format(r"\[4, 3\]", r"\[4, 3\]")),
        (W[0], C, {}, SHAPES.format(r"\[\]", r"\[4, 3\]")),
        (W, W, {}, SHAPES.format(r"\[4\]", r"\[4\]")),
        (W, C[None], {}, SHAPES.format(r"\[4\]", r"\[1, 4, 3\]")),
        (W, C, {"epsilon": 0.0}, "epsilon must be positive, got 0.0"),
        (W, C, {"epsilon": -0.1}, "epsilon must be positive, got -0.1"),
        (W, C, {"epsilon": np.nan}, "epsilon must be positive, got nan"),
    ],
)
def test_wrong_arguments(weights, cost, options, message):
    with pytest.raises(ValueError, match=message):
        transport_distance(weights, cost, **options)


@pytest.mark.parametrize(
    "where", [np.ones(1, bool), np.ones((4, 1), bool), np.ones(4, int), np.ones(3, bool)]
)
def test_wrong_where(where):
    with pytest.raises(ValueError, match=r"where must be bool \[N\] = \[4\]"):
        transport_distance(W, C, where=where)


def test_features_are_multiplied_in_all_of_float32():
    # Accelerators take less by default.
    program = str(jax.make_jaxpr(feature_cost)(jnp.ones((3, 2)), jnp.ones((4, 2))))
    assert (
        program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1
    )
