"""Methods that train one model from labels alone: cross-entropy, logit adjustment, GCE, ELR."""

import dataclasses

import jax.numpy as jnp
import optax

from dsink_jax import losses
from dsink_jax.methods.base import Method, MethodLoss


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Method):
    """Plain cross-entropy on the observed labels."""

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        values = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), batch.labels
        )
        return MethodLoss(values, example_state, {})


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

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        prior = jnp.asarray(self.class_prior, jnp.float32)
        values = losses.logit_adjusted_cross_entropy(logits, batch.labels, prior, self.tau)
        return MethodLoss(values, example_state, {})


@dataclasses.dataclass(frozen=True)
class GeneralizedCrossEntropy(Method):
    """Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836).

    Attributes:
      q: robustness in (0, 1].
    """

    q: float = 0.7

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        values = losses.generalized_cross_entropy(logits, batch.labels, self.q)
        return MethodLoss(values, example_state, {})


@dataclasses.dataclass(frozen=True)
class EarlyLearningRegularization(Method):
    """ELR (Liu et al., NeurIPS 2020, arXiv 2007.00151), with a target of C numbers for each example.

    Attributes:
      weight: strength of the regulariser, at least 0.
      momentum: share of an example's target kept at each visit, in [0, 1].
    """

    weight: float = 3.0
    momentum: float = 0.7

    def init(self, num_examples, num_classes):
        """Targets start at 0: float32 `[num_examples, C]`."""
        return jnp.zeros((num_examples, num_classes), jnp.float32)

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        targets = losses.early_learning_targets(logits, example_state, self.momentum)
        values = losses.early_learning_regularized(logits, batch.labels, targets, self.weight)
        return MethodLoss(values, targets, {})
