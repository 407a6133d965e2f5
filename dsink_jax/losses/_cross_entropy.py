"""Cross-entropy with integer labels, the part that the robust losses share."""

import jax
import jax.numpy as jnp
import optax

from dsink_jax.losses._checks import is_traced


def integer_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits_i)[labels_i], float32 `[N]`; NaN for a label outside [0, C).

    Optax gives NaN above the range, but counts negative labels from the end.
    """
    logits = logits.astype(jnp.float32)
    # Large logits keep their differences if the largest is taken away first.
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    labels = jnp.where(labels < 0, logits.shape[-1], labels)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def share_of(weight: float | jax.Array, cross_entropy: jax.Array) -> jax.Array:
    """Weighted cross-entropy: 0 for weight 0 even where it is infinite, NaN for a label out of range."""
    if is_traced(weight):
        return weight * jnp.where(jnp.isposinf(cross_entropy) & (weight <= 0), 0.0, cross_entropy)
    if weight > 0:
        return weight * cross_entropy
    return jnp.where(jnp.isnan(cross_entropy), jnp.nan, 0.0)


def prior_shift(tau: float | jax.Array, log_prior: jax.Array) -> jax.Array:
    """The product of tau and log_prior; 0 for tau 0, whatever the prior is."""
    if not is_traced(tau):
        return tau * log_prior if tau > 0 else jnp.zeros_like(log_prior)
    finite = jnp.isfinite(log_prior)
    return jnp.where(finite, tau * jnp.where(finite, log_prior, 0.0), jnp.where(tau > 0, log_prior, 0.0))
