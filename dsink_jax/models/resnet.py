"""Residual networks for 32x32 images."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.models.layers import Classifier, batch_norm, classifier_layer, convolution


class CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. (arXiv 1512.03385, section 4.2): depth 6 * blocks + 2, widths 16, 32, 64.

    Shortcuts are without parameters (option A: subsampled, padded with zero channels).

    Attributes:
      num_classes: C.
      blocks: residual blocks a stage; 3 is ResNet-20, 5 is ResNet-32.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
    """

    num_classes: int
    blocks: int = 3
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool, features_only: bool = False):
        """Logits `[N, C]` of images `[N, H, W, channels]`, or the features `[N, D]` they are made from."""
        norm = batch_norm(train, self.dtype)
        x = images.astype(self.dtype)
        x = nn.relu(norm()(convolution(16, 3, dtype=self.dtype)(x)))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = x[:, ::stride, ::stride]
                extra = features - x.shape[-1]
                shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((extra // 2, extra - extra // 2),))
                y = nn.relu(norm()(convolution(features, 3, stride, dtype=self.dtype)(x)))
                y = norm()(convolution(features, 3, dtype=self.dtype)(y))
                x = nn.relu(y + shortcut)
        pooled = x.mean((1, 2))
        if features_only:
            return pooled
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(pooled)


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 (He et al., arXiv 1603.05027) with a stem for 32x32 images.

    The stem convolves, normalises and rectifies; widths 64, 128, 256, 512, two blocks each; shortcut
    convolutions have no normalisation.

    Attributes:
      num_classes: C.
      final_norm: whether the last block is followed by normalisation and ReLU, as in the paper. Public
        noisy-label code since DivideMix, TABASCO included, leaves them out.
      classifier: last layer, `linear` or `cosine`.
      dtype: type of the computation; parameters stay float32.
    """

    num_classes: int
    final_norm: bool = True
    classifier: Classifier = "linear"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool, features_only: bool = False):
        """Logits `[N, C]` of images `[N, H, W, channels]`, or the features `[N, D]` they are made from."""
        norm = batch_norm(train, self.dtype)
        x = images.astype(self.dtype)
        x = nn.relu(norm()(convolution(64, 3, dtype=self.dtype)(x)))
        for stage, features in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(x))
                if stride != 1 or x.shape[-1] != features:
                    x = convolution(features, 1, stride, dtype=self.dtype)(y)
                y = convolution(features, 3, stride, dtype=self.dtype)(y)
                y = convolution(features, 3, dtype=self.dtype)(nn.relu(norm()(y)))
                x = x + y
        if self.final_norm:
            x = nn.relu(norm()(x))
        features = x.mean((1, 2))
        if features_only:
            return features
        return classifier_layer(self.classifier, self.num_classes, self.dtype)(features)
