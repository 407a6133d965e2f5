"""Losses for long-tailed classes: what an imbalance-robust auxiliary model f_L optimises."""

import jax
import jax.numpy as jnp

from dsink_jax.losses._checks import check_at_least, check_labels, check_per_class
from dsink_jax.losses._cross_entropy import integer_cross_entropy


def logit_adjusted_cross_entropy(
    logits: jax.Array, labels: jax.Array, class_prior: jax.Array, tau: float = 1.0
) -> jax.Array:
    """Cross-entropy on logits shifted by the class prior; predict with the unshifted logits.

    -log softmax(logits_i + tau * log class_prior)[labels_i]. A class of prior 0 is left out of the
    softmax; an example labelled with it has infinite loss.

    Args:
      logits: floating `[N, C]`.
      labels: integer `[N]` in [0, C).
      class_prior: floating `[C]`, non-negative; any positive multiple gives the same loss when tau is 1.
      tau: strength of the adjustment, at least 0; 0 is plain cross-entropy.

    Returns:
      float32 `[N]`, in nats.

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
    check_labels(labels, logits)
    check_per_class(class_prior, logits, "class_prior")
    check_at_least(tau, "tau", 0)
    adjusted = logits.astype(jnp.float32)
    if tau > 0:
        adjusted = adjusted + tau * jnp.log(class_prior.astype(jnp.float32))
    return integer_cross_entropy(adjusted, labels)
