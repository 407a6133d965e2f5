"""The layers that the networks here share, and the module that joins a backbone and a last layer."""

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsink_jax.errors import check_known
from dsink_jax.models.convolution import convolve

Classifier = Literal["linear", "cosine"]


def convolution(
    features: int, kernel: int, stride: int = 1, *, dtype: Any, in_parts: bool = False
) -> nn.Conv:
    """Square convolution without bias, padded by kernel // 2 on each side.

    Args:
      features: channels of what comes out.
      kernel: side of the kernel.
      stride: of both sides.
      dtype: type of the computation; parameters stay float32.
      in_parts: whether the gradient of the kernel is computed in parts of the batch on CPU; see `convolve`.
    """
    # He et al. 2015 (arXiv 1502.01852), fan-out: the usual choice for residual networks.
    kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=[(kernel // 2, kernel // 2)] * 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolve if in_parts else None,
    )


def batch_norm(train: bool, dtype: Any) -> partial[nn.BatchNorm]:
    """Batch normalisation whose moving averages keep 0.9 a step."""
    numbers: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5, "dtype": dtype, "param_dtype": jnp.float32}
    return partial(nn.BatchNorm, use_running_average=not train, **numbers)


class CosineClassifier(nn.Module):
    """Cosines `[N, C]` of features `[N, D]` with one direction for each class: in [-1, 1], no bias."""

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


def _unit(x, axis):
    """Vectors of length 1 along an axis; 0 stays 0, and the gradient there is finite."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(axis, keepdims=True), 1e-12))


def classifier_layer(kind: Classifier, num_classes: int, dtype: Any) -> nn.Module:
    """The last layer, from features `[N, D]` to logits `[N, C]`; its parameters are under "classifier".

    Args:
      kind: `linear`; or `cosine`, for LDAM (a softmax of cosines has to be scaled first); else `InputError`.
      num_classes: C.
      dtype: type of the computation; parameters stay float32.
    """
    check_known("classifier", kind, get_args(Classifier))
    layer = CosineClassifier if kind == "cosine" else nn.Dense
    return layer(num_classes, dtype=dtype, name="classifier")


class Classifying(nn.Module):
    """A network made of `_backbone(x, train)`, from inputs to features `[N, D]`, and a last layer.

    Attributes:
      num_classes: C.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
    """

    in_parts: ClassVar[bool] = False
    """Whether the gradients of kernels are computed in parts of the batch on CPU: what pays was measured."""

    num_classes: int
    classifier: Classifier = dataclasses.field(default="linear", kw_only=True)
    dtype: Any = dataclasses.field(default=jnp.float32, kw_only=True)

    @nn.compact
    def __call__(self, inputs, train: bool, features_only: bool = False):
        """Logits `[N, C]` of inputs `[N, ...]`, images `[N, H, W, channels]`, or the features of these."""
        features = self._backbone(inputs.astype(self.dtype), train)
        if features_only:
            return features
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(features)

    def _backbone(self, x, train):
        raise NotImplementedError

    def _conv(self, x, features, stride=1, kernel=3):
        return convolution(features, kernel, stride, dtype=self.dtype, in_parts=self.in_parts)(x)

    def _norm(self, x, train):
        return batch_norm(train, self.dtype)()(x)

    def _norm_relu(self, x, train):
        return nn.relu(self._norm(x, train))
