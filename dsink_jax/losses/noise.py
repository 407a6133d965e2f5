"""Losses for mislabelled examples: what a noise-robust auxiliary model f_N optimises."""

import jax
import jax.numpy as jnp

from dsink_jax.losses._checks import check_at_least, check_labels, check_logits, check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy

# ELR's published code keeps probabilities in [1e-4, 1 - 1e-4]; the same bound keeps log(1 - <t, p>) finite.
_ELR_CLIP = 1e-4


def generalized_cross_entropy(logits: jax.Array, labels: jax.Array, q: float = 0.7) -> jax.Array:
    """Generalised cross-entropy (1 - p_y^q) / q: cross-entropy for q -> 0, mean absolute error at q = 1.

    Args:
      logits: floating `[N, C]`.
      labels: integer `[N]` in [0, C).
      q: robustness in (0, 1].

    Returns:
      float32 `[N]` in [0, 1/q].

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or q outside (0, 1].

    Source: Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))).round(3))
    [0.549]
    """
    check_labels(labels, logits)
    check_range(q, "q", 0.0, 1.0, low_open=True)
    # p_y^q as exp(q log p_y): exact and differentiable where p_y underflows.
    log_likelihood = -integer_cross_entropy(logits, labels)
    return -jnp.expm1(q * log_likelihood) / q


def early_learning_regularized(
    logits: jax.Array, labels: jax.Array, targets: jax.Array, weight: float = 3.0
) -> jax.Array:
    """Cross-entropy plus early-learning regularisation: CE + weight * log(1 - <targets_i, p_i>).

    The regulariser pulls predictions towards what the model itself predicted earlier, before it memorised
    wrong labels. It is unbounded below in theory; probabilities are kept in [1e-4, 1 - 1e-4].

    Args:
      logits: floating `[N, C]`.
      labels: integer `[N]` in [0, C).
      targets: floating `[N, C]`, running means of earlier predictions (see
        `early_learning_targets`). No gradient flows to them.
      weight: strength, at least 0.

    Returns:
      float32 `[N]`, in nats; negative values are normal.

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
    check_labels(labels, logits)
    check_logits(logits, targets=targets)
    check_at_least(weight, "weight", 0)
    logits = logits.astype(jnp.float32)
    cross_entropy = integer_cross_entropy(logits, labels)
    agreement = (jax.lax.stop_gradient(targets.astype(jnp.float32)) * _clipped_softmax(logits)).sum(-1)
    return cross_entropy + weight * jnp.log(1.0 - agreement)


def early_learning_targets(logits: jax.Array, targets: jax.Array, momentum: float = 0.7) -> jax.Array:
    """The next targets of `early_learning_regularized`: momentum * targets + (1 - momentum) * p.

    Args:
      logits: floating `[N, C]`, the model's current logits; no gradient flows to them.
      targets: floating `[N, C]`, the present targets, 0 before the first epoch.
      momentum: share of the present targets that is kept, in [0, 1].

    Returns:
      float32 `[N, C]`, rows summing to at most 1.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a momentum outside [0, 1].

    Source: Liu et al., NeurIPS 2020, arXiv 2007.00151.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(early_learning_targets(jnp.zeros((1, 2)), jnp.zeros((1, 2)))).round(3))
    [[0.15 0.15]]
    """
    check_logits(logits, targets=targets)
    check_range(momentum, "momentum", 0.0, 1.0)
    predictions = _clipped_softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))
    predictions = predictions / predictions.sum(-1, keepdims=True)
    return momentum * targets.astype(jnp.float32) + (1.0 - momentum) * predictions


def _clipped_softmax(logits):
    return jnp.clip(jax.nn.softmax(logits, axis=-1), _ELR_CLIP, 1.0 - _ELR_CLIP)
