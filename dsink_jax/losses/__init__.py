"""Per-example losses: logits `[N, C]` in, values `[N]` out; the caller reduces."""

from dsink_jax.losses.distillation import divergence_from_labels, dsink_loss, naive_distillation_loss
from dsink_jax.losses.imbalance import logit_adjusted_cross_entropy
from dsink_jax.losses.noise import (
    early_learning_regularized,
    early_learning_targets,
    generalized_cross_entropy,
)

__all__ = [
    "divergence_from_labels",
    "dsink_loss",
    "early_learning_regularized",
    "early_learning_targets",
    "generalized_cross_entropy",
    "logit_adjusted_cross_entropy",
    "naive_distillation_loss",
]
