"""Surrogate labels of a batch in which some examples are of no class.

D-SINK's transport (arXiv 2510.08179) with one more column, "none of these". A share of the batch, the known
share rho, is of one of the classes: their masses become rho m_c, and that of the further column 1 - rho. Both
models get a logit for "none", the same for all examples; its level does not matter: the transport finds it.
What is left is the energy of the example: log sum_c exp((z_ic + z_N,ic) / 2), the logits of both models as
they are. Examples with little of it are unfamiliar and go to "none" first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.allocation import (
    DEFAULT_MAX_ITERATIONS,
    DEFAULT_THRESHOLD,
    EPSILON,
    relative,
    solve_batch,
)
from dsink_jax.array_checks import (
    check_batch,
    check_class_marginal,
    check_max_iterations,
    check_positive,
)
from dsink_jax.collectives import all_gather, psum
from dsink_jax.errors import InputError

ESTIMATED = "estimated"  # a known share that is
# Halvings of the interval in which the level of "none of these" is sought: float32 has no finer one.
_HALVINGS = 40
# Two Gaussians count as two kinds of examples if their means are this many standard deviations apart. From 2
# on their sum has two peaks; the energies of examples that all are of a class were seen to come to 2.2.
_APART = 2.25
# A stop counts as one at the threshold up to this much of rounding in the sums over the batch.
_ROUNDING = 1e-5


class OpenSetAllocation(NamedTuple):
    """Surrogate labels of a batch with examples of no class.

    Attributes:
      labels: float32 `[N, C]`, Q: what the example is, should it be of a class. Rows sum to 1; rows masked
        out by `where` are 0.
      known: float32 `[N]` in [0, 1], how far the example is of a class at all; their mean is the known share.
        0 in rows that are masked out.
      marginal_error: float32 `[]`, sum of |mean mass - wanted mass| over the classes and "none", in [0, 2].
      iterations: int32 `[]`, Sinkhorn iterations run.
      converged: bool `[]`, whether the threshold was met.
    """

    labels: jax.Array
    known: jax.Array
    marginal_error: jax.Array
    iterations: jax.Array
    converged: jax.Array


def open_set_surrogate_labels(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    class_marginal: jax.Array,
    known_share: float | jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> OpenSetAllocation:
    """Solves for surrogate labels where a share of the examples is of no class.

    The masses of the classes are known_share * class_marginal, that of "none of these" is 1 - known_share.
    With a known share of 1 the labels are those of `surrogate_labels`, and all examples are known. The
    labels, weighted by `known`, have the class marginal as their mean. Logits count as they are: a constant
    added to all classes of an example is part of its energy. Rows of labels sum to 1 and the mean of `known`
    is the known share wherever the solver stops; what is left of the error is in the classes. No gradient
    flows through the result. NaN in a valid row, or a marginal or share that is none, makes all NaN.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      class_marginal: floating `[C]`, non-negative, normalised inside; of the examples of a class, see
        `open_set_class_marginal`.
      known_share: share of the examples that are of a class, in (0, 1]; a number, or a traced float `[]`.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      axis_name: name of a mapped axis over which the batch is split; see `surrogate_labels`.
      threshold: L1 error of the masses at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.

    Returns:
      The `OpenSetAllocation`.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a share, threshold or limit out of range.

    Source: D-SINK, arXiv 2510.08179, with a column for examples of no class; energies as a score of what is
    unfamiliar: Liu et al., NeurIPS 2020, arXiv 2010.03759.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> logits = jnp.array([[6.0, 0.0], [0.0, 6.0], [1.0, 0.0], [0.0, 0.5]])
    >>> found = open_set_surrogate_labels(logits, logits, jnp.array([0.5, 0.5]), known_share=0.5)
    >>> print(np.asarray(found.known).round(2))
    [0.91 0.92 0.09 0.07]
    """
    check_batch(logits, where, noise_robust_logits=noise_robust_logits)
    check_class_marginal(class_marginal, logits)
    check_positive(threshold=threshold)
    check_max_iterations(max_iterations)
    share = _checked_share(known_share)
    logits, noise_robust_logits, class_marginal, share = jax.lax.stop_gradient(
        (logits, noise_robust_logits, class_marginal, share)
    )
    marginal = class_marginal.astype(jnp.float32)
    marginal = marginal / marginal.sum()
    masses = jnp.append(share * marginal, 1.0 - share)
    valid = jnp.ones(logits.shape[0], bool) if where is None else where
    solved = solve_batch(
        _cost(logits, noise_robust_logits, marginal, share, valid, axis_name),
        jnp.where((share > 0) & (share <= 1), masses, jnp.nan),
        where=where,
        threshold=threshold,
        max_iterations=max_iterations,
        epsilon=EPSILON,
        axis_name=axis_name,
    )
    labels = jax.nn.softmax(solved.scores[:, :-1], axis=-1)
    # The half-step of "none" in closed form: its mass is right wherever the solver stopped.
    known = _known(_log_odds(solved.scores), valid, share, axis_name)
    labels, known = (jnp.where(solved.sound, each, jnp.nan) for each in (labels, known))
    padding = solved.sound & ~valid
    labels, known = jnp.where(padding[:, None], 0.0, labels), jnp.where(padding, 0.0, known)
    plan = jnp.append(labels * known[:, None], (valid.astype(jnp.float32) - known)[:, None], axis=1)
    summed, count = psum((plan.sum(0), valid.sum()), axis_name)
    error = jnp.abs(summed / jnp.maximum(count, 1).astype(jnp.float32) - masses).sum()
    # With costs in the thousands the solver's own error can be rounding.
    converged = solved.converged & (error <= 2 * threshold + _ROUNDING)
    return jax.lax.stop_gradient(OpenSetAllocation(labels, known, error, solved.iterations, converged))


def open_set_class_marginal(
    imbalance_robust_logits: jax.Array,
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    known_share: float | jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean prediction of the imbalance-robust auxiliary model f_L over the examples that are of a class.

    Examples of no class are not spread over the classes as the others are: a few classes attract them, and
    the mean over all examples gives these classes mass that is to be found among the familiar. So examples
    count by how much their energies alone say that they are known: sigmoid((logsumexp(logits_i) +
    logsumexp(noise_robust_logits_i)) / 2 - level), with the level that makes their mean the known share.

    Args:
      imbalance_robust_logits: floating `[N, C]`, logits whose softmax is f_L's prediction.
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      known_share: share of the examples that are of a class, in (0, 1]; a number, or a traced float `[]`.
      where: bool `[N]`, False for padding. Such rows take no part, whatever they hold.
      axis_name: name of a mapped axis over which the batch is split; the mean is over the whole of it.

    Returns:
      float32 `[C]`, summing to 1; NaN if a valid row has NaN or no finite energy, or the share is none. With
      a known share of 1 it is that of `class_marginal`. No gradient flows through it.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a share out of range.

    Source: the distribution-level condition of D-SINK, arXiv 2510.08179; the weights are ours.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> logits = jnp.array([[6.0, 0.0], [0.0, 6.0], [0.5, 0.0], [0.5, 0.0]])
    >>> print(np.asarray(open_set_class_marginal(logits, logits, logits, known_share=0.5)).round(2))
    [0.51 0.49]
    """
    check_batch(
        logits,
        where,
        noise_robust_logits=noise_robust_logits,
        imbalance_robust_logits=imbalance_robust_logits,
    )
    share = _checked_share(known_share)
    logits, noise_robust_logits, predictions, share = jax.lax.stop_gradient(
        (logits, noise_robust_logits, imbalance_robust_logits, share)
    )
    valid = jnp.ones(logits.shape[0], bool) if where is None else where
    odds = energies(logits, noise_robust_logits)
    known = _known(odds, valid, share, axis_name)
    # A share that is none, and an example without an energy, make the mean none.
    known = jnp.where((share > 0) & (share <= 1) & jnp.isfinite(odds), known, jnp.nan)
    predictions = jax.nn.softmax(predictions.astype(jnp.float32), axis=-1)
    weighted = jnp.where(valid[:, None], known[:, None] * predictions, 0.0)
    summed, count = psum((weighted.sum(0), jnp.where(valid, known, 0.0).sum()), axis_name)
    return summed / jnp.where(count == 0, 1.0, count)


