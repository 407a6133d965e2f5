"""The transport solver by itself; what allocation makes of it is tested there."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from dsink_jax.transport import solve_transport
from loss_references import converged_plan, converged_potentials, numerical_gradient

EPSILON = 0.2
# To the end of what float32 can do.
PRECISE = {"epsilon": EPSILON, "threshold": 1e-6, "max_iterations": 1000}


def draw(num_rows=7, num_columns=4, seed=0):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 2, (num_rows, num_columns)).astype(np.float32)
    return cost, *(rng.dirichlet(np.full(n, 3.0)).astype(np.float32) for n in cost.shape)


def plan_of(solution, cost, epsilon=EPSILON):
    return jnp.exp((solution.row_potential[:, None] + solution.column_potential - cost) / epsilon)


def in_double(cost, rows, columns):
    """The problem in float64, its marginals summing to 1 to the last digit."""
    rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
    return np.asarray(cost, np.float64), rows / rows.sum(), columns / columns.sum()


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (1, 3), (3, 1)])
def test_potentials_are_pots(shape):
    cost, rows, columns = draw(*shape)
    solution = solve_transport(cost, rows, columns, **PRECISE)
    exact_cost, exact_rows, exact_columns = in_double(cost, rows, columns)
    plan, log = ot.bregman.sinkhorn_log(
        exact_rows, exact_columns, exact_cost, EPSILON, stopThr=1e-12, numItermax=20_000, log=True
    )
    # A constant may move from one potential to the other; their sums are what is determined.
    sums = solution.row_potential[:, None] + solution.column_potential
    expected = EPSILON * (log["log_u"][:, None] + log["log_v"])
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-5)
    ours = converged_potentials(exact_rows, exact_columns, exact_cost, EPSILON)
    np.testing.assert_allclose(sums, ours[0][:, None] + ours[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(plan_of(solution, cost), plan, rtol=0, atol=1e-5)
    assert {leaf.dtype for leaf in solution[:2]} == {jnp.dtype("float32")}
    assert (solution.row_potential.shape, solution.column_potential.shape) == ((shape[0],), (shape[1],))


def test_by_hand():
    # Marginals 1/2, cost log 3 off the diagonal, epsilon 1: three times as much on it as off it.
    cost = np.log(3) * (1 - jnp.eye(2))
    solution = solve_transport(
        cost, jnp.full(2, 0.5), jnp.full(2, 0.5), epsilon=1.0, threshold=1e-6, max_iterations=100
    )
    plan = plan_of(solution, cost, 1.0)
    np.testing.assert_allclose(plan, np.array([[3, 1], [1, 3]]) / 8, rtol=1e-5)
    assert bool(solution.converged)


def test_rows_are_fitted_last():
    # Stopped long before the end: the rows are right, the columns are not, and it says so.
    cost, rows, columns = draw()
    options = {"epsilon": 0.01, "threshold": 1e-6, "max_iterations": 10}
    solution = solve_transport(cost, rows, columns, **options)
    plan = plan_of(solution, cost, 0.01)
    np.testing.assert_allclose(plan.sum(1), rows, rtol=1e-4)
    assert np.abs(plan.sum(0) - columns).sum() > 1e-3
    assert not bool(solution.converged)
    assert int(solution.iterations) == 10
    assert solution.iterations.dtype == jnp.int32


def test_threshold_is_the_error_of_the_columns():
    cost, rows, columns = draw()
    counts = []
    for threshold in (1e-1, 1e-3, 1e-5):
        solution = solve_transport(
            cost, rows, columns, epsilon=0.05, threshold=threshold, max_iterations=1000
        )
        assert bool(solution.converged)
        error = np.abs(plan_of(solution, cost, 0.05).sum(0) - columns).sum()
        assert error < threshold + 2e-6  # float32
        counts.append(int(solution.iterations))
        assert counts[-1] % 10 == 0
    assert counts == sorted(set(counts))


def hard(seed):
    """Costs of confident predictions that the column marginal contradicts."""
    rng = np.random.default_rng(seed)
    rows, columns = ((32, 12), (16, 24))[seed % 2]
    shared = rng.standard_normal((rows, columns))
    cost = 8 * (2 * shared + rng.standard_normal((rows, columns)) + rng.standard_normal((rows, columns)))
    marginals = np.full(rows, 1 / rows), rng.dirichlet(np.full(columns, 0.5))
    return [np.asarray(array, np.float32) for array in (cost - cost.min(1, keepdims=True), *marginals)]


def test_over_relaxation_is_faster_and_ends_at_the_same_plan():
    saved = []
    for seed in range(12):
        cost, rows, columns = hard(seed)
        options = {"epsilon": 2.0, "threshold": 1e-6, "max_iterations": 3000}
        plain, relaxed = (
            solve_transport(cost, rows, columns, relaxed=relaxed, **options) for relaxed in (False, True)
        )
        assert bool(plain.converged) and bool(relaxed.converged)
        assert int(relaxed.iterations) <= int(plain.iterations)
        if int(plain.iterations) <= 30:
            np.testing.assert_array_equal(plain.column_potential, relaxed.column_potential)
        expected = converged_plan(*in_double(cost, rows, columns)[1:], np.float64(cost), 2.0)
        np.testing.assert_allclose(plan_of(relaxed, cost, 2.0), expected, rtol=0, atol=1e-5)
        saved.append(int(plain.iterations) / int(relaxed.iterations))
    assert np.median(saved) > 1.5


def test_constant_costs_go_to_the_potentials():
    cost, rows, columns = draw()
    plan = plan_of(solve_transport(cost, rows, columns, **PRECISE), cost)
    moved = cost + np.arange(7, dtype=np.float32)[:, None] / 4 + np.arange(4, dtype=np.float32) / 2
    np.testing.assert_allclose(
        plan_of(solve_transport(moved, rows, columns, **PRECISE), moved), plan, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_gradient_with_respect_to_the_row_marginal(shape):
    cost, rows, columns = draw(*shape)
    coefficients = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    # Marginals as a softmax, because all that sum to 1 is defined.
    def total(logits):
        plan = plan_of(solve_transport(cost, jax.nn.softmax(logits), columns, **PRECISE), cost)
        return (coefficients * plan).sum()

    def exact(logits):
        exponentials = np.exp(logits)
        problem = in_double(cost, exponentials / exponentials.sum(), columns)
        plan = converged_plan(problem[1], problem[2], problem[0], EPSILON)
        return (coefficients * plan).sum()

    logits = np.log(rows)
    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
    np.testing.assert_allclose(value, exact(logits.astype(np.float64)), rtol=1e-4)
    expected = numerical_gradient(exact, logits, step=1e-4)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4)


def test_gradient_of_the_optimal_value_is_the_row_potential():
    # The dual theorem: d(min <P, cost> - epsilon entropy(P)) / d rows is f, up to a constant.
    cost, rows, columns = draw()

    def objective(rows):
        plan = plan_of(solve_transport(cost, rows, columns, **PRECISE), cost)
        return (plan * cost).sum() - EPSILON * jax.scipy.special.entr(plan).sum()

    gradient = jax.jit(jax.grad(objective))(rows)
    potential = solve_transport(cost, rows, columns, **PRECISE).row_potential
    np.testing.assert_allclose(gradient - gradient.mean(), potential - potential.mean(), rtol=0, atol=1e-4)
