"""Surrogate labels Q of examples that have several labels each, or none.

Without the condition that the labels of an example sum to one, D-SINK's problem (arXiv 2510.08179)

    minimise   sum_ic KL(q_ic || sigmoid(z_N,ic)) + KL(q_ic || sigmoid(z_ic))
    subject to mean_i q_ic = m_c,   m_c = mean_i sigmoid(z_L,ic)

(each KL that of two Bernoulli variables) falls apart into one problem for each label, entropic transport to
the two columns "has it" and "has it not". Where the derivative is 0, q_ic = sigmoid((z_N,ic + z_ic) / 2 +
b_c), and b_c is what makes the mean m_c. With the number of labels k_i of each example as a second condition,
q_ic = sigmoid((z_N,ic + z_ic) / 2 + a_i + b_c).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import (
    check_arrays,
    check_batch,
    check_class_marginal,
    check_max_iterations,
    check_positive,
)
from dsink_jax.collectives import psum
from dsink_jax.sigmoid_roots import Scores, first_guess, shifted_sigmoid, solve_roots

DEFAULT_THRESHOLD = 5e-6
DEFAULT_MAX_ITERATIONS = 100


class MultilabelAllocation(NamedTuple):
    """Surrogate labels of a batch with several labels an example, and how well they were solved for.

    Attributes:
      labels: float32 `[N, C]`, Q, in [0, 1]. Rows masked out by `where` are 0.
      marginal_error: float32 `[]`, max_c |mean_i q_ic - m_c| over the valid rows, in [0, 1]; m is
        `class_marginal`, with `label_counts` after its shift to their total.
      iterations: int32 `[]`, passes over the batch that looked for the b_c; with `label_counts` sweeps, each
        of which fits the labels and then the examples.
      converged: bool `[]`, whether all conditions are met to within the threshold or float32's rounding.
    """

    labels: jax.Array
    marginal_error: jax.Array
    iterations: jax.Array
    converged: jax.Array


def multilabel_surrogate_labels(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    class_marginal: jax.Array,
    *,
    label_counts: jax.Array | None = None,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> MultilabelAllocation:
    """Solves for the surrogate labels Q of a batch in which an example may have any number of labels.

    q_ic = sigmoid((noise_robust_logits_ic + logits_ic) / 2 + b_c) with mean_i q_ic = class_marginal_c: of all
    labels with these means those that are closest to both models. Solved in float32, whatever comes in. No
    gradient flows through the result. NaN in a valid row, or a `class_marginal` with NaN or an entry outside
    [0, 1], makes every label NaN. A logit of +inf (-inf) makes the label 1 (0); with the other infinity of
    the other model it is NaN. Labels are within 1e-5 of the solution for logits of up to about 50 in size.
    Beyond, a label is decided by fewer and fewer examples, and the rounding of a sum over N of them, N *
    1e-7, is in it.

    Args:
      logits: floating `[N, C]`, logits of the target model f, one sigmoid for each label.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      class_marginal: floating `[C]` in [0, 1], share of the examples that have the label; see
        `multilabel_class_marginal`. Where it is 0 (1), the label is 0 (1) in every example.
      label_counts: floating or integer `[N]` in [0, C], how many labels each example has, if that is known.
        Then q_ic = sigmoid((noise_robust_logits_ic + logits_ic) / 2 + a_i + b_c) with rows that sum to the
        counts. The counts are believed where the total of `class_marginal` is another one: all its log-odds
        are shifted by one number, to the total mean_i label_counts_i. Entries of 0 and 1 stay. A count
        outside [0, C] in a valid row makes every label NaN.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      axis_name: name of a mapped axis (`pmap`, `shard_map`, `vmap`) over which the batch is split. The
        batches are solved as one problem; each device gets the labels of its own rows, and only numbers of
        size `[C]` are exchanged. Under `shard_map` pass `check_vma=False`. Under `jit` over arrays that are
        sharded by rows there is no name to give; on CPUs with a mesh that is not explicit the rows are
        gathered there.
      threshold: how far labels may be from the solution, by an estimate, where the solver stops. Below about
        1e-6 float32 cannot follow.
      max_iterations: limit of passes over the batch; with `label_counts` of sweeps too.

    Returns:
      The `MultilabelAllocation`.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, a threshold that is not positive, or a limit below 1.

    Source: the multi-label form of D-SINK, arXiv 2510.08179, solved in closed form up to b.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target = jnp.array([[2.0, 0.0], [0.0, -2.0]])
    >>> noise_robust = jnp.array([[2.0, 0.0], [-2.0, 0.0]])
    >>> allocation = multilabel_surrogate_labels(target, noise_robust, jnp.array([0.5, 0.2]))
    >>> print(np.asarray(allocation.labels).round(3))
    [[0.818 0.277]
     [0.182 0.123]]
    >>> print(np.asarray(allocation.labels.mean(0)).round(3))
    [0.5 0.2]
    >>> allocation = multilabel_surrogate_labels(
    ...     target, noise_robust, jnp.array([0.5, 0.2]), label_counts=jnp.array([1, 0])
    ... )
    >>> print(np.asarray(allocation.labels).round(3))
    [[0.743 0.257]
     [0.    0.   ]]
    """
    check_batch(logits, where, noise_robust_logits=noise_robust_logits)
    check_class_marginal(class_marginal, logits)
    if label_counts is not None:
        _check_label_counts(label_counts, logits)
    check_positive(threshold=threshold)
    check_max_iterations(max_iterations)
    logits, noise_robust_logits, class_marginal, label_counts = jax.lax.stop_gradient(
        (logits, noise_robust_logits, class_marginal, label_counts)
    )
    marginal = class_marginal.astype(jnp.float32)
    scores = Scores(logits, noise_robust_logits, jnp.zeros_like(marginal), valid=where)
    count = psum(logits.shape[0] if where is None else where.sum(), axis_name)
    # A label changes by a quarter of the change of its b at most.
    tolerance = 4.0 * threshold
    sound = ((marginal >= 0) & (marginal <= 1)).all()
    if label_counts is None:
        origin, start = first_guess(scores, marginal, axis_name)
        scores = scores._replace(origin=origin)
        roots = solve_roots(
            scores,
            marginal,
            count,
            start,
            tolerance=tolerance,
            max_passes=max_iterations,
            axis_name=axis_name,
        )
        iterations, converged = roots.passes, roots.settled
        sound &= ~jnp.isnan(roots.mean).any()
    else:
        problem = _counted(scores, marginal, label_counts, count, axis_name)
        sound &= problem.sound
        marginal = problem.marginal
        fitted = _fit_both(problem, count, tolerance, max_iterations, axis_name)
        scores, roots, iterations, converged = fitted
        converged &= problem.feasible
    labels = shifted_sigmoid(scores, roots.shift)
    # All that may overrule the sigmoids of a label, in one number for it.
    certain = jnp.where(sound, jnp.where((marginal > 0) & (marginal < 1), -1.0, marginal), jnp.nan)
    labels = jnp.where(certain == -1.0, labels, certain)
    if where is not None:
        labels = jnp.where(sound & ~where[:, None], 0.0, labels)
    errors = jnp.abs(
        psum(labels.sum(0), axis_name) / jnp.maximum(jnp.asarray(count, jnp.float32), 1.0) - marginal
    )
    # The mean itself is rounded too, where it is near 1.
    converged &= sound & (errors <= roots.error_allowed + 1e-6 * marginal).all()
    allocation = MultilabelAllocation(labels, errors.max(), iterations, converged)
    return jax.lax.stop_gradient(allocation)


def multilabel_class_marginal(
    imbalance_robust_logits: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean prediction of each label by the imbalance-robust auxiliary model f_L over a batch.

    It is the share of the batch to which Q gives the label. As with one label an example, it has to be for
    the same shares as f and f_N are; see `class_marginal`.

    Args:
      imbalance_robust_logits: floating `[N, C]`, logits whose sigmoids are f_L's predictions.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      axis_name: name of a mapped axis over which the batch is split; the mean is over the whole of it.

    Returns:
      float32 `[C]` in [0, 1], mean_i sigmoid(imbalance_robust_logits_ic). No gradient flows through it.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: the distribution-level condition of D-SINK, arXiv 2510.08179, for labels that do not exclude each
    other.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> logits = jnp.array([[0.0, 2.0], [0.0, -2.0], [0.0, 0.0]])
    >>> print(np.asarray(multilabel_class_marginal(logits)).round(3))
    [0.5 0.5]
    """
    check_batch(imbalance_robust_logits, where, name="imbalance_robust_logits")
    predictions = jax.nn.sigmoid(jax.lax.stop_gradient(imbalance_robust_logits).astype(jnp.float32))
    if where is not None:
        predictions = jnp.where(where[:, None], predictions, 0.0)
    count = predictions.shape[0] if where is None else where.sum()
    summed, count = psum((predictions.sum(0), count), axis_name)
    return summed / jnp.maximum(jnp.asarray(count, jnp.float32), 1.0)


