"""Early-learning regularisation."""

import dataclasses

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Method, MethodLoss


@dataclasses.dataclass(frozen=True)
class EarlyLearningRegularization(Method):
    """ELR (Liu et al., NeurIPS 2020, arXiv 2007.00151), with a target of C numbers for each example.

    Attributes:
      weight: strength of the regulariser, at least 0.
      momentum: share of an example's target kept at each visit, in [0, 1].
    """

    weight: float = 3.0
    momentum: float = 0.7

    def __post_init__(self):
        self.check(check_at_least, "weight", 0)
        self.check(check_range, "momentum", 0.0, 1.0)

    def init(self, num_examples, num_classes):
        """Targets start at 0: float32 `[num_examples, C]`."""
        return jnp.zeros((num_examples, num_classes), jnp.float32)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        targets = losses.early_learning_targets(logits, example_state, self.momentum)
        values = losses.early_learning_regularized(logits, batch.labels, targets, self.weight)
        return MethodLoss(values, targets)
