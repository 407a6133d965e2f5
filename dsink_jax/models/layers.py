"""The convolution and the batch normalisation that all networks here share."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

# He et al. 2015 (arXiv 1502.01852), fan-out: the usual choice for residual networks.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolution(features: int, kernel: int, stride: int = 1, *, dtype: Any) -> nn.Conv:
    """Square convolution without bias, padded by kernel // 2 on each side."""
    pad = kernel // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=[(pad, pad), (pad, pad)],
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
    )


def batch_norm(train: bool, axis_name: str | None, dtype: Any) -> partial[nn.BatchNorm]:
    """Batch normalisation over the whole batch of a mapped axis; moving averages keep 0.9 a step."""
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name if train else None,
        dtype=dtype,
        param_dtype=jnp.float32,
    )
