"""Training methods: what an auxiliary model or the target optimises."""

from dsink_jax.methods.base import Batch, Method, MethodLoss, TrainingFacts
from dsink_jax.methods.distilled import DSink, NaiveDistillation, Weighting
from dsink_jax.methods.registry import (
    METHODS,
    MethodOptions,
    build_method,
    check_method_name,
    class_prior,
)
from dsink_jax.methods.single import (
    CrossEntropy,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
)

__all__ = [
    "METHODS",
    "Batch",
    "CrossEntropy",
    "DSink",
    "EarlyLearningRegularization",
    "GeneralizedCrossEntropy",
    "LogitAdjustment",
    "Method",
    "MethodLoss",
    "MethodOptions",
    "NaiveDistillation",
    "TrainingFacts",
    "Weighting",
    "build_method",
    "check_method_name",
    "class_prior",
]
