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
    solve_batch,
)
from dsink_jax.array_checks import (
    check_batch,
    check_class_marginal,
    check_max_iterations,
    check_positive,
)
from dsink_jax.errors import InputError


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
    added to all classes of an example is part of its energy. No gradient flows through the result. NaN in a
    valid row, or a marginal or share that is none, makes all NaN.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      class_marginal: floating `[C]`, non-negative, normalised inside; of the examples of a class.
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
    score = logits.astype(jnp.float32) + noise_robust_logits.astype(jnp.float32)
    none = jnp.where(jnp.isnan(score).any(-1, keepdims=True), jnp.nan, jnp.zeros_like(score[:, :1]))
    score = jnp.concatenate([score + none, none], axis=-1)
    marginal = class_marginal.astype(jnp.float32)
    marginal = jnp.append(share * marginal / marginal.sum(), 1.0 - share)
    solved = solve_batch(
        score.max(-1, keepdims=True) - score,
        jnp.where((share > 0) & (share <= 1), marginal, jnp.nan),
        where=where,
        threshold=threshold,
        max_iterations=max_iterations,
        epsilon=EPSILON,
        axis_name=axis_name,
    )
    labels = jax.nn.softmax(solved.scores[:, :-1], axis=-1)
    known = 1.0 - jax.nn.softmax(solved.scores, axis=-1)[:, -1]
    if where is not None:
        padding = solved.sound & ~where
        labels, known = jnp.where(padding[:, None], 0.0, labels), jnp.where(padding, 0.0, known)
    return jax.lax.stop_gradient(OpenSetAllocation(labels, known, *solved[2:]))


def estimate_known_share(logits: jax.Array, noise_robust_logits: jax.Array) -> float:
    """Estimates which share of the examples is of a class, from how their energies fall into two groups.

    Two Gaussian distributions are fitted to the energies; the share of the one with more energy is the
    answer, if by the Bayesian information criterion two describe them better than one. Else nothing is to be
    told apart, and the answer is 1. Energies need not be Gaussian: take it for a first guess. It runs on the
    host, not within `jit`.

    Args:
      logits: floating `[N, C]`, logits of the target model f, better of examples that it has not seen.
      noise_robust_logits: floating `[N, C]`, the same of f_N.

    Returns:
      The share, in (0, 1].

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.
      InputError: for logits with NaN.

    Source: energies of Liu et al., NeurIPS 2020, arXiv 2010.03759; Schwarz, Annals of Statistics 6, 1978.

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
