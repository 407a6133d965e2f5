"""Flax networks behind an (init, apply) pair."""

from dsink_jax.models.cnn import SmallCNN, WideCNN
from dsink_jax.models.interface import Model, from_linen, several
from dsink_jax.models.mlp import MLP
from dsink_jax.models.registry import (
    COMPUTE_DTYPES,
    FOR_VECTORS,
    MODELS,
    build_model,
    check_model_name,
)
from dsink_jax.models.resnet import CifarResNet, PreActResNet18

__all__ = [
    "COMPUTE_DTYPES",
    "FOR_VECTORS",
    "MLP",
    "MODELS",
    "CifarResNet",
    "Model",
    "PreActResNet18",
    "SmallCNN",
    "WideCNN",
    "build_model",
    "check_model_name",
    "from_linen",
    "several",
]
