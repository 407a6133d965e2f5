"""Per-example losses: logits `[..., C]` in, values `[...]` out (`[N, C]` for D-SINK); the caller reduces.

Numbers such as tau, gamma or a weight may be traced arrays `[]`: another one then compiles nothing anew.
Their range is checked unless they are traced.
"""

from dsink_jax.losses.distillation import (
    divergence_from_labels,
    dsink_loss,
    naive_distillation_loss,
    open_set_dsink_loss,
)
from dsink_jax.losses.imbalance import (
    class_balanced_weights,
    focal_cross_entropy,
    ldam,
    logit_adjusted_cross_entropy,
)
from dsink_jax.losses.multilabel import (
    binary_divergence_from_labels,
    generalized_binary_cross_entropy,
    logit_adjusted_binary_cross_entropy,
    multilabel_dsink_loss,
)
from dsink_jax.losses.noise import (
    early_learning_regularized,
    early_learning_targets,
    forward_corrected_cross_entropy,
    generalized_cross_entropy,
    hard_bootstrapping,
    soft_bootstrapping,
    symmetric_cross_entropy,
)
from dsink_jax.losses.reweighting import feature_cost, label_cost, transport_distance
from dsink_jax.losses.weighted_sum import add_distillation

__all__ = [
    "add_distillation",
    "binary_divergence_from_labels",
    "class_balanced_weights",
    "divergence_from_labels",
    "dsink_loss",
    "early_learning_regularized",
    "early_learning_targets",
    "feature_cost",
    "focal_cross_entropy",
    "forward_corrected_cross_entropy",
    "generalized_binary_cross_entropy",
    "generalized_cross_entropy",
    "hard_bootstrapping",
    "label_cost",
    "ldam",
    "logit_adjusted_binary_cross_entropy",
    "logit_adjusted_cross_entropy",
    "multilabel_dsink_loss",
    "naive_distillation_loss",
    "open_set_dsink_loss",
    "soft_bootstrapping",
    "symmetric_cross_entropy",
    "transport_distance",
]
