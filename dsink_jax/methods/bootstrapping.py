"""Bootstrapping: labels mixed with the model's own predictions."""

import dataclasses

from dsink_jax import losses
from dsink_jax.losses._checks import check_range
from dsink_jax.methods.base import Method, MethodLoss


@dataclasses.dataclass(frozen=True)
class SoftBootstrapping(Method):
    """Labels mixed with the predicted probabilities (Reed et al., 2015, arXiv 1412.6596).

    Attributes:
      beta: share of the label, in [0, 1].
    """

    beta: float = 0.95

    def __post_init__(self):
        self.check(check_range, "beta", 0.0, 1.0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(losses.soft_bootstrapping(logits, batch.labels, self.beta))


@dataclasses.dataclass(frozen=True)
class HardBootstrapping(Method):
    """Labels mixed with the predicted class (Reed et al., 2015, arXiv 1412.6596).

    Attributes:
      beta: share of the label, in [0, 1]; the default is ours.
    """

    beta: float = 0.8

    def __post_init__(self):
        self.check(check_range, "beta", 0.0, 1.0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(losses.hard_bootstrapping(logits, batch.labels, self.beta))
