"""Any network as pure functions of its variables: networks by name, and a person's own."""

from dsink_jax.models.architectures import MLP, CifarResNet, PreActResNet18, SmallCNN, WideCNN
from dsink_jax.models.interface import Model, Variables, several
from dsink_jax.models.linen import from_linen
from dsink_jax.models.networks import Network, make_model
from dsink_jax.models.registry import (
    COMPUTE_DTYPES,
    FOR_VECTORS,
    MODELS,
    build_model,
    check_model_name,
    check_model_takes,
)
from dsink_jax.models.requirements import check_model

__all__ = [
    "COMPUTE_DTYPES",
    "FOR_VECTORS",
    "MLP",
    "MODELS",
    "CifarResNet",
    "Model",
    "Network",
    "PreActResNet18",
    "SmallCNN",
    "Variables",
    "WideCNN",
    "build_model",
    "check_model",
    "check_model_name",
    "check_model_takes",
    "from_linen",
    "make_model",
    "several",
]
