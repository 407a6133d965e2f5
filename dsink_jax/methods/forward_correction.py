"""Forward correction by a transition matrix, known or estimated."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_range
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.transition import estimate_transition_matrix


@dataclasses.dataclass(frozen=True)
class ForwardCorrection(Method):
    """Cross-entropy of the observed label after the prediction went through the noise.

    Patrini et al., CVPR 2017, arXiv 1609.03683. With an estimated matrix, training starts as plain
    cross-entropy, and after a share of it the matrix is read off the model's own confident predictions.

    Attributes:
      epochs: epochs of the training.
      transition_matrix: C rows P(observed | true), or None.
      matrix: `estimated`; or `known`, the matrix that synthetic noise was drawn with, which is not known of
        real data.
      estimate_after: share of the training before the estimate, in (0, 1).
    """

    epochs: int
    transition_matrix: tuple[tuple[float, ...], ...] | None
    matrix: Literal["estimated", "known"] = "estimated"
    estimate_after: float = 0.1

    def __post_init__(self):
        if self.matrix not in ("estimated", "known"):
            raise InputError(f"matrix must be estimated or known, got {self.matrix!r}.")
        if self.matrix == "known" and self.transition_matrix is None:
            raise InputError("the transition matrix of this noise is not known. Take matrix estimated.")
        self.check(check_range, "estimate_after", 0.0, 1.0, low_open=True, high_open=True)

    @classmethod
    def from_facts(cls, facts, *, matrix="estimated", **options):
        """With the matrix of the training set only if it is to be known."""
        known = facts.transition_matrix if matrix == "known" else None
        return cls(facts.epochs, known, matrix, **options)

    def init_shared(self, num_classes):
        """The matrix, float32 `[C, C]`: the identity until it is estimated."""
        if self.matrix == "known":
            return jnp.asarray(self.transition_matrix, jnp.float32)
        return jnp.eye(num_classes, dtype=jnp.float32)

    def refresh_before(self, epoch):
        """Once, if the matrix is to be estimated."""
        return self.matrix == "estimated" and epoch == max(round(self.estimate_after * self.epochs), 1)

    def refresh(self, logits, labels, example_state, shared_state):
        """Estimates the matrix."""
        return example_state, estimate_transition_matrix(logits, labels).astype("float32")

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        values = losses.forward_corrected_cross_entropy(logits, batch.labels, batch.shared_state)
        return MethodLoss(values, example_state, {})
