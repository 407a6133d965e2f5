"""Losses for mislabelled examples: what a noise-robust auxiliary model f_N optimises."""

import math

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays
from dsink_jax.losses._checks import (
    check_at_least,
    check_labels,
    check_pointwise_logits,
    check_range,
)
from dsink_jax.losses._cross_entropy import integer_cross_entropy, share_of
from dsink_jax.losses._padding import without_padding, zero_padding

# Symmetric cross-entropy's published code takes log 0 as log 1e-4.
_SCE_LOG_ZERO = math.log(1e-4)

# ELR's published code keeps probabilities in [1e-4, 1 - 1e-4]; the same bound keeps log(1 - <t, p>) finite.
_ELR_CLIP = 1e-4


def generalized_cross_entropy(
    logits: jax.Array, labels: jax.Array, q: float | jax.Array = 0.7, *, where: jax.Array | None = None
) -> jax.Array:
    """Generalised cross-entropy (1 - p_y^q) / q: cross-entropy for q -> 0, mean absolute error at q = 1.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      q: robustness in (0, 1].
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]` in [0, 1/q].

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or q outside (0, 1].

    Source: Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))).round(3))
    [0.549]
    """
    check_labels(labels, logits, where)
    q = check_range(q, "q", 0.0, 1.0, low_open=True)
    logits, labels = without_padding(where, logits, labels)
    # p_y^q as exp(q log p_y): exact and differentiable where p_y underflows.
    log_likelihood = -integer_cross_entropy(logits, labels)
    return zero_padding(-jnp.expm1(q * log_likelihood) / q, where)


def early_learning_regularized(
    logits: jax.Array,
    labels: jax.Array,
    targets: jax.Array,
    weight: float | jax.Array = 3.0,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy plus early-learning regularisation: CE + weight * log(1 - <targets_i, p_i>).

    The regulariser pulls predictions towards what the model itself predicted earlier, before it memorised
    wrong labels. It is unbounded below in theory; probabilities are kept in [1e-4, 1 - 1e-4].

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      targets: floating `[..., C]`, running means of earlier predictions (see
        `early_learning_targets`). No gradient flows to them.
      weight: strength, at least 0.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats; negative values are normal.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative weight.

    Source: Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, NeurIPS 2020,
    arXiv 2007.00151.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> targets = jnp.array([[1.0, 0.0]])
    >>> print(np.asarray(early_learning_regularized(jnp.zeros((1, 2)), jnp.array([0]), targets)).round(3))
    [-1.386]
    """
    check_labels(labels, logits, where)
    check_pointwise_logits(logits, targets=targets)
    weight = check_at_least(weight, "weight", 0)
    logits, labels, targets = without_padding(where, logits, labels, targets)
    logits = logits.astype(jnp.float32)
    cross_entropy = integer_cross_entropy(logits, labels)
    agreement = (jax.lax.stop_gradient(targets.astype(jnp.float32)) * _clipped_softmax(logits)).sum(-1)
    return zero_padding(cross_entropy + weight * jnp.log(1.0 - agreement), where)


def early_learning_targets(
    logits: jax.Array, targets: jax.Array, momentum: float | jax.Array = 0.7
) -> jax.Array:
    """The next targets of `early_learning_regularized`: momentum * targets + (1 - momentum) * p.

    Args:
      logits: floating `[..., C]`, the model's current logits; no gradient flows to them.
      targets: floating `[..., C]`, the present targets, 0 before the first epoch.
      momentum: share of the present targets that is kept, in [0, 1].

    Returns:
      float32 `[..., C]`, rows summing to at most 1.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a momentum outside [0, 1].

    Source: Liu et al., NeurIPS 2020, arXiv 2007.00151.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(early_learning_targets(jnp.zeros((1, 2)), jnp.zeros((1, 2)))).round(3))
    [[0.15 0.15]]
    """
    check_pointwise_logits(logits, targets=targets)
    momentum = check_range(momentum, "momentum", 0.0, 1.0)
    predictions = _clipped_softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))
    predictions = predictions / predictions.sum(-1, keepdims=True)
    return momentum * targets.astype(jnp.float32) + (1.0 - momentum) * predictions


def symmetric_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    alpha: float | jax.Array = 0.1,
    beta: float | jax.Array = 1.0,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Symmetric cross-entropy: alpha * CE + beta * reverse CE, the latter -sum_c p_c log(onehot_c).

    With log 0 taken as log 1e-4 the reverse term is 9.21 * (1 - p_y), a multiple of the mean absolute error.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      alpha: weight of cross-entropy, at least 0.
      beta: weight of reverse cross-entropy, at least 0.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats, non-negative.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative weight.

    Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019,
    arXiv 1908.06112, equation 7.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(symmetric_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))).round(3))
    [4.674]
    """
    check_labels(labels, logits, where)
    alpha = check_at_least(alpha, "alpha", 0)
    beta = check_at_least(beta, "beta", 0)
    cross_entropy = integer_cross_entropy(*without_padding(where, logits, labels))
    reverse = _SCE_LOG_ZERO * jnp.expm1(-cross_entropy)
    return zero_padding(share_of(alpha, cross_entropy) + beta * reverse, where)


