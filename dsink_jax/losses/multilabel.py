"""Losses of examples with several labels each, or none: one sigmoid for each label."""

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_where
from dsink_jax.losses._checks import (
    check_at_least,
    check_logits,
    check_per_class,
    check_range,
    check_several_labels,
    for_each_class,
)
from dsink_jax.losses._cross_entropy import prior_shift
from dsink_jax.losses._entropy import negative_p_log_p
from dsink_jax.losses._padding import without_padding, zero_padding
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
    label_counts: jax.Array | None = None,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> jax.Array:
    """D-SINK loss of each example for several labels an example.

    sum_c KL(q_ic || sigmoid(logits_ic)), each the divergence of two Bernoulli variables. Q comes from
    `multilabel_surrogate_labels` with the marginal mean_i sigmoid(imbalance_robust_logits_ic), and is a
    constant for the gradient: d loss_i / d logits_ic = sigmoid(logits_ic) - q_ic. No gradient reaches the
    auxiliary models.

    Args:
      logits: floating `[N, C]`, logits of the target model f, one sigmoid for each label.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      imbalance_robust_logits: floating `[N, C]`, logits of the imbalance-robust auxiliary model f_L.
      label_counts: floating or integer `[N]` in [0, C], how many labels each example has, if that is known.
      where: bool `[N]`, False for padding. Such rows take no part and have loss 0.
      axis_name: name of a mapped axis over which the batch is split; see `multilabel_surrogate_labels`.
      threshold: how far labels may be from the solution, by an estimate, where the solver stops.
      max_iterations: limit of passes over the batch.

    Returns:
      float32 `[N]`, non-negative up to rounding, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, a threshold that is not positive, or a limit below 1.

    Source: D-SINK, arXiv 2510.08179, without the condition that the labels of an example sum to one.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target = jnp.zeros((2, 2))
    >>> noise_robust = jnp.array([[4.0, 0.0], [-4.0, 0.0]])
    >>> values = multilabel_dsink_loss(target, noise_robust, imbalance_robust_logits=target)
    >>> print(np.asarray(values).round(3))
    [0.328 0.328]
    """
    check_logits(
        logits, noise_robust_logits=noise_robust_logits, imbalance_robust_logits=imbalance_robust_logits
    )
    allocation = multilabel_surrogate_labels(
        logits,
        noise_robust_logits,
        multilabel_class_marginal(imbalance_robust_logits, where=where, axis_name=axis_name),
        label_counts=label_counts,
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
    entropy = negative_p_log_p(labels) + negative_p_log_p(1.0 - labels)
    divergence = (_binary_cross_entropy(logits, labels) - entropy).sum(-1)
    return divergence if where is None else jnp.where(where, divergence, 0.0)


def logit_adjusted_binary_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    class_prior: jax.Array,
    tau: float | jax.Array = 1.0,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy on logits shifted by the prior log-odds; predict with the unshifted logits.

    The logits are z_ic + tau * log(class_prior_c / (1 - class_prior_c)). A label of prior 0 (1) is predicted
    as absent (present), whatever its logit; an example that says otherwise has infinite loss.

    Args:
      logits: floating `[..., C]`, one sigmoid for each label.
      labels: floating, integer or bool `[..., C]` in [0, 1]; others make the loss NaN. No gradient flows to
        them.
      class_prior: `[C]` in [0, 1], share of the examples that have the label.
      tau: strength of the adjustment, at least 0; 0 is plain binary cross-entropy.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, sum over the labels, in nats, non-negative.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative tau.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv 2007.07314, for each label
    as a problem of two classes with priors class_prior and 1 - class_prior.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> prior, labels = jnp.array([0.5, 0.1]), jnp.array([[1, 0], [0, 1]])
    >>> print(np.asarray(logit_adjusted_binary_cross_entropy(jnp.zeros((2, 2)), labels, prior)).round(3))
    [0.799 2.996]
    """
    check_several_labels(labels, logits, where)
    check_per_class(class_prior, logits, "class_prior")
    tau = check_at_least(tau, "tau", 0)
    prior = class_prior.astype(jnp.float32)
    shift = prior_shift(tau, jnp.log(prior) - jnp.log1p(-prior))
    logits, labels = without_padding(where, logits, labels)
    shifted = logits.astype(jnp.float32) + for_each_class(shift, logits)
    return zero_padding(_binary_cross_entropy(shifted, _known(labels)).sum(-1), where)


def generalized_binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, q: float | jax.Array = 0.7, *, where: jax.Array | None = None
) -> jax.Array:
    """Generalised cross-entropy of each label: y (1 - p^q) / q + (1 - y) (1 - (1 - p)^q) / q, p = sigmoid(z).

    Binary cross-entropy for q -> 0, absolute error at q = 1.

    Args:
      logits: floating `[..., C]`, one sigmoid for each label.
      labels: floating, integer or bool `[..., C]` in [0, 1]; others make the loss NaN. No gradient flows to
        them.
      q: robustness in (0, 1].
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]` in [0, C/q], sum over the labels.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or q outside (0, 1].

    Source: Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836, for each label as a problem of two classes.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> labels = jnp.array([[1, 0]])
    >>> print(np.asarray(generalized_binary_cross_entropy(jnp.array([[0.0, 2.0]]), labels)).round(3))
    [1.655]
    """
    check_several_labels(labels, logits, where)
    q = check_range(q, "q", 0.0, 1.0, low_open=True)
    logits, labels = without_padding(where, logits, labels)
    logits, labels = logits.astype(jnp.float32), _known(labels)
    # p^q as exp(q log p): exact and differentiable where p underflows.
    present, absent = (-jnp.expm1(q * jax.nn.log_sigmoid(sided)) / q for sided in (logits, -logits))
    return zero_padding((labels * present + (1.0 - labels) * absent).sum(-1), where)


def _known(labels):
    """The labels as constants, float32; NaN where they are outside [0, 1]."""
    labels = jax.lax.stop_gradient(labels.astype(jnp.float32))
    return jnp.where((labels >= 0) & (labels <= 1), labels, jnp.nan)


def _binary_cross_entropy(logits, labels):
    """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)), `[N, C]`; 0 without mass, at infinite z too."""
    present = jax.nn.softplus(jnp.where(labels == 0, 0.0, -logits))
    absent = jax.nn.softplus(jnp.where(labels == 1, 0.0, logits))
    return labels * present + (1.0 - labels) * absent
