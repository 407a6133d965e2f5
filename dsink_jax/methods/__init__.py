"""Training methods: what an auxiliary model or the target optimises, and the terms that distil."""

from dsink_jax.methods.base import (
    Batch,
    Context,
    Method,
    MethodLoss,
    TrainingFacts,
    make_facts,
    numbers_of,
    static_part,
    with_numbers,
)
from dsink_jax.methods.bootstrapping import HardBootstrapping, SoftBootstrapping
from dsink_jax.methods.class_balanced import ClassBalanced, Focal
from dsink_jax.methods.combined import AdjustedNoiseRobust, Ensemble
from dsink_jax.methods.coteaching import CoTeaching
from dsink_jax.methods.cross_entropy import CrossEntropy, LabelSmoothing
from dsink_jax.methods.decoupled import ClassifierRetraining, TauNormalization
from dsink_jax.methods.distillation import Distillation, Distilled, DSink, NaiveDistillation, OpenSetDSink
from dsink_jax.methods.dividemix import DivideMix
from dsink_jax.methods.early_learning import EarlyLearningRegularization
from dsink_jax.methods.forward_correction import ForwardCorrection
from dsink_jax.methods.generalized_cross_entropy import (
    GeneralizedCrossEntropy,
    SymmetricCrossEntropy,
    TruncatedGeneralizedCrossEntropy,
)
from dsink_jax.methods.ldam import LdamDrw
from dsink_jax.methods.logit_adjustment import BalancedSoftmax, LogitAdjustment, PostHocLogitAdjustment
from dsink_jax.methods.mixup import Mixup
from dsink_jax.methods.registry import (
    METHODS,
    SEVERAL_LABELS,
    Entry,
    MethodLike,
    build_method,
    bytes_per_example,
    check_method_name,
    method_name,
    method_options,
)
from dsink_jax.methods.reweighting import TransportReweighting
from dsink_jax.methods.several_labels import (
    BinaryGeneralizedCrossEntropy,
    BinaryLogitAdjustment,
    MultilabelDSink,
)
from dsink_jax.methods.tabasco import Tabasco
from dsink_jax.methods.transition import estimate_noise_rate, estimate_transition_matrix

__all__ = [
    "METHODS",
    "SEVERAL_LABELS",
    "AdjustedNoiseRobust",
    "BalancedSoftmax",
    "Batch",
    "BinaryGeneralizedCrossEntropy",
    "BinaryLogitAdjustment",
    "ClassBalanced",
    "ClassifierRetraining",
    "CoTeaching",
    "Context",
    "CrossEntropy",
    "DSink",
    "Distillation",
    "Distilled",
    "DivideMix",
    "EarlyLearningRegularization",
    "Ensemble",
    "Entry",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "HardBootstrapping",
    "LabelSmoothing",
    "LdamDrw",
    "LogitAdjustment",
    "Method",
    "MethodLike",
    "MethodLoss",
    "Mixup",
    "MultilabelDSink",
    "NaiveDistillation",
    "OpenSetDSink",
    "PostHocLogitAdjustment",
    "SoftBootstrapping",
    "SymmetricCrossEntropy",
    "Tabasco",
    "TauNormalization",
    "TrainingFacts",
    "TransportReweighting",
    "TruncatedGeneralizedCrossEntropy",
    "build_method",
    "bytes_per_example",
    "check_method_name",
    "estimate_noise_rate",
    "estimate_transition_matrix",
    "make_facts",
    "method_name",
    "method_options",
    "numbers_of",
    "static_part",
    "with_numbers",
]
