"""LDAM with deferred re-weighting."""

import dataclasses

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.class_balanced import batch_weights, check_no_empty_class


@dataclasses.dataclass(frozen=True)
class LdamDrw(Method):
    """Label-distribution-aware margins on a cosine classifier, class weights late in training.

    Cao et al., NeurIPS 2019, arXiv 1906.07413.

    Attributes:
      max_margin: margin of the rarest class, at least 0.
      scale: factor of the cosines in the softmax, of the loss and of the prediction; positive.
      deferral: share of the training before the weights set in, in [0, 1]; the published recipe's is 160 of
        200 epochs.
      beta: of the class-balanced weights, in [0, 1).
    """

    max_margin: float = 0.5
    scale: float = 30.0
    deferral: float = 0.8
    beta: float = 0.9999

    classifier = "cosine"

    def __post_init__(self):
        self.check(check_at_least, "max_margin", 0)
        self.check(check_range, "scale", 0.0, 1e6, low_open=True)
        self.check(check_range, "deferral", 0.0, 1.0)
        self.check(check_range, "beta", 0.0, 1.0, high_open=True)

    def check_facts(self, facts):
        """No class may be empty."""
        check_no_empty_class(facts.class_counts)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        facts = context.facts
        counts = jnp.asarray(facts.class_counts)
        values = losses.ldam(logits, batch.labels, counts, self.max_margin, self.scale)
        weights = losses.class_balanced_weights(counts, self.beta)
        # Epochs are a quotient of steps, a hair below the whole number at times.
        deferred = context.epoch + 1e-4 >= self.deferral * facts.epochs
        weights = batch_weights(jnp.where(deferred, weights, 1.0), batch, context.axis_name)
        return MethodLoss(weights * values)

    def predict(self, logits, facts):
        """Scaled cosines, whose softmax is the prediction."""
        return self.scale * logits
