"""Logit adjustment in the loss and after training, and balanced softmax."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.losses._checks import check_at_least
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Array, Method, MethodLoss, TrainingFacts
from dsink_jax.methods.class_balanced import check_no_empty_class

# Logit of a class without examples: no probability, and finite, so that differences of it are numbers.
_IMPOSSIBLE = -1e9
MIN_TEMPERATURE = 1e-3


class LogitAdjusted(Method):
    """What methods share that have the options `tau` and `temperature`, with any loss.

    Training shifts the logits by tau * log class_prior; the prediction is the softmax of the unshifted ones,
    divided by the temperature, which has no part in the training.
    """

    tempered: ClassVar[bool] = True

    tau: float
    temperature: float

    def check_adjustment(self) -> None:
        """Raises `InputError` for a `tau` or a `temperature` that is out of range."""
        self.check(check_at_least, "tau", 0)
        self.check(check_at_least, "temperature", MIN_TEMPERATURE)

    @property
    def is_balanced(self) -> bool:
        """See `Method.is_balanced`."""
        return self.tau == 1

    def shifted(self, logits: Array, facts: TrainingFacts) -> jax.Array:
        """Logits `[n, C]` as they are trained."""
        prior = jnp.asarray(facts.class_prior)
        log_prior = jnp.where(prior > 0, jnp.log(jnp.where(prior > 0, prior, 1.0)), _IMPOSSIBLE)
        return jnp.asarray(logits) + self.tau * log_prior[None]

    def of_seen(self, logits: Array, facts: TrainingFacts) -> jax.Array:
        """Logits `[n, C]` to predict by: none for classes without examples."""
        return jnp.where(jnp.asarray(facts.class_counts) > 0, logits / self.temperature, _IMPOSSIBLE)

    def predict(self, logits: jax.Array, facts: TrainingFacts) -> jax.Array:
        """The unshifted logits; with `tau` above 0 none for classes without examples."""
        return jnp.where(self.tau > 0, self.of_seen(logits, facts), logits / self.temperature)


@dataclasses.dataclass(frozen=True)
class LogitAdjustment(LogitAdjusted):
    """Logit-adjusted cross-entropy (Menon et al., ICLR 2021, arXiv 2007.07314).

    Training shifts the logits by tau * log class_prior; the prediction is the softmax of the unshifted
    logits, which is balanced over the classes. A class without examples, of which the network has learned
    nothing, is never predicted.

    Attributes:
      tau: strength, at least 0.
      temperature: what logits are divided by to predict, positive; no part of the training.
    """

    tau: float = 1.0
    temperature: float = 1.0

    def __post_init__(self):
        self.check_adjustment()

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        prior = jnp.asarray(context.facts.class_prior)
        return MethodLoss(losses.logit_adjusted_cross_entropy(logits, batch.labels, prior, self.tau))

    def predict(self, logits, facts):
        """The unshifted logits of the classes that have examples."""
        return self.of_seen(logits, facts)


@dataclasses.dataclass(frozen=True)
class BalancedSoftmax(LogitAdjustment):
    """Balanced softmax (Ren et al., NeurIPS 2020, arXiv 2007.10740): logit adjustment with tau 1.

    Attributes:
      temperature: what logits are divided by to predict, positive.
    """

    tau: float = dataclasses.field(default=1.0, init=False)


@dataclasses.dataclass(frozen=True)
class PostHocLogitAdjustment(LogitAdjustment):
    """Cross-entropy, and logits shifted by -tau * log class_prior to predict (Menon et al.).

    Attributes:
      tau: strength, at least 0.
      temperature: what the shifted logits are divided by, positive.
    """

    def check_facts(self, facts):
        """No class may be empty."""
        check_no_empty_class(facts.class_counts)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(integer_cross_entropy(logits, batch.labels))

    def predict(self, logits, facts):
        """Logits without the share that the prior has in them."""
        log_prior = jnp.log(jnp.asarray(facts.class_prior))
        return (logits - self.tau * log_prior[None]) / self.temperature
