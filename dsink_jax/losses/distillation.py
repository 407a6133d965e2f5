"""Losses that distil auxiliary models into a target model."""

from typing import Any

import jax
import jax.numpy as jnp

from dsink_jax.allocation import DEFAULT_MAX_ITERATIONS, DEFAULT_THRESHOLD, surrogate_labels
from dsink_jax.allocation import class_marginal as mean_prediction
from dsink_jax.array_checks import check_where
from dsink_jax.losses._checks import check_logits, check_range, is_traced
from dsink_jax.losses._entropy import negative_p_log_p
from dsink_jax.open_set import open_set_class_marginal, open_set_surrogate_labels


def dsink_loss(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    imbalance_robust_logits: jax.Array | None = None,
    *,
    class_marginal: jax.Array | None = None,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    has_aux: bool = False,
) -> Any:
    """D-SINK loss of each example: KL(q_i || softmax(logits_i)) to the batch's surrogate labels Q.

    Q comes from `surrogate_labels` with the class marginal mean_i softmax(imbalance_robust_logits_i), and
    is a constant for the gradient: d loss_i / d logits_i = softmax(logits_i) - q_i. No gradient reaches
    the auxiliary models. The overall objective of the paper is `base + alpha * dsink_loss(...)`, averaged
    by the caller.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      imbalance_robust_logits: floating `[N, C]`, logits whose softmax is the prediction of the
        imbalance-robust auxiliary model f_L.
      class_marginal: floating `[C]`, non-negative, in the place of f_L's mean prediction for the batch: one
        that is known better. The same on all devices.
      where: bool `[N]`, False for padding. Such rows take no part and have loss 0.
      axis_name: name of a mapped axis over which the batch is split; see `surrogate_labels`.
      threshold: L1 error of the class marginal at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.
      has_aux: whether to give the `Allocation` too, Q and what the solver did, as `jax.grad(has_aux=True)`
        wants it.

    Returns:
      float32 `[N]`, non-negative up to rounding, in nats; with `has_aux` a pair of that and the `Allocation`.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or unless one of f_L's logits and a marginal is given.

    Source: D-SINK, Dual-Granularity Sinkhorn Distillation, arXiv 2510.08179.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))
    >>> noise_robust = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> imbalance_robust = jnp.zeros((2, 2))
    >>> auxiliaries = {"noise_robust_logits": noise_robust, "imbalance_robust_logits": imbalance_robust}
    >>> values = dsink_loss(target, **auxiliaries)
    >>> print(np.asarray(values).round(3))
    [0.002 0.111]
    """
    if imbalance_robust_logits is not None and class_marginal is None:
        check_logits(
            logits, noise_robust_logits=noise_robust_logits, imbalance_robust_logits=imbalance_robust_logits
        )
        class_marginal = mean_prediction(imbalance_robust_logits, where=where, axis_name=axis_name)
    elif imbalance_robust_logits is not None or class_marginal is None:
        raise ValueError("Give one of imbalance_robust_logits and class_marginal, which takes their place.")
    allocation = surrogate_labels(
        logits,
        noise_robust_logits,
        class_marginal,
        where=where,
        threshold=threshold,
        max_iterations=max_iterations,
        axis_name=axis_name,
    )
    values = divergence_from_labels(logits, allocation.labels, where=where)
    return (values, allocation) if has_aux else values


def open_set_dsink_loss(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    imbalance_robust_logits: jax.Array,
    known_share: float | jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
) -> jax.Array:
    """D-SINK loss where a share of the examples is of no class: known_i * KL(q_i || softmax(logits_i)).

    Q and `known` come from `open_set_surrogate_labels`, for the mean of f_L over the examples of a class
    (`open_set_class_marginal`), and are constants for the gradient, which is
    known_i * (softmax(logits_i) - q_i). No gradient reaches the auxiliary models.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of the noise-robust auxiliary model f_N.
      imbalance_robust_logits: floating `[N, C]`, logits whose softmax is the prediction of the
        imbalance-robust auxiliary model f_L.
      known_share: share of the examples that are of a class, in (0, 1].
      where: bool `[N]`, False for padding. Such rows take no part and have loss 0.
      axis_name: name of a mapped axis over which the batch is split; see `surrogate_labels`.
      threshold: L1 error of the masses at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.

    Returns:
      float32 `[N]`, non-negative up to rounding, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a share out of range.

    Source: D-SINK, arXiv 2510.08179, with a column for examples of no class.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target, noise_robust = jnp.array([[4.0, 0.0], [0.0, 0.5]]), jnp.array([[2.0, 0.0], [0.5, 0.0]])
    >>> print(np.asarray(open_set_dsink_loss(target, noise_robust, target, known_share=0.5)).round(3))
    [0.016 0.006]
    """
    check_logits(
        logits, noise_robust_logits=noise_robust_logits, imbalance_robust_logits=imbalance_robust_logits
    )
    allocation = open_set_surrogate_labels(
        logits,
        noise_robust_logits,
        open_set_class_marginal(
            imbalance_robust_logits,
            logits,
            noise_robust_logits,
            known_share,
            where=where,
            axis_name=axis_name,
        ),
        known_share,
        where=where,
        axis_name=axis_name,
        threshold=threshold,
        max_iterations=max_iterations,
    )
    return allocation.known * divergence_from_labels(logits, allocation.labels, where=where)


