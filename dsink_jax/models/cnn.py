"""A small convolutional network for 8x8 images."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.models.layers import Classifier, batch_norm, classifier_layer, convolution


class SmallCNN(nn.Module):
    """Two convolutions at full and two at half resolution, average pool, linear; 4,370 parameters.

    Attributes:
      num_classes: C.
      width: channels of the first two convolutions; the other two have twice as many.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
      axis_name: mapped axis over which batch statistics are shared.
    """

    num_classes: int
    width: int = 8
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train: bool, features_only: bool = False):
        """Logits `[N, C]` of images `[N, H, W, channels]`, or the features `[N, D]` they are made from."""
        norm = batch_norm(train, self.axis_name, self.dtype)
        x = images.astype(self.dtype)
        for features, stride in ((1, 1), (1, 1), (2, 2), (2, 1)):
            x = convolution(features * self.width, 3, stride, dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
        features = x.mean((1, 2))
        if features_only:
            return features
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(features)
