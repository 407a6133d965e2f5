"""The convolution, the batch normalisation and the last layer that all networks here share."""

from functools import partial
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsink_jax.errors import check_known
from dsink_jax.models.convolution import convolve

Classifier = Literal["linear", "cosine"]

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
        conv_general_dilated=convolve,
    )


def batch_norm(train: bool, dtype: Any) -> partial[nn.BatchNorm]:
    """Batch normalisation whose moving averages keep 0.9 a step."""
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        param_dtype=jnp.float32,
    )


class CosineClassifier(nn.Module):
    """Cosines `[N, C]` of the features with one direction for each class: in [-1, 1], no bias.

    Attributes:
      num_classes: C.
      dtype: type of the computation.
    """

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features):
        """Cosines of features `[N, D]`."""
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        return cosines(features, kernel, self.dtype)


def cosines(features: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    """Cosines `[N, C]` of features `[N, D]` with the columns of a kernel `[D, C]`, computed in `dtype`."""
    # Unit length in float32: rounding would be multiplied by the scale that a softmax of cosines needs.
    features, kernel = _unit(features.astype(jnp.float32), -1), _unit(kernel, 0)
    # Accelerators multiply float32 in less by default.
    return jnp.matmul(features.astype(dtype), kernel.astype(dtype), precision=jax.lax.Precision.HIGHEST)


def classifier_layer(kind: Classifier, num_classes: int, dtype: Any) -> nn.Module:
    """The last layer, from features `[N, D]` to logits `[N, C]`; its parameters are under "classifier".

    Args:
      kind: `linear`; or `cosine`, whose logits are cosines, as LDAM needs them (a softmax of them has to be
        scaled first).
      num_classes: C.
      dtype: type of the computation; parameters stay float32.

    Raises:
      InputError: for an unknown kind.
    """
    check_known("classifier", kind, get_args(Classifier))
    if kind == "cosine":
        return CosineClassifier(num_classes, dtype, name="classifier")
    return nn.Dense(num_classes, dtype=dtype, name="classifier")


def _unit(x, axis):
    """Vectors of length 1 along an axis; 0 stays 0, and the gradient there is finite."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(axis, keepdims=True), 1e-12))