def energies(logits: jax.Array, noise_robust_logits: jax.Array) -> jax.Array:
    """float32 `[N]`: what speaks for an example's being of a class, (logsumexp(z_i) + logsumexp(z_N,i)) / 2.

    Source: energies of Liu et al., NeurIPS 2020, arXiv 2010.03759, in the mean of two models.
    """
    own, other = (jax.nn.logsumexp(z.astype(jnp.float32), axis=-1) for z in (logits, noise_robust_logits))
    return (own + other) / EPSILON


def energy_level(energies: jax.Array, known_share: float | jax.Array) -> jax.Array:
    """The level `[]` at which the mean of sigmoid(energies - level) is the share; 0 for a share of 1."""
    share = jnp.asarray(known_share, jnp.float32)
    return _level(energies, jnp.ones(energies.shape, bool), share, None)


def _cost(logits, noise_robust_logits, marginal, share, valid, axis_name):
    """float32 `[n, C + 1]`: costs of the classes and of "none", from where the solver soon arrives.

    A constant of each row and one of the last column change no solution. Those of the column are chosen such
    that it has about its mass to begin with, and those of the rows such that each has about what "none"
    leaves it: else the solver goes from energy to energy, an iteration for each few nats.
    """
    score = relative(noise_robust_logits) + relative(logits)  # without the largest float32 keeps differences
    best = score.max(-1)
    cost = best[:, None] - score
    none = best + sum(each.astype(jnp.float32).max(-1) for each in (noise_robust_logits, logits))
    odds = _log_odds(jnp.c_[jnp.log(marginal)[None] - cost / EPSILON, -none / EPSILON])
    level = _level(odds, valid, share, axis_name)
    left = jnp.where(share < 1, EPSILON * jax.nn.softplus(level - odds), 0.0)
    none = jnp.where(share < 1, none - EPSILON * level, 0.0)
    return jnp.c_[cost, none] + left[:, None]


