"""The networks by name: for vectors, for 8x8 images and for 32x32 images."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from dsink_jax.models.layers import Classifying


class MLP(Classifying):
    """Dense layers of `widths` units with ReLU, then linear; with none of them, logistic regression.

    Inputs of more axes are flattened, so images will do too, and vectors `[N, D]` may come as images of one
    pixel, `[N, 1, 1, D]`.
    """

    widths: tuple[int, ...] = ()

    def _backbone(self, x, train):
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x))
        return x


class SmallCNN(Classifying):
    """Two convolutions of `width` channels, two of twice as many at half resolution, average pool, linear."""

    width: int = 8

    def _backbone(self, x, train):
        for features, stride in ((1, 1), (1, 1), (2, 2), (2, 1)):
            x = self._norm_relu(self._conv(x, features * self.width, stride), train)
        return x.mean((1, 2))


class WideCNN(Classifying):
    """Four wide convolutions, three of them halving the resolution, average pool, linear; 964,170 parameters.

    For 32x32 images on a machine without accelerator: a step takes less time than ResNet-8's, and there are
    parameters enough to memorise wrong labels. `widths` are the channels.
    """

    widths: tuple[int, int, int, int] = (64, 128, 256, 256)

    def _backbone(self, x, train):
        for features, stride in zip(self.widths, (2, 2, 2, 1), strict=True):
            x = self._norm_relu(self._conv(x, features, stride), train)
        return x.mean((1, 2))


class CifarResNet(Classifying):
    """The CIFAR ResNet of He et al. (arXiv 1512.03385, section 4.2): depth 6 * blocks + 2, widths 16, 32, 64.

    Shortcuts are without parameters (option A: subsampled, padded with zero channels). `blocks` are those of
    a stage: 3 is ResNet-20, 5 is ResNet-32.
    """

    in_parts: ClassVar[bool] = True
    blocks: int = 3

    def _backbone(self, x, train):
        x = self._norm_relu(self._conv(x, 16), train)
        for stage, features in enumerate((16, 32, 64)):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = x[:, ::stride, ::stride]
                extra = features - x.shape[-1]
                shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((extra // 2, extra - extra // 2),))
                y = self._norm_relu(self._conv(x, features, stride), train)
                x = nn.relu(self._norm(self._conv(y, features), train) + shortcut)
        return x.mean((1, 2))


class PreActResNet18(Classifying):
    """Pre-activation ResNet-18 (He et al., arXiv 1603.05027) with a stem for 32x32 images.

    The stem convolves, normalises and rectifies; widths 64, 128, 256, 512, two blocks each; shortcut
    convolutions have no normalisation. `final_norm` has the last block followed by normalisation and ReLU, as
    in the paper; public noisy-label code since DivideMix, TABASCO included, leaves them out.
    """

    in_parts: ClassVar[bool] = True
    final_norm: bool = True

    def _backbone(self, x, train):
        x = self._norm_relu(self._conv(x, 64), train)
        for stage, features in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                y = self._norm_relu(x, train)
                if stride != 1 or x.shape[-1] != features:
                    x = self._conv(y, features, stride, kernel=1)
                y = self._conv(y, features, stride)
                x = x + self._conv(self._norm_relu(y, train), features)
        if self.final_norm:
            x = self._norm_relu(x, train)
        return x.mean((1, 2))