class _Counted(NamedTuple):
    """A problem with label counts, in which certain labels are infinite scores."""

    scores: Scores
    marginal: jax.Array  # [C], with the total of the counts
    row_means: jax.Array  # [N], share of the labels that an example has, 0 for padding
    sound: jax.Array
    feasible: jax.Array


def _counted(scores, marginal, label_counts, count, axis_name):
    valid = jnp.ones(len(label_counts), bool) if scores.valid is None else scores.valid
    num_classes = len(marginal)
    counts = label_counts.astype(jnp.float32)
    first, second = scores.first.astype(jnp.float32), scores.second.astype(jnp.float32)
    unsound = (~((counts >= 0) & (counts <= num_classes))) | jnp.isnan(first + second).any(1)
    counts = jnp.where(valid, counts, 0.0)
    unsound, total = psum(((unsound & valid).sum(), counts.sum()), axis_name)

    # The marginal with the total of the counts: one shift of the log-odds of all that is not certain.
    free = (marginal > 0) & (marginal < 1)
    odds = jnp.where(free, jnp.log(marginal) - jnp.log1p(-marginal), 0.0)[:, None]
    num_free = free.sum(dtype=jnp.float32)
    present = (marginal == 1).sum(dtype=jnp.float32)
    mean = (total / jnp.maximum(jnp.asarray(count, jnp.float32), 1.0) - present) / jnp.maximum(num_free, 1.0)
    feasible = (mean >= -1e-6) & (mean <= 1 + 1e-6) & ((num_free > 0) | (jnp.abs(mean) < 1e-6))
    mean = jnp.clip(mean, 0.0, 1.0)[None]
    by_class = Scores(odds, odds, jnp.zeros(1, jnp.float32), valid=free)
    shift = solve_roots(
        by_class, mean, num_free, jnp.zeros(1, jnp.float32), tolerance=1e-7, max_passes=50
    ).shift
    shifted = jnp.where((mean > 0) & (mean < 1), shifted_sigmoid(by_class, shift)[:, 0], mean)
    marginal = jnp.where(free, shifted, marginal)

    def certain(rows):
        rows = jnp.where(valid[:, None] & (unsound == 0), rows, 0.0)
        rows = jnp.where(counts[:, None] == 0, -jnp.inf, rows)
        rows = jnp.where(counts[:, None] == num_classes, jnp.inf, rows)
        return jnp.where(marginal == 0, -jnp.inf, jnp.where(marginal == 1, jnp.inf, rows))

    scores = scores._replace(first=certain(first), second=certain(second))
    return _Counted(scores, marginal, counts / num_classes, unsound == 0, feasible)