def _log_odds(scores):
    """float32 `[n]`: log odds of being of a class, by scores of the classes and of "none"."""
    return jax.nn.logsumexp(scores[:, :-1], axis=-1) - scores[:, -1]


def _known(odds, valid, share, axis_name):
    """float32 `[n]`: sigmoid(odds - level), with the level that makes their mean over the batch the share."""
    return jnp.where(share < 1, jax.nn.sigmoid(odds - _level(odds, valid, share, axis_name)), 1.0)


def _level(odds, valid, share, axis_name):
    """The level at which the mean of sigmoid(odds - level) over the batch is `share` < 1, by halving.

    The numbers `[n]` of all devices are brought to each: one exchange instead of one for each halving.
    """
    odds, valid = all_gather((odds, valid), axis_name)
    counted = valid & jnp.isfinite(odds)  # an example whose classes all have mass 0 is not known at all
    odds = jnp.where(counted, odds, -jnp.inf)
    count = jnp.maximum(valid.sum(dtype=jnp.float32), 1.0)
    wanted = jnp.where(share < 1, jnp.log(share) - jnp.log1p(-share), 0.0)

    def halve(_, interval):
        low, high = interval
        middle = low + (high - low) / 2
        is_low = jax.nn.sigmoid(odds - middle).sum() / count > share
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    interval = (jnp.where(counted, odds, jnp.inf).min() - wanted, odds.max() - wanted)
    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, interval)
    return jnp.where(counted.any() & (share < 1), (low + high) / 2, 0.0)


def estimate_known_share(logits: jax.Array, noise_robust_logits: jax.Array) -> float:
    """Estimates which share of the examples is of a class, from how their energies fall into two groups.

    Two Gaussian distributions are fitted to the energies; the share of the one with more energy is the
    answer, if by the Bayesian information criterion two describe them better than one, and their means are
    apart by 2.25 standard deviations (the root mean square of both). Else nothing is to be told apart, and
    the answer is 1: that need not mean that there is nothing. Energies need not be Gaussian: take it for a
    first guess. Where classes overlap it was seen to be too low by 0.1 to 0.3. It runs on the host, not
    within `jit`.

    Args:
      logits: floating `[N, C]`, logits of the target model f, better of examples that it has not seen.
      noise_robust_logits: floating `[N, C]`, the same of f_N.

    Returns:
      The share, in (0, 1].

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.
      InputError: for logits with NaN.

    Source: energies of Liu et al., NeurIPS 2020, arXiv 2010.03759; Schwarz, Annals of Statistics 6, 1978; how
    far apart: Ashman, Bird and Zepf, arXiv astro-ph/9408030.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(1000, 5)) + 8 * np.eye(5)[rng.integers(0, 5, 1000)]
    >>> logits[:300] = rng.normal(size=(300, 5))
    >>> round(estimate_known_share(logits, logits), 1)
    0.7
    """
    from scipy.special import logsumexp
    from sklearn.mixture import GaussianMixture

    check_batch(logits, None, noise_robust_logits=noise_robust_logits)
    score = (np.asarray(logits, np.float64) + np.asarray(noise_robust_logits, np.float64)) / 2
    energy = logsumexp(score, axis=-1)[:, None]
    if not np.isfinite(energy).all():
        bad = int(np.argmin(np.isfinite(energy)))
        raise InputError(f"The logits of example {bad} hold NaN or are no prediction.")
    if len(energy) < 10 or np.ptp(energy) == 0:
        return 1.0
    one, two = (GaussianMixture(number, random_state=0, n_init=3).fit(energy) for number in (1, 2))
    if two.bic(energy) >= one.bic(energy):
        return 1.0
    apart = abs(two.means_[1, 0] - two.means_[0, 0]) / np.sqrt(two.covariances_.mean())
    if apart < _APART:
        return 1.0
    return float(two.weights_[two.means_[:, 0].argmax()])


def _checked_share(known_share):
    """The share as float32 `[]`."""
    if isinstance(known_share, jax.core.Tracer):
        if known_share.ndim or not jnp.issubdtype(known_share.dtype, jnp.floating):
            shape = list(known_share.shape)
            raise ValueError(f"known_share must be one float, got {known_share.dtype} {shape}.")
        return known_share.astype(jnp.float32)
    try:
        share = float(known_share)
    except (TypeError, ValueError):
        share = float("nan")
    if not 0 < share <= 1:
        raise ValueError(f"known_share must be in (0, 1], got {known_share!r}.")
    return jnp.float32(share)
