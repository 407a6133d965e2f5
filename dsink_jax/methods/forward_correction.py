"""Forward correction by a transition matrix, known or estimated."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_range
from dsink_jax.methods.base import MethodLoss
from dsink_jax.methods.hooks import LooksAtTrainingSet, rounded_share
from dsink_jax.methods.logit_adjustment import LogitAdjusted
from dsink_jax.methods.transition import estimate_transition_matrix


@dataclasses.dataclass(frozen=True)
class ForwardCorrection(LooksAtTrainingSet, LogitAdjusted):
    """Cross-entropy of the observed label after the prediction went through the noise.

    Patrini et al., CVPR 2017, arXiv 1609.03683. With an estimated matrix, training starts as plain
    cross-entropy, and after a share of it the matrix is read off the model's own confident predictions.

    Attributes:
      matrix: `estimated`; or `known`, the matrix that synthetic noise was drawn with, which is not known of
        real data.
      estimate_after: share of the training before the estimate, in (0, 1).
      tau: strength of a logit adjustment by the class prior, at least 0. With 1, and the shares of the true
        classes for prior, the prediction counts all classes alike.
      temperature: what logits are divided by to predict, positive; no part of the training.
    """

    matrix: Literal["estimated", "known"] = "estimated"
    estimate_after: float = 0.1
    tau: float = 0.0
    temperature: float = 1.0

    def __post_init__(self):
        if self.matrix not in ("estimated", "known"):
            raise InputError(f"matrix must be estimated or known, got {self.matrix!r}.")
        self.check(check_range, "estimate_after", 0.0, 1.0, low_open=True, high_open=True)
        self.check_adjustment()

    def check_facts(self, facts):
        """The matrix must be known if it is to be."""
        if self.matrix == "known" and facts.transition_matrix is None:
            raise InputError("the transition matrix of this noise is not known. Take matrix estimated.")

    def init_shared(self, facts):
        """The matrix, float32 `[C, C]`: the identity until it is estimated."""
        if self.matrix == "known":
            return jnp.asarray(facts.transition_matrix, jnp.float32)
        return jnp.eye(facts.num_classes, dtype=jnp.float32)

    def refresh_before(self, epoch, facts):
        """Once, if the matrix is to be estimated."""
        return self.matrix == "estimated" and epoch == rounded_share(self.estimate_after, facts.epochs)

    def refresh(self, logits, labels, example_state, shared_state):
        """Estimates the matrix."""
        return example_state, estimate_transition_matrix(logits, labels).astype("float32")

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        logits = self.shifted(logits, context.facts)
        values = losses.forward_corrected_cross_entropy(logits, batch.labels, context.shared_state)
        return MethodLoss(values)
