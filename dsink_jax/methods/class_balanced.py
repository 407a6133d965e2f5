"""Cross-entropy weighted by class, and the focal loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import losses
from dsink_jax.collectives import psum
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Batch, Method, MethodLoss


@dataclasses.dataclass(frozen=True)
class ClassBalanced(Method):
    """Cross-entropy weighted by the effective number of examples of the class.

    Cui et al., CVPR 2019, arXiv 1901.05555.

    Attributes:
      beta: in [0, 1); towards 1 the weights are those of inverse counts.
    """

    beta: float = 0.9999

    def __post_init__(self):
        self.check(check_range, "beta", 0.0, 1.0, high_open=True)

    def check_facts(self, facts):
        """No class may be empty."""
        check_no_empty_class(facts.class_counts)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        weights = losses.class_balanced_weights(jnp.asarray(context.facts.class_counts), self.beta)
        weights = batch_weights(weights, batch, context.axis_name)
        return MethodLoss(weights * integer_cross_entropy(logits, batch.labels))


@dataclasses.dataclass(frozen=True)
class Focal(Method):
    """Focal loss over a softmax (Lin et al., ICCV 2017, arXiv 1708.02002). Weak on long tails: a baseline.

    Attributes:
      gamma: how much examples that are fitted already count less, at least 0.
    """

    gamma: float = 2.0

    def __post_init__(self):
        self.check(check_at_least, "gamma", 0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(losses.focal_cross_entropy(logits, batch.labels, self.gamma))


def batch_weights(class_weights: jax.Array, batch: Batch, axis_name: str | None) -> jax.Array:
    """Weight of each example, `[n]`, with mean 1 over the valid ones of all devices.

    So the loss is a weighted mean, sum w l / sum w: weights that are small for most examples do not shrink
    the step.

    Args:
      class_weights: float32 `[C]`.
      batch: the examples.
      axis_name: mapped axis over which the batch is split, or None.
    """
    weights = class_weights[batch.labels]
    valid = batch.where.astype(jnp.float32)
    summed, count = psum(((weights * valid).sum(), valid.sum()), axis_name)
    return weights * count / jnp.maximum(summed, 1e-12)


def check_no_empty_class(class_counts: Any) -> None:
    """Raises `InputError` if a class has no examples."""
    empty = np.flatnonzero(~(np.asarray(class_counts) > 0))
    if empty.size:
        raise InputError(
            f"needs examples of every class, but class {empty[0]} has none. "
            "Lower the imbalance ratio, or choose another method."
        )
