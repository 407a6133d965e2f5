"""Plain convolutional networks: a small one for 8x8 images, a wide one for 32x32."""

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
    """

    num_classes: int
    width: int = 8
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool, features_only: bool = False):
        """Logits `[N, C]` of images `[N, H, W, channels]`, or the features `[N, D]` they are made from."""
        norm = batch_norm(train, self.dtype)
        x = images.astype(self.dtype)
        for features, stride in ((1, 1), (1, 1), (2, 2), (2, 1)):
            x = convolution(features * self.width, 3, stride, dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
        features = x.mean((1, 2))
        if features_only:
            return features
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(features)


class WideCNN(nn.Module):
    """Four wide convolutions, three of them halving the resolution, average pool, linear; 964,170 parameters.

    For 32x32 images on a machine without accelerator: a step takes less time than ResNet-8's, and there are
    parameters enough to memorise wrong labels.

    Attributes:
      num_classes: C.
      widths: channels of the convolutions.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
    """

    num_classes: int
    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool, features_only: bool = False):
        """Logits `[N, C]` of images `[N, H, W, channels]`, or the features `[N, D]` they are made from."""
        norm = batch_norm(train, self.dtype)
        x = images.astype(self.dtype)
        for features, stride in zip(self.widths, (2, 2, 2, 1), strict=True):
            x = nn.relu(norm()(convolution(features, 3, stride, dtype=self.dtype)(x)))
        features = x.mean((1, 2))
        if features_only:
            return features
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(features)
