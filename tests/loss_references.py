"""What the tests of the losses share."""

import numpy as np


def numerical_gradient(function, x, step=1e-5):
    """Central differences of a scalar function, float64."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        offset = np.zeros_like(x)
        offset[index] = step
        gradient[index] = (function(x + offset) - function(x - offset)) / (2 * step)
    return gradient


def log_sum_exp(values, axis):
    largest = values.max(axis, keepdims=True)
    return np.squeeze(largest, axis) + np.log(np.exp(values - largest).sum(axis))


def converged_potentials(rows, columns, cost, epsilon, tolerance=1e-12, max_iterations=100_000):
    """Potentials of the plan exp((f_i + g_j - cost_ij) / epsilon), in the log domain, float64, to its end."""
    scaled = -np.asarray(cost, np.float64) / epsilon
    log_rows, log_columns = np.log(rows), np.log(columns)
    u, v = np.zeros(len(log_rows)), np.zeros(len(log_columns))
    for _ in range(max_iterations):
        v = log_columns - log_sum_exp(scaled + u[:, None], 0)
        u = log_rows - log_sum_exp(scaled + v, 1)
        error = np.abs(np.exp(scaled + u[:, None] + v).sum(0) - columns).sum()
        if error < tolerance:
            return epsilon * u, epsilon * v
    raise AssertionError("the reference did not converge")


def converged_plan(rows, columns, cost, epsilon):
    f, g = converged_potentials(rows, columns, cost, epsilon)
    return np.exp((f[:, None] + g - cost) / epsilon)
