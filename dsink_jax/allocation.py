"""Surrogate labels Q: entropic optimal transport from a batch to the class marginal of f_L.

D-SINK (Dual-Granularity Sinkhorn Distillation, arXiv 2510.08179)
asks for labels Q that minimise

    sum_i KL(q_i || f_N(x_i)) + KL(q_i || f(x_i))
    subject to  sum_i q_i = sum_i f_L(x_i),  each q_i sums to 1.

Expanding the two divergences gives sum_i <q_i, P_i> + 2 <q_i, log q_i> with P = -log f_N - log f, which
is entropic optimal transport with cost P and epsilon 2: Q = N diag(u) sqrt(f_N f) diag(v).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_batch, check_class_marginal, check_max_iterations, check_positive
from dsink_jax.collectives import all_gather, own_rows, psum
from dsink_jax.transport import solve_transport

# Two KL terms, each with the negative entropy of q once: epsilon is 2, not a free parameter.
EPSILON = 2.0
DEFAULT_THRESHOLD = 1e-6
DEFAULT_MAX_ITERATIONS = 500

# A batch over several devices is solved where its rows are, instead of gathered, from this size N C of the
# whole on: 16 MiB in float32. Every device of a gathered batch goes through all of it, four times an
# iteration; instead of that, a distributed one waits for two small exchanges an iteration. At 2 TB/s and 15
# microseconds an exchange both take 30 microseconds for 4 million numbers. On slower memory the distributed
# solve wins earlier, but there both are short.
DISTRIBUTE_FROM = 2**22


class Allocation(NamedTuple):
    """Surrogate labels of a batch and how well they were solved for.

    Attributes:
      labels: float32 `[N, C]`, Q. Rows sum to 1; rows masked out by `where` are 0.
      marginal_error: float32 `[]`, sum_c |mean_i q_ic - class_marginal_c| over the valid rows, in [0, 2].
      iterations: int32 `[]`, Sinkhorn iterations run.
      converged: bool `[]`, whether the threshold was met.
    """

    labels: jax.Array
    marginal_error: jax.Array
    iterations: jax.Array
    converged: jax.Array


def surrogate_labels(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    class_marginal: jax.Array,
    *,
    where: jax.Array | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    epsilon: float = EPSILON,
    axis_name: str | None = None,
) -> Allocation:
    """Solves for the surrogate labels Q of a batch.

    Q minimises sum_i KL(q_i || softmax(noise_robust_logits_i)) + KL(q_i || softmax(logits_i)) over
    labels whose mean is `class_marginal`. Solved in the log domain in float32, whatever comes in. The
    last half-step fits the samples, so rows sum to 1 at any stop and what is left of the error is in
    the class marginal. No gradient flows through the result. The rows depend on each other, so NaN in
    a valid row, or a `class_marginal` with NaN, a negative entry or sum 0, makes every label NaN.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      class_marginal: floating `[C]`, non-negative, normalised inside; see `class_marginal`. A class with
        marginal 0 gets no mass.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      threshold: L1 error of the class marginal at which OTT stops. Below about 2e-7 float32 cannot
        follow.
      max_iterations: limit of Sinkhorn iterations, rounded up to tens: OTT looks at the error every 10, and
        stops nowhere else.
      epsilon: weight of the entropy of Q, positive. 2 is what the two divergences come to; more makes the
        labels softer, less makes them harder.
      axis_name: name of a mapped axis (`pmap`, `shard_map`, `vmap`) over which the batch is split. The
        batches are solved as one problem; each device gets the labels of its own rows. A whole of fewer than
        `DISTRIBUTE_FROM` numbers N C is gathered on every device. A larger one stays where it is, and `[C]`
        is exchanged twice an iteration, so that no device holds `[N, C]` of the whole. Under `shard_map`
        pass `check_vma=False`, which OTT's loops need. Under `jit` over arrays that are sharded by rows
        there is no name to give: the compiler splits the solve in the same way.

    Returns:
      The `Allocation`.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, a threshold or epsilon that is not positive, or a limit
        below 1.

    Source: D-SINK, arXiv 2510.08179, the optimal-transport form of its bi-level objective. Over-relaxed from
    the 30th iteration on: Lehmann et al., arXiv 2012.12562.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))
    >>> noise_robust = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> marginal = jnp.array([0.5, 0.5])
    >>> allocation = surrogate_labels(target, noise_robust_logits=noise_robust, class_marginal=marginal)
    >>> print(np.asarray(allocation.labels).round(3))
    [[0.634 0.366]
     [0.366 0.634]]
    """
    check_batch(logits, where, noise_robust_logits=noise_robust_logits)
    check_class_marginal(class_marginal, logits)
    check_positive(threshold=threshold, epsilon=epsilon)
    check_max_iterations(max_iterations)

    logits, noise_robust_logits, class_marginal = jax.lax.stop_gradient(
        (logits, noise_robust_logits, class_marginal)
    )
    solved = solve_batch(
        _cost(logits, noise_robust_logits),
        class_marginal,
        where=where,
        threshold=threshold,
        max_iterations=max_iterations,
        epsilon=epsilon,
        axis_name=axis_name,
    )
    labels = jax.nn.softmax(solved.scores, axis=-1)
    if where is not None:
        labels = jnp.where(solved.sound & ~where[:, None], 0.0, labels)
    return jax.lax.stop_gradient(Allocation(labels, *solved[2:]))


class Solved(NamedTuple):
    """A batch's problem solved in closed form for its rows: Q is the softmax of `scores`.

    Attributes:
      scores: float32 `[N, C]`, all NaN where the problem is not sound; of any value in padding.
      sound: bool `[]`, whether rows and marginal are numbers that make a problem.
      marginal_error: float32 `[]`, see `Allocation`.
      iterations: int32 `[]`.
      converged: bool `[]`.
    """

    scores: jax.Array
    sound: jax.Array
    marginal_error: jax.Array
    iterations: jax.Array
    converged: jax.Array


def solve_batch(
    cost: jax.Array,
    column_marginal: jax.Array,
    *,
    where: jax.Array | None,
    threshold: float,
    max_iterations: int,
    epsilon: float,
    axis_name: str | None,
) -> Solved:
    """Solves the transport of a batch's rows to column masses, over several devices if there is an axis.

    Args:
      cost: float32 `[N, C]`, a row with NaN being NaN as a whole.
      column_marginal: floating `[C]`, normalised here; a column of 0 gets no mass.
      where: bool `[N]`, False for padding, or None.
      threshold: L1 error of the marginal at which OTT stops.
      max_iterations: limit of iterations.
      epsilon: weight of the entropy.
      axis_name: mapped axis over which the batch is split; see `surrogate_labels`.
    """
    num_examples, num_classes = cost.shape
    valid = jnp.ones(num_examples, bool) if where is None else where
    cost = jnp.where(valid[:, None], cost, 0.0)  # padding may hold anything, NaN included
    marginal = column_marginal.astype(jnp.float32)
    # One bad row makes the whole coupled problem meaningless, but OTT passes over NaN: say so.
    mass = marginal.sum()
    sound = (marginal >= 0).all() & (mass > 0) & jnp.isfinite(mass)
    marginal = marginal / mass

    num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    is_large = num_devices * num_examples * num_classes >= DISTRIBUTE_FROM
    # The axis whose rows all come here, and the one over which the rows of the problem stay split.
    gathered_axis, split_axis = (None, axis_name) if is_large else (axis_name, None)
    cost, valid = all_gather((cost, valid), gathered_axis)
    bad_rows = jnp.isnan(cost[:, 0]).sum()  # such a row is NaN as a whole
    count, bad_rows = psum((valid.sum(), bad_rows), split_axis)
    count = jnp.maximum(count, 1).astype(jnp.float32)
    solution = solve_transport(
        cost,
        valid.astype(jnp.float32) / count,
        marginal,
        epsilon=epsilon,
        threshold=threshold,
        max_iterations=max_iterations,
        relaxed=True,
        axis_name=split_axis,
    )
    sound &= bad_rows == 0
    # The sample half-step in closed form: exact row sums, and finite for rows without mass.
    scores = jnp.where(sound, (solution.column_potential[None] - cost) / epsilon, jnp.nan)
    plan = jnp.where(valid[:, None], jax.nn.softmax(scores, axis=-1), 0.0)
    marginal_error = jnp.abs(psum(plan.sum(0), split_axis) / count - marginal).sum()
    scores = own_rows(scores, num_examples, gathered_axis)
    return Solved(scores, sound, marginal_error, solution.iterations, solution.converged & sound)


def class_marginal(
    imbalance_robust_logits: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean prediction of the imbalance-robust auxiliary model f_L over a batch.

    It is the mass that Q gives each class. Where f, f_N and f_L count all classes alike, as models do that
    were trained by logit adjustment, it must be the mean of such predictions, which gives rare classes more
    than they have; a target that is to predict for the shares of the training set needs estimates of those
    shares instead. Q follows it whatever f and f_N say of a class as a whole: a wrong vector makes wrong
    labels.

    Args:
      imbalance_robust_logits: floating `[N, C]`, logits whose softmax is f_L's prediction.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      axis_name: name of a mapped axis over which the batch is split; the mean is over the whole of it.

    Returns:
      float32 `[C]`, mean_i softmax(imbalance_robust_logits_i). Sums to 1. No gradient flows through it.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: the distribution-level condition of D-SINK, arXiv 2510.08179.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(class_marginal(jnp.log(jnp.array([[0.8, 0.2], [0.4, 0.6]])))).round(3))
    [0.6 0.4]
    """
    check_batch(imbalance_robust_logits, where, name="imbalance_robust_logits")
    logits = jax.lax.stop_gradient(imbalance_robust_logits).astype(jnp.float32)
    predictions = jax.nn.softmax(logits, axis=-1)
    if where is None:
        where = jnp.ones(predictions.shape[0], bool)
    predictions = jnp.where(where[:, None], predictions, 0.0)
    summed, count = psum((predictions.sum(0), where.sum()), axis_name)
    return summed / jnp.maximum(count, 1).astype(jnp.float32)


def _cost(logits, noise_robust_logits):
    """-log f_N - log f up to a constant of each row, which Q does not depend on: each row's least is 0.

    Without the constant, float32 keeps the differences exact where logits are large. A row is all
    NaN if it has no prediction: NaN or +inf in its logits, or no class that both models allow.
    """
    score = relative(noise_robust_logits) + relative(logits)
    return score.max(-1, keepdims=True) - score


def relative(logits):
    """float32 logits less the largest of each row."""
    logits = logits.astype(jnp.float32)
    return logits - logits.max(-1, keepdims=True)
