"""Cross-entropy with integer labels, the part that the robust losses share."""

import jax
import jax.numpy as jnp
import optax


def integer_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits_i)[labels_i], float32 `[N]`; NaN for a label outside [0, C).

    Optax gives NaN above the range, but counts negative labels from the end.
    """
    labels = jnp.where(labels < 0, logits.shape[-1], labels)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
