"""Logit adjustment in the loss and after training, and balanced softmax."""

import dataclasses

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.losses._checks import check_at_least
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.class_balanced import check_no_empty_class


@dataclasses.dataclass(frozen=True)
class LogitAdjustment(Method):
    """Logit-adjusted cross-entropy (Menon et al., ICLR 2021, arXiv 2007.07314).

    Training shifts the logits by tau * log class_prior; the prediction is the softmax of the unshifted
    logits, which is balanced over the classes.

    Attributes:
      class_prior: C non-negative numbers.
      tau: strength, at least 0.
    """

    class_prior: tuple[float, ...]
    tau: float = 1.0

    def __post_init__(self):
        self.check(check_at_least, "tau", 0)

    @classmethod
    def from_facts(cls, facts, **options):
        """With the prior of the training set."""
        return cls(facts.class_prior, **options)

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        prior = jnp.asarray(self.class_prior, jnp.float32)
        values = losses.logit_adjusted_cross_entropy(logits, batch.labels, prior, self.tau)
        return MethodLoss(values, example_state, {})


@dataclasses.dataclass(frozen=True)
class BalancedSoftmax(LogitAdjustment):
    """Balanced softmax (Ren et al., NeurIPS 2020, arXiv 2007.10740): logit adjustment with tau 1.

    Attributes:
      class_prior: C non-negative numbers; only their ratios matter.
    """

    tau: float = dataclasses.field(default=1.0, init=False)


@dataclasses.dataclass(frozen=True)
class PostHocLogitAdjustment(LogitAdjustment):
    """Cross-entropy, and logits shifted by -tau * log class_prior to predict (Menon et al.).

    Attributes:
      class_prior: C positive numbers.
      tau: strength, at least 0.
    """

    @classmethod
    def from_facts(cls, facts, **options):
        """With the prior of the training set, in which no class may be empty."""
        check_no_empty_class(facts.class_counts)
        return super().from_facts(facts, **options)

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        return MethodLoss(integer_cross_entropy(logits, batch.labels), example_state, {})

    def predict(self, logits):
        """Logits without the share that the prior has in them."""
        return logits - self.tau * jnp.log(jnp.asarray(self.class_prior, jnp.float32))
