"""Networks for vectors, such as the features of a frozen encoder: linear, or with hidden layers."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.models.layers import Classifier, classifier_layer


class MLP(nn.Module):
    """Dense layers with ReLU, then linear; with no hidden layer, logistic regression.

    Inputs of more axes are flattened, so images will do too, and vectors `[N, D]` may come as images of one
    pixel, `[N, 1, 1, D]`.

    Attributes:
      num_classes: C.
      widths: units of each hidden layer.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
    """

    num_classes: int
    widths: tuple[int, ...] = ()
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs, train: bool, features_only: bool = False):
        """Logits `[N, C]` of inputs `[N, ...]`, or the features `[N, D]` they are made from."""
        del train
        x = inputs.reshape(len(inputs), -1).astype(self.dtype)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x))
        if features_only:
            return x
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(x)