def soft_bootstrapping(
    logits: jax.Array, labels: jax.Array, beta: float | jax.Array = 0.95, *, where: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy to a mixture of the label and the prediction: -sum_c (beta y_c + (1 - beta) p_c) log p_c.

    The gradient flows through both p: it is cross-entropy with a share of entropy minimisation.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      beta: share of the label, in [0, 1].
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats, non-negative.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or beta outside [0, 1].

    Source: Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015 workshop,
    arXiv 1412.6596, equation 6; beta as published with it.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> logits = jnp.log(jnp.array([[0.8, 0.2]]))
    >>> print(np.asarray(soft_bootstrapping(logits, jnp.array([1]), beta=0.5)).round(3))
    [1.055]
    """
    check_labels(labels, logits, where)
    beta = check_range(beta, "beta", 0.0, 1.0)
    logits, labels = without_padding(where, logits, labels)
    log_predictions = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    entropy = -(jnp.exp(log_predictions) * _finite_log(log_predictions)).sum(-1)
    to_label = integer_cross_entropy(logits, labels)
    return zero_padding(share_of(beta, to_label) + (1.0 - beta) * entropy, where)


def hard_bootstrapping(
    logits: jax.Array, labels: jax.Array, beta: float | jax.Array = 0.8, *, where: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy to a mixture of the label and the predicted class, which is a constant for the gradient.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      beta: share of the label, in [0, 1].
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats, non-negative.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or beta outside [0, 1].

    Source: Reed et al., arXiv 1412.6596, equation 7. The default of beta is ours.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> logits = jnp.log(jnp.array([[0.8, 0.2]]))
    >>> print(np.asarray(hard_bootstrapping(logits, jnp.array([1]), beta=0.5)).round(3))
    [0.916]
    """
    check_labels(labels, logits, where)
    beta = check_range(beta, "beta", 0.0, 1.0)
    logits, labels = without_padding(where, logits, labels)
    to_label = integer_cross_entropy(logits, labels)
    to_prediction = integer_cross_entropy(logits, logits.argmax(-1))
    return zero_padding(share_of(beta, to_label) + (1.0 - beta) * to_prediction, where)


def forward_corrected_cross_entropy(
    logits: jax.Array, labels: jax.Array, transition_matrix: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy of the observed label after the prediction went through the noise: -log (p T)_y.

    Its minimiser predicts true labels if T is right.

    Args:
      logits: floating `[..., C]`, whose softmax p predicts the true label.
      labels: integer `[...]` in [0, C), observed.
      transition_matrix: floating `[C, C]`, T_ij = P(observed j | true i), rows summing to 1.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats; infinite, without a gradient, where no class that the logits allow can have
      the label.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes.

    Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise, CVPR 2017, arXiv 1609.03683,
    theorem 2.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> matrix = jnp.array([[0.9, 0.1], [0.3, 0.7]])
    >>> print(np.asarray(forward_corrected_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), matrix)).round(3))
    [0.511]
    """
    check_labels(labels, logits, where)
    num_classes = logits.shape[-1]
    check_arrays(transition_matrix=transition_matrix)
    if transition_matrix.shape != (num_classes, num_classes):
        raise ValueError(
            f"transition_matrix must have shape [C, C] = [{num_classes}, {num_classes}], "
            f"got {list(transition_matrix.shape)}."
        )
    logits, labels = without_padding(where, logits, labels)
    logits = logits.astype(jnp.float32)
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    # log sum_c p_c T_cy from log p: exact where p underflows.
    to_label = transition_matrix.astype(jnp.float32).T[labels]
    log_likelihood = jax.nn.logsumexp(logits, axis=-1, b=to_label)
    values = jax.nn.logsumexp(logits, axis=-1) - log_likelihood
    return zero_padding(jnp.where((labels >= 0) & (labels < num_classes), values, jnp.nan), where)


def _clipped_softmax(logits):
    return jnp.clip(jax.nn.softmax(logits, axis=-1), _ELR_CLIP, 1.0 - _ELR_CLIP)


def _finite_log(log_predictions):
    """Log-probabilities with 0 in place of -inf, so that 0 log 0 is 0 in value and gradient."""
    return jnp.where(jnp.isneginf(log_predictions), 0.0, log_predictions)
