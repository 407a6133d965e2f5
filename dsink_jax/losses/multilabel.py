"""Losses where an example may have several labels, or none: a sigmoid for each label."""

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays, check_where
from dsink_jax.losses._checks import check_at_least, check_logits, check_per_class, check_range, is_traced
from dsink_jax.multilabel import (
    DEFAULT_MAX_ITERATIONS,
    DEFAULT_THRESHOLD,
    multilabel_class_marginal,
    multilabel_surrogate_labels,
)


def multilabel_dsink_loss(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    imbalance_robust_logits: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> jax.Array:
    """D-SINK loss of each example with several labels: sum_c KL(q_ic || sigmoid(logits_ic)).

    Q comes from `multilabel_surrogate_labels` with the marginal of `multilabel_class_marginal`, and is a
    constant for the gradient: d loss_i / d logits_ic = sigmoid(logits_ic) - q_ic. No gradient reaches the
    auxiliary models. As with one label an example, the overall objective is
    `base + alpha * multilabel_dsink_loss(...)`, averaged by the caller.

    Args:
      logits: floating `[N, C]`, logits of the target model f, a sigmoid for each label.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      imbalance_robust_logits: floating `[N, C]`, logits whose sigmoids are the predictions of the
        imbalance-robust auxiliary model f_L.
      where: bool `[N]`, False for padding. Such rows take no part and have loss 0.
      axis_name: name of a mapped axis over which the batch is split; see `multilabel_surrogate_labels`.
      threshold: how far labels may be from the solution.
      max_iterations: limit of passes over the batch.

    Returns:
      float32 `[N]`, non-negative up to rounding, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: D-SINK, arXiv 2510.08179, without the condition that the labels of an example sum to one.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target, noise_robust = jnp.array([[0.0, 1.0], [0.0, -1.0]]), jnp.array([[2.0, 1.0], [-2.0, -1.0]])
    >>> print(np.asarray(multilabel_dsink_loss(target, noise_robust, jnp.zeros((2, 2)))).round(3))
    [0.111 0.111]
    """
    check_logits(
        logits, noise_robust_logits=noise_robust_logits, imbalance_robust_logits=imbalance_robust_logits
    )
    marginal = multilabel_class_marginal(imbalance_robust_logits, where=where, axis_name=axis_name)
    allocation = multilabel_surrogate_labels(
        logits,
        noise_robust_logits,
        marginal,
        where=where,
        axis_name=axis_name,
        threshold=threshold,
        max_iterations=max_iterations,
    )
    return binary_divergence_from_labels(logits, allocation.labels, where=where)


def binary_divergence_from_labels(
    logits: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """sum_c KL(labels_ic || sigmoid(logits_ic)) of Bernoulli variables; gradient sigmoid(logits) - labels.

    Args:
      logits: floating `[N, C]`.
      labels: floating `[N, C]` in [0, 1]. No gradient flows to them. 0 log 0 is 0.
      where: bool `[N]`, False for padding; such rows have loss 0 and gradient 0, whatever they hold.

    Returns:
      float32 `[N]`, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: Kullback and Leibler.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(binary_divergence_from_labels(jnp.zeros((1, 2)), jnp.array([[1.0, 0.5]]))).round(3))
    [0.693]
    """
    check_logits(logits, labels=labels)
    check_where(where, logits)
    logits, labels = logits.astype(jnp.float32), jax.lax.stop_gradient(labels.astype(jnp.float32))
    if where is not None:
        # Cleaned before the arithmetic, so that NaN in padding reaches neither value nor gradient.
        logits, labels = (jnp.where(where[:, None], rows, 0.0) for rows in (logits, labels))
    entropy = jax.scipy.special.entr(labels) + jax.scipy.special.entr(1.0 - labels)
    divergence = (_binary_cross_entropy(logits, labels) - entropy).sum(-1)
    return divergence if where is None else jnp.where(where, divergence, 0.0)


def logit_adjusted_binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_prior: jax.Array, tau: float | jax.Array = 1.0
) -> jax.Array:
    """Binary cross-entropy on logits shifted by the log-odds of the labels' priors, summed over the labels.

    An f_L for several labels: predict with the unshifted logits, which count "has it" and "has it not" alike.

    Args:
      logits: floating `[N, C]`.
      labels: `[N, C]` of any numeric type or bool, in [0, 1].
      label_prior: floating `[C]` in (0, 1), share of the examples that have each label.
      tau: strength of the adjustment, at least 0; 0 is plain binary cross-entropy.

    Returns:
      float32 `[N]`, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative tau.

    Source: Menon et al., ICLR 2021, arXiv 2007.07314, for each label as a problem of two classes.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> prior = jnp.array([0.9, 0.1])
    >>> losses = logit_adjusted_binary_cross_entropy(jnp.zeros((2, 2)), jnp.eye(2), prior)
    >>> print(np.asarray(losses).round(3))
    [0.211 4.605]
    """
    _check_indicators(labels, logits)
    check_per_class(label_prior, logits, "label_prior")
    tau = check_at_least(tau, "tau", 0)
    adjusted = logits.astype(jnp.float32)
    if is_traced(tau) or tau > 0:
        prior = label_prior.astype(jnp.float32)
        adjusted = adjusted + tau * (jnp.log(prior) - jnp.log1p(-prior))
    return _binary_cross_entropy(adjusted, labels.astype(jnp.float32)).sum(-1)


def generalized_binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, q: float | jax.Array = 0.7
) -> jax.Array:
    """Generalised cross-entropy of each label as a problem of two classes, summed over the labels.

    (1 - p^q) / q, p the probability of what is given: sigmoid(logit) where the label is there, 1 less that
    where it is not. An f_N for several labels, little moved by labels that are missing or spurious.

    Args:
      logits: floating `[N, C]`.
      labels: `[N, C]` of any numeric type or bool, in [0, 1]; between 0 and 1 both sides count in their
        shares.
      q: robustness in (0, 1].

    Returns:
      float32 `[N]`, at most C / q.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a q out of range.

    Source: Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836, equation 6.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> losses = generalized_binary_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1, 0]]), q=1.0)
    >>> print(np.asarray(losses))
    [1.]
    """
    _check_indicators(labels, logits)
    q = check_range(q, "q", 0.0, 1.0, low_open=True)
    logits, labels = logits.astype(jnp.float32), labels.astype(jnp.float32)

    def loss(signed):
        # -expm1(q log p) / q: exact where p is near 1, and with a finite gradient where p is 0.
        return -jnp.expm1(q * jax.nn.log_sigmoid(signed)) / q

    return (labels * loss(logits) + (1.0 - labels) * loss(-logits)).sum(-1)


def _binary_cross_entropy(logits, labels):
    """-q log sigmoid(z) - (1 - q) log sigmoid(-z); gradient sigmoid(z) - q."""
    return jax.nn.softplus(logits) - jnp.where(labels == 0, 0.0, labels * jnp.where(labels == 0, 0.0, logits))


def _check_indicators(labels, logits):
    check_logits(logits)
    check_arrays(labels=labels)
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels must have the shape of logits, {list(logits.shape)}, got {list(labels.shape)}."
        )
    if not (jnp.issubdtype(labels.dtype, jnp.number) or labels.dtype == bool):
        raise ValueError(f"labels must be numbers or bool, got {labels.dtype}.")