def naive_distillation_loss(
    logits: jax.Array,
    noise_robust_logits: jax.Array,
    imbalance_robust_logits: jax.Array,
    noise_weight: float | jax.Array = 0.5,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Distillation from both auxiliary models sample by sample, the baseline that D-SINK is held against.

    noise_weight * KL(f_N(x_i) || f(x_i)) + (1 - noise_weight) * KL(f_L(x_i) || f(x_i)). No gradient
    reaches the auxiliary models.

    Args:
      logits: floating `[N, C]`, logits of the target model f.
      noise_robust_logits: floating `[N, C]`, logits of f_N.
      imbalance_robust_logits: floating `[N, C]`, logits of f_L.
      noise_weight: weight of f_N in [0, 1]; f_L has the rest.
      where: bool `[N]`, False for padding; such rows have loss 0.

    Returns:
      float32 `[N]`, non-negative up to rounding, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a weight outside [0, 1].

    Source: the "naive distillation" row of D-SINK's ablation (arXiv 2510.08179); its weights are not
    published, equal ones are our default.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> target = jnp.zeros((1, 2))
    >>> print(np.asarray(naive_distillation_loss(target, jnp.log(jnp.array([[0.9, 0.1]])), target)).round(3))
    [0.184]
    """
    check_logits(
        logits, noise_robust_logits=noise_robust_logits, imbalance_robust_logits=imbalance_robust_logits
    )
    noise_weight = check_range(noise_weight, "noise_weight", 0.0, 1.0)
    total = jnp.zeros(logits.shape[0], jnp.float32)
    for weight, teacher in (
        (noise_weight, noise_robust_logits),
        (1.0 - noise_weight, imbalance_robust_logits),
    ):
        # A teacher without weight has no part, even where it predicts NaN or its divergence is infinite.
        if not is_traced(weight) and weight == 0:
            continue
        predictions = jax.nn.softmax(teacher.astype(jnp.float32), axis=-1)
        if is_traced(weight):
            predictions = jnp.where((weight > 0) | jnp.isfinite(predictions), predictions, 0.0)
        divergence = divergence_from_labels(logits, predictions, where=where)
        if is_traced(weight):
            divergence = jnp.where((weight > 0) | jnp.isfinite(divergence), divergence, 0.0)
        total += weight * divergence
    return total


def divergence_from_labels(
    logits: jax.Array, labels: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """KL(labels_i || softmax(logits_i)) with constant soft labels; gradient softmax(logits_i) - labels_i.

    Args:
      logits: floating `[N, C]`.
      labels: floating `[N, C]`, rows summing to 1. No gradient flows to them. 0 log 0 is 0.
      where: bool `[N]`, False for padding; such rows have loss 0 and gradient 0, whatever they hold.

    Returns:
      float32 `[N]`, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: Kullback and Leibler; the distillation term of D-SINK (arXiv 2510.08179).

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(divergence_from_labels(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))).round(3))
    [0.693]
    """
    check_logits(logits, labels=labels)
    check_where(where, logits)
    logits = logits.astype(jnp.float32)
    labels = jax.lax.stop_gradient(labels.astype(jnp.float32))
    if where is not None:
        # Cleaned before the arithmetic, so that NaN in padding reaches neither value nor gradient.
        logits = jnp.where(where[:, None], logits, 0.0)
        labels = jnp.where(where[:, None], labels, 0.0)
    # Large logits keep their differences if the largest is taken away first.
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    # A class without mass contributes nothing even where its logit is -inf.
    score = jnp.where(labels == 0, 0.0, labels * jnp.where(labels == 0, 0.0, logits)).sum(-1)
    divergence = log_normaliser - score - negative_p_log_p(labels).sum(-1)
    return divergence if where is None else jnp.where(where, divergence, 0.0)