def _fit_both(problem, count, tolerance, max_iterations, axis_name):
    """Fits the labels' means and the examples' counts by turns, the examples' last.

    Returns:
      The scores with the examples' shifts, the labels' roots, the sweeps, and whether both are met.
    """
    scores, marginal, row_means = problem[:3]
    num_classes = len(marginal)
    free = (marginal > 0) & (marginal < 1)
    origin, start = first_guess(scores, marginal, axis_name)
    # Rows that sum to their counts are what is promised; they cost no exchange.
    row_tolerance = jnp.minimum(tolerance, 1e-6)

    def fit_classes(rows, start):
        return solve_roots(
            scores._replace(origin=origin, row_shift=rows),
            marginal,
            count,
            start,
            tolerance=tolerance,
            max_passes=max_iterations,
            axis_name=axis_name,
        )

    def fit_examples(classes, start):
        turned = Scores(
            scores.first.T, scores.second.T, jnp.zeros_like(row_means), row_shift=origin + classes
        )
        return solve_roots(
            turned, row_means, num_classes, start, tolerance=row_tolerance, max_passes=max_iterations
        )

    def sweep(state):
        rows, classes, sweeps, _ = state
        rows = fit_examples(classes.shift, rows).shift
        fitted = fit_classes(rows, classes.shift)
        moved = jnp.where(free, jnp.abs(fitted.shift - classes.shift), 0.0).max()
        return rows, fitted, sweeps + 1, moved <= tolerance

    rows = jnp.zeros_like(row_means)
    state = (rows, fit_classes(rows, start), jnp.int32(0), jnp.array(False))
    rows, classes, sweeps, settled = jax.lax.while_loop(
        lambda state: ~state[3] & (state[2] < max_iterations), sweep, state
    )
    last = fit_examples(classes.shift, rows)
    unmet = psum((~last.settled).astype(jnp.int32), axis_name)
    scores = scores._replace(origin=origin, row_shift=last.shift)
    return scores, classes, sweeps, settled & classes.settled & (unmet == 0)


def _check_label_counts(label_counts: Any, logits: Any) -> None:
    check_arrays(label_counts=label_counts)
    if label_counts.shape != logits.shape[:1]:
        raise ValueError(
            f"label_counts must have shape [N] = [{logits.shape[0]}], got {list(label_counts.shape)}."
        )
    if not any(jnp.issubdtype(label_counts.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise ValueError(f"label_counts must be integers or floating point, got {label_counts.dtype}.")
