"""Networks by name, as the command lines choose them."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.errors import InputError, check_known
from dsink_jax.models.cnn import SmallCNN, WideCNN
from dsink_jax.models.interface import Model
from dsink_jax.models.layers import Classifier
from dsink_jax.models.linen_modules import from_linen
from dsink_jax.models.mlp import MLP
from dsink_jax.models.resnet import CifarResNet, PreActResNet18

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
    """Raises `InputError` for a network of images that is to be given other inputs.

    Args:
      name: one of `MODELS`.
      inputs_shape: of a batch, `(n, ...)`.

    Raises:
      InputError: if the inputs are not images `[n, H, W, channels]` and the network needs them, or the name
        is unknown.
    """
    check_model_name(name)
    if len(inputs_shape) != 4 and name not in FOR_VECTORS:
        inputs = "vectors" if len(inputs_shape) == 2 else f"{list(inputs_shape[1:])}"
        raise InputError(
            f"The model {name} is for images, and the inputs are {inputs}: choose {' or '.join(FOR_VECTORS)}"
            ", or give a module of your own."
        )


def build_model(
    name: str,
    num_classes: int,
    *,
    compute_dtype: str = "float32",
    final_norm: bool = True,
    classifier: Classifier = "linear",
) -> Model:
    """The network called `name`.

    Args:
      name: one of `MODELS`.
      num_classes: C.
      compute_dtype: `float32` or `bfloat16`; parameters and logits are float32 in both.
      final_norm: only for `preact_resnet18`; see `PreActResNet18`.
      classifier: last layer; see `models.layers.classifier_layer`.

    Raises:
      InputError: for an unknown name or compute type.
    """
    check_model_name(name)
    if compute_dtype not in COMPUTE_DTYPES:
        raise InputError(f"Unknown compute type {compute_dtype!r}. Known types: {', '.join(COMPUTE_DTYPES)}.")
    return _build(name, num_classes, compute_dtype, final_norm, classifier)


# The same functions each time, so that what is compiled for one training serves the next: to compile the
# initialisation of a small CNN takes longer than its first epochs.
@functools.cache
def _build(name, num_classes, compute_dtype, final_norm, classifier):
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "dtype": COMPUTE_DTYPES[compute_dtype],
        "classifier": classifier,
    }
    if name == "preact_resnet18":
        options["final_norm"] = final_norm
    return from_linen(MODELS[name](**options))
