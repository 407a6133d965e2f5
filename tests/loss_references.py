"""What the tests of the losses share."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsink_jax.losses import forward_corrected_cross_entropy

LABELS = np.array([0, 3, 2, 3, 1, 0])
NUM_CLASSES = 4
# Rows sum to 1, columns do not: a transposed matrix would show.
TRANSITIONS = np.array(
    [[0.7, 0.1, 0.15, 0.05], [0.2, 0.6, 0.1, 0.1], [0.05, 0.25, 0.5, 0.2], [0.3, 0.02, 0.08, 0.6]]
)
THREE_LABELS = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=3, max_size=3).map(np.array)

Z, Y = jnp.zeros((4, 3)), jnp.zeros(4, int)
WRONG_LOGITS_OR_LABELS = [
    (Z[0, 0], Y[0], r"logits must have shape \[..., C\], got \[\]"),
    (Z[:, :0], Y, r"logits must have shape \[..., C\], got \[4, 0\]"),
    (Z[0], Y, r"labels must have the shape of logits without classes, \[\], got \[4\]"),
    (Z[None], Y, r"labels must have the shape of logits without classes, \[1, 4\], got \[4\]"),
    (Z.astype(int), Y, "logits must be floating point, got int32"),
    (Z, Y[:2], r"labels must have the shape of logits without classes, \[4\], got \[2\]"),
    (Z, Z, r"labels must have the shape of logits without classes, \[4\], got \[4, 3\]"),
    (Z, Z[:, 0], "labels must be integers, got float32"),
    (Z, Y > 0, "labels must be integers, got bool"),
]

plain_cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


def three_rows_of_logits(largest):
    """In sixteenths, so that a whole number added to them is no rounding."""
    sixteenths = st.integers(-16 * largest, 16 * largest)
    return hnp.arrays(np.int32, (3, NUM_CLASSES), elements=sixteenths).map(
        lambda drawn: (drawn / 16).astype(np.float32)
    )


def draw(num_examples=6, scale=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((num_examples, NUM_CLASSES))).astype(np.float32)


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def likelihood(logits, labels):
    return softmax(logits)[np.arange(len(labels)), labels]


def one_hot(labels):
    return np.eye(NUM_CLASSES)[labels]


def exact_forward(logits, labels, matrix=TRANSITIONS):
    """-log (T' p)_y, float64."""
    return -np.log((softmax(logits) @ matrix)[np.arange(len(labels)), labels])


def forward_of_transitions(logits, labels):
    return forward_corrected_cross_entropy(logits, labels, jnp.asarray(TRANSITIONS))


def total_gradient(loss, *arguments, argnums=0):
    return jax.jit(jax.grad(lambda *xs: loss(*xs).sum(), argnums=argnums))(*arguments)


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
