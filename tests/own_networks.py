"""One small network written in four ways: dropout, batch normalisation, a layer called classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

FEATURES = 6


class Linen(nn.Module):
    """It knows no devices."""

    num_classes: int = 3
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train, features_only=False):
        x = nn.Dense(FEATURES)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
        return x if features_only else nn.Dense(self.num_classes, name="classifier")(x)


class SharedMasks(nn.Module):
    """Every way to call a dropout layer: masks for sequences, over time, of a weight, in a subclass."""

    @nn.compact
    def __call__(self, x, deterministic):  # [n, T, D]
        class Twice(nn.Dropout):
            @nn.compact
            def __call__(self, inputs):
                return 2 * super().__call__(inputs)

        x = nn.Dropout(0.5, broadcast_dims=(1,))(x, deterministic=deterministic)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (x.shape[-1], 5))
        kernel = nn.Dropout(0.3)(kernel, deterministic)  # the same on all devices
        x = nn.remat(Twice)(0.2, deterministic=deterministic)(x @ kernel)
        x = jnp.swapaxes(x, 0, 1)
        x = nn.Dropout(0.5)(x, deterministic=deterministic)  # [T, n, D]
        x = jnp.swapaxes(x, 0, 1)
        if not deterministic:
            x = nn.Dropout(0.5)(x, deterministic=False, rng=jax.random.fold_in(self.make_rng("noise"), 7))
        x = nn.MultiHeadDotProductAttention(1, dropout_rate=0.3, deterministic=deterministic)(x)
        return nn.Dense(3)(x.mean(1))


class _Block(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, _):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(4)(x))
        return nn.Dropout(0.4, deterministic=not self.train)(nn.relu(x)), None


class Scanned(nn.Module):
    """Layers in a loop, computed again for their gradients; and one that asks for the axis itself."""

    @nn.compact
    def __call__(self, x, train, axis_name=None):
        kinds = {"params": 0, "batch_stats": 0}
        rngs = {"params": True, "dropout": True}
        layers = nn.scan(nn.remat(_Block), variable_axes=kinds, split_rngs=rngs, length=3)
        x, _ = layers(train)(x, None)
        mean = x.mean(0)
        if axis_name is not None:
            mean = jax.lax.pmean(mean, axis_name)
        return nn.Dense(3)((x - mean).mean(1))


class NNX(nnx.Module):
    """It knows none either."""

    def __init__(self, num_classes=3, size=4, rate=0.5, *, rngs):
        self.hidden = nnx.List([nnx.Linear(size, FEATURES, rngs=rngs)])
        self.norm = nnx.BatchNorm(FEATURES, momentum=0.8, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.classifier = nnx.Linear(FEATURES, num_classes, rngs=rngs)

    def __call__(self, x, features_only=False):
        x = self.hidden[0](x.reshape(len(x), -1))
        x = self.dropout(nnx.relu(self.norm(x)))
        return x if features_only else self.classifier(x)


class NestedNNX(nnx.Module):
    """Layers that are computed again for their gradients, attention, state that is not trained."""

    def __init__(self, *, rngs):
        self.block = nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, dropout_rate=0.3, decode=False, rngs=rngs)
        self.classifier = nnx.Linear(8, 3, rngs=rngs)
        self.shift = nnx.Variable(jnp.arange(8.0))

    def __call__(self, x):  # [n, T, D]
        x = nnx.remat(lambda block, x: block(x))(self.block, x)
        return self.classifier(self.attention(self.norm(x) + self.shift[...]).mean(1))


def init_pair(key, inputs):
    one, two = jax.random.split(key)
    layers = {
        "hidden": jax.random.normal(one, (inputs.shape[-1], FEATURES)),
        "classifier": {"kernel": jax.random.normal(two, (FEATURES, 3))},
    }
    return {"params": layers, "means": {"hidden": jnp.zeros(FEATURES)}}


def apply_pair(variables, inputs, train, key=None, axis_name=None):
    """Features less their mean, and dropout whose mask is cut out of the whole batch's."""
    params, mean = variables["params"], variables["means"]["hidden"]
    x = jnp.tanh(inputs @ params["hidden"])
    if train:
        now = x.mean(0)
        rows, first = len(x), 0
        if axis_name is not None:
            now = jax.lax.pmean(now, axis_name)
            rows *= jax.lax.axis_size(axis_name)
            first = jax.lax.axis_index(axis_name) * len(x)
        mask = jax.random.bernoulli(key, 0.5, (rows, FEATURES))
        mask = jax.lax.dynamic_slice_in_dim(mask, first, len(x))
        x = jnp.where(mask, x - now, 0)
        mean = 0.8 * mean + 0.2 * now
    else:
        x = x - mean
    return x @ params["classifier"]["kernel"], {"means": {"hidden": mean}}


def alone(variables, inputs, train):
    """A pair that would see only its own device's part of the batch."""
    mean = inputs.mean() if train else variables["means"]
    return (inputs - mean) @ variables["params"], {"means": mean}
