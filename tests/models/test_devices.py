"""Networks of one's own over one device and eight: the same numbers, dropout and statistics included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dsink_jax.errors import InputError
from dsink_jax.models import make_model, several
from own_networks import NNX, Linen, NestedNNX, Scanned, SharedMasks, alone, apply_pair, init_pair

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)


def some_inputs(*shape):
    """Parts of different mean, so that statistics of a part would show."""
    drawn = np.random.default_rng(2).normal(size=shape) + np.arange(shape[0]).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    return drawn.astype(np.float32)


def in_one(model, variables, inputs, key=KEY):
    return jax.jit(lambda v, x, k: model.apply(v, x, train=True, key=k))(variables, inputs, key)


def in_eight(model, variables, inputs, key=KEY):
    """Logits of all devices' rows, and the collections of each device."""

    def apply(variables, inputs, key):
        return model.apply(variables, inputs, train=True, key=key, axis_name="devices")

    split = inputs.reshape(8, -1, *inputs.shape[1:])
    logits, collections = jax.pmap(apply, "devices", in_axes=(None, 0, None))(variables, split, key)
    return np.concatenate(logits, axis=-2), collections


NETWORKS = {
    "linen": (Linen(), (16, 4)),
    "linen, more ways": (SharedMasks(), (16, 5, 4)),
    "linen, one row a device": (SharedMasks(), (8, 5, 4)),
    "linen, scanned": (Scanned(), (16, 5, 4)),
    "nnx": (NNX, (16, 4)),
    "nnx module": (NNX(rngs=nnx.Rngs(3)), (16, 4)),
    "nnx, more ways": (NestedNNX, (16, 5, 4)),
    "pair": ((init_pair, apply_pair), (16, 4)),
}


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_device_and_eight(name, networks):
    network, shape = NETWORKS[name]
    if name == "nnx module" and networks == 2:
        network = lambda num_classes, rngs: NNX(num_classes, rngs=rngs)  # noqa: E731
    model, inputs = make_model(network, 3, networks=networks), some_inputs(*shape)
    variables = model.init(jax.random.key(0), inputs[:1])
    expected, after = in_one(model, variables, inputs)
    assert np.isfinite(expected).all()
    logits, of_each = in_eight(model, variables, inputs)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    for parts, whole in zip(jax.tree.leaves(of_each), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(parts, np.repeat(parts[:1], 8, axis=0))
        np.testing.assert_allclose(parts[0], whole, rtol=1e-5, atol=1e-5)
    # The key makes the masks, and statistics are updated.
    other, _ = in_one(model, variables, inputs, jax.random.key(6))
    assert np.abs(other - np.asarray(expected)).max() > 1e-2
    before = {kind: tree for kind, tree in variables.items() if kind != "params"}
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for kind in before.keys() - {"others"}:  # state that is not trained stays
        for one, two in zip(jax.tree.leaves(before[kind]), jax.tree.leaves(after[kind]), strict=True):
            assert np.abs(np.asarray(one) - np.asarray(two)).max() > 1e-3


class OnlyDropout(nn.Module):
    """Its outputs are the inputs, dropped."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(0.25, deterministic=not train)(x)


class OnlyDropoutNNX(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x)


@pytest.mark.parametrize("network", [OnlyDropout(), OnlyDropoutNNX])
def test_masks_by_hand(network):
    model, ones = make_model(network, 64), np.ones((64, 64), np.float32)
    variables = model.init(jax.random.key(0), ones)
    assert variables == {"params": {}}
    logits, collections = in_eight(model, variables, ones)
    assert collections == {}
    np.testing.assert_allclose(np.unique(logits), [0, 1 / 0.75], rtol=1e-6)
    # 4,096 draws: within five standard deviations of the share; no device drops what another drops.
    assert abs((logits == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4096)
    assert len({part.tobytes() for part in np.split(logits, 8)}) == 8
    # In evaluation nothing is dropped, with a key or without; of two networks each draws its own.
    for key in (None, KEY):
        np.testing.assert_array_equal(model.apply(variables, ones, key=key)[0], ones)
    two = several(model, 2)
    both, _ = two.apply(two.init(KEY, ones), ones, train=True, key=KEY)
    assert (both[0] != both[1]).any()


def test_no_axis_is_the_module_itself():
    inputs, module = some_inputs(16, 4), Linen()
    model = make_model(module, 3)
    variables = model.init(jax.random.key(0), inputs)
    plain = module.init(jax.random.key(0), inputs, train=False)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)
    rngs = {"params": KEY, "dropout": jax.random.fold_in(KEY, 1)}
    expected, after = module.apply(plain, inputs, train=True, rngs=rngs, mutable=["batch_stats"])
    got = model.apply(variables, inputs, train=True, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, got, (expected, dict(after)))


def test_gradients_of_one_device_and_eight():
    inputs = some_inputs(16, 4)
    for network in (Linen(), NNX):
        model = make_model(network, 3)
        variables = model.init(jax.random.key(0), inputs)

        def loss(params, inputs, axis_name=None, model=model, variables=variables):
            logits, _ = model.apply(
                {**variables, "params": params}, inputs, train=True, key=KEY, axis_name=axis_name
            )
            return (logits**2).sum()

        def step(params, inputs, loss=loss):
            return jax.lax.psum(jax.grad(loss)(params, inputs, "devices"), "devices")

        expected = jax.jit(jax.grad(loss))(variables["params"], inputs)
        split = inputs.reshape(8, 2, 4)
        got = jax.pmap(step, "devices", in_axes=(None, 0), out_axes=None)(variables["params"], split)
        size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
        for one, eight in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(eight / size, one / size, rtol=0, atol=1e-5)


def test_a_pair_that_sees_only_its_part_is_refused():
    def init(key, inputs):
        return {"params": jnp.ones((4, 3)), "means": jnp.zeros(())}

    model, inputs = make_model((init, alone), 3), some_inputs(16, 4)
    variables = model.init(KEY, inputs)
    _, after = in_one(model, variables, inputs)
    np.testing.assert_allclose(after["means"], inputs.mean(), rtol=1e-5)
    with pytest.raises(InputError, match="sees only a part of the batch, and it draws"):
        in_eight(model, variables, inputs)
    # One that leaves them as they are may be mapped.
    still = make_model((init, lambda variables, inputs: inputs @ variables["params"]), 3)
    logits, after = in_eight(still, variables, inputs)
    np.testing.assert_allclose(logits, in_one(still, variables, inputs)[0], rtol=1e-5)


def test_random_layers_that_cannot_be_split_are_refused():
    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            layer = nn.MultiHeadDotProductAttention(1, dropout_rate=0.3, broadcast_dropout=False)
            return layer(x, deterministic=not train).mean(1)

    model, inputs = make_model(Attention(), 4), some_inputs(16, 5, 4)
    variables = model.init(KEY, inputs)
    in_one(model, variables, inputs)
    with pytest.raises(InputError, match="over several devices must have broadcast_dropout=True"):
        in_eight(model, variables, inputs)


def test_nnx_needs_a_key_to_draw():
    model, inputs = make_model(NNX, 3), some_inputs(16, 4)
    variables = model.init(KEY, inputs)
    with pytest.raises(InputError, match="has to be given a key"):
        model.apply(variables, inputs, train=True)
