"""Losses for long-tailed classes: what an imbalance-robust auxiliary model f_L optimises."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.array_checks import check_arrays
from dsink_jax.losses._checks import (
    check_at_least,
    check_labels,
    check_per_class,
    check_range,
    for_each_class,
    is_traced,
)
from dsink_jax.losses._cross_entropy import integer_cross_entropy, prior_shift
from dsink_jax.losses._padding import without_padding, zero_padding


def logit_adjusted_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    class_prior: jax.Array,
    tau: float | jax.Array = 1.0,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy on logits shifted by the class prior; predict with the unshifted logits.

    -log softmax(logits_i + tau * log class_prior)[labels_i]. A class of prior 0 is left out of the
    softmax; an example labelled with it has infinite loss.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      class_prior: floating `[C]`, non-negative; any positive multiple gives the same loss when tau is 1.
      tau: strength of the adjustment, at least 0; 0 is plain cross-entropy.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative tau.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, arXiv 2007.07314. With tau 1
    it is the balanced softmax of Ren et al., NeurIPS 2020, arXiv 2007.10740.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> prior = jnp.array([0.9, 0.1])
    >>> print(np.asarray(logit_adjusted_cross_entropy(jnp.zeros((2, 2)), jnp.array([0, 1]), prior)).round(3))
    [0.105 2.303]
    """
    check_labels(labels, logits, where)
    check_per_class(class_prior, logits, "class_prior")
    tau = check_at_least(tau, "tau", 0)
    shift = prior_shift(tau, jnp.log(class_prior.astype(jnp.float32)))
    logits, labels = without_padding(where, logits, labels)
    shifted = logits.astype(jnp.float32) + for_each_class(shift, logits)
    return zero_padding(integer_cross_entropy(shifted, labels), where)


def ldam(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: jax.Array | np.ndarray,
    max_margin: float | jax.Array = 0.5,
    scale: float | jax.Array = 30.0,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Label-distribution-aware margin loss: cross-entropy of scale * (cosines less a margin of the label).

    The logit of the labelled class is lowered by max_margin * (n_min / n_c)^(1/4), widest for the rarest
    class. Made for the cosines of a cosine classifier; predict with softmax(scale * logits).

    Args:
      logits: floating `[..., C]`, cosines in [-1, 1].
      labels: integer `[...]` in [0, C).
      class_counts: `[C]`, examples of each class, all positive.
      max_margin: margin of the rarest class, at least 0.
      scale: what the cosines are multiplied by before the softmax, at least 0.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, a class without examples, or a negative option.

    Source: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019,
    arXiv 1906.07413. The quarter power is equation 13's; margin and scale are those of its code.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> counts = jnp.array([16.0, 1.0])
    >>> print(np.asarray(ldam(jnp.zeros((2, 2)), jnp.array([0, 1]), counts, scale=4.0)).round(3))
    [1.313 2.127]
    """
    check_labels(labels, logits, where)
    max_margin = check_at_least(max_margin, "max_margin", 0)
    scale = check_at_least(scale, "scale", 0)
    check_per_class(class_counts, logits, "class_counts")
    _check_positive_counts(class_counts)
    counts = jnp.asarray(class_counts, jnp.float32)
    margins = max_margin * (counts.min() / counts) ** 0.25
    logits, labels = without_padding(where, logits, labels)
    of_label = for_each_class(margins, logits) * jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    values = integer_cross_entropy(scale * (logits.astype(jnp.float32) - of_label), labels)
    return zero_padding(values, where)


def class_balanced_weights(
    class_counts: jax.Array | np.ndarray, beta: float | jax.Array = 0.9999
) -> jax.Array:
    """Weight of each class by its effective number of examples: (1 - beta) / (1 - beta^n_c), mean 1.

    beta 0 weighs all classes alike, beta towards 1 by the inverse of their counts.

    Args:
      class_counts: `[C]`, examples of each class, all positive.
      beta: in [0, 1). A traced one is a float32, which has 1 - beta only to 6e-8.

    Returns:
      float32 `[C]`, positive, summing to C.

    Raises:
      ValueError: if the counts are not one row, a class has no examples, or beta is outside [0, 1).

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019,
    arXiv 1901.05555, equation 2.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(class_balanced_weights(jnp.array([2, 1]), beta=0.5)).round(3))
    [0.8 1.2]
    """
    check_arrays(class_counts=class_counts)
    if class_counts.ndim != 1:
        raise ValueError(f"class_counts must have shape [C], got {list(class_counts.shape)}.")
    beta = check_range(beta, "beta", 0.0, 1.0, high_open=True)
    _check_positive_counts(class_counts)
    counts = jnp.asarray(class_counts, jnp.float32)
    # 1 - beta^n by expm1, because float32 loses it for beta near 1.
    weights = 1.0 / -jnp.expm1(counts * _log(beta))
    return weights / weights.mean()


def focal_cross_entropy(
    logits: jax.Array, labels: jax.Array, gamma: float | jax.Array = 2.0, *, where: jax.Array | None = None
) -> jax.Array:
    """Focal loss over a softmax: (1 - p_y)^gamma * cross-entropy.

    Args:
      logits: floating `[..., C]`.
      labels: integer `[...]` in [0, C).
      gamma: how much examples that are fitted already count less, at least 0; 0 is cross-entropy.
      where: bool `[...]`, False for padding, whose loss and gradient are 0.

    Returns:
      float32 `[...]`, in nats, non-negative.

    Raises:
      ValueError: for wrong ranks, shapes or dtypes, or a negative gamma.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv 1708.02002, in the
    softmax form that long-tailed classification uses.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> print(np.asarray(focal_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]))).round(3))
    [0.173]
    """
    check_labels(labels, logits, where)
    gamma = check_at_least(gamma, "gamma", 0)
    cross_entropy = integer_cross_entropy(*without_padding(where, logits, labels))
    if not is_traced(gamma) and gamma == 0:
        return zero_padding(cross_entropy, where)
    # 1 - p_y by expm1; kept off 0, where a power below 1 has no gradient.
    finite = jnp.where(jnp.isposinf(cross_entropy), 100.0, cross_entropy)
    miss = jnp.maximum(-jnp.expm1(-finite), jnp.finfo(jnp.float32).tiny)
    return zero_padding(miss**gamma * cross_entropy, where)


def _log(beta):
    """-inf for 0, without a gradient there."""
    if is_traced(beta):
        return jnp.where(beta > 0, jnp.log(jnp.where(beta > 0, beta, 1.0)), -jnp.inf)
    return math.log(beta) if beta > 0 else -math.inf


def _check_positive_counts(class_counts):
    """Raises `ValueError` for a class without examples; traced counts cannot be looked at."""
    if is_traced(class_counts):
        return
    empty = np.flatnonzero(~(np.asarray(class_counts) > 0))
    if empty.size:
        raise ValueError(
            f"class_counts must be positive, but class {empty[0]} has {class_counts[int(empty[0])]}. "
            "Leave out classes without examples."
        )
