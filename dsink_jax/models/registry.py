"""Networks by name, as the command lines choose them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.errors import InputError, check_known
from dsink_jax.models.architectures import MLP, CifarResNet, PreActResNet18, SmallCNN, WideCNN
from dsink_jax.models.interface import Model
from dsink_jax.models.layers import Classifier
from dsink_jax.models.linen import from_linen

MODELS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": SmallCNN,
    "medium_cnn": partial(WideCNN, widths=(32, 64, 128, 256)),
    "wide_cnn": WideCNN,
    "resnet8": partial(CifarResNet, blocks=1),
    "resnet20": partial(CifarResNet, blocks=3),
    "resnet32": partial(CifarResNet, blocks=5),
    "preact_resnet18": PreActResNet18,
    "linear": MLP,
    "mlp": partial(MLP, widths=(256,)),
}
FOR_VECTORS = ("linear", "mlp")  # which look at an image as at a vector; the others need images
COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_model_name(name: str) -> None:
    """Raises `InputError` for an unknown name, with the nearest known one."""
    check_known("model", name, MODELS)


def check_model_takes(name: str, inputs_shape: Sequence[int]) -> None:
    """Raises `InputError` for a network of images, `[n, H, W, channels]`, whose inputs have another shape."""
    check_model_name(name)
    if len(inputs_shape) != 4 and name not in FOR_VECTORS:
        inputs = "vectors" if len(inputs_shape) == 2 else f"{list(inputs_shape[1:])}"
        known = " or ".join(FOR_VECTORS)
        raise InputError(f"The model {name} is for images, and the inputs are {inputs}: choose {known}.")


def build_model(
    name: str,
    num_classes: int,
    *,
    compute_dtype: str = "float32",
    final_norm: bool = True,
    classifier: Classifier = "linear",
) -> Model:
    """The network called `name`, the same `Model` each time; `InputError` for an unknown name or type.

    Args:
      name: one of `MODELS`.
      num_classes: C.
      compute_dtype: `float32` or `bfloat16`; parameters and logits are float32 in both.
      final_norm: only for `preact_resnet18`; see `PreActResNet18`.
      classifier: last layer; see `models.layers.classifier_layer`.
    """
    check_model_name(name)
    if compute_dtype not in COMPUTE_DTYPES:
        raise InputError(f"Unknown compute type {compute_dtype!r}. Known types: {', '.join(COMPUTE_DTYPES)}.")
    options: dict[str, Any] = {"final_norm": final_norm} if name == "preact_resnet18" else {}
    dtype = COMPUTE_DTYPES[compute_dtype]
    return from_linen(MODELS[name](num_classes, dtype=dtype, classifier=classifier, **options))
