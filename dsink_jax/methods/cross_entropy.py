"""Cross-entropy, plain and with smoothed labels."""

import dataclasses

import jax.numpy as jnp
import optax

from dsink_jax.losses._checks import check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Method):
    """Plain cross-entropy on the observed labels."""

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(integer_cross_entropy(logits, batch.labels))


@dataclasses.dataclass(frozen=True)
class LabelSmoothing(Method):
    """Cross-entropy to (1 - amount) * label + amount / C.

    Against label noise: Lukasik et al., ICML 2020, arXiv 2003.02819.

    Attributes:
      amount: share spread over all classes, in [0, 1].
    """

    amount: float = 0.1

    def __post_init__(self):
        self.check(check_range, "amount", 0.0, 1.0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        one_hot = jnp.eye(logits.shape[-1], dtype=jnp.float32)[batch.labels]
        targets = optax.losses.smooth_labels(one_hot, self.amount)
        return MethodLoss(optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), targets))
