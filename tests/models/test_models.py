import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.errors import InputError
from dsink_jax.models import (
    MLP,
    MODELS,
    CifarResNet,
    build_model,
    check_model_name,
    from_linen,
)
from dsink_jax.models.layers import batch_norm, convolution
from model_references import (
    InNumPy,
    assert_evaluates_to,
    filled,
    option_a,
    shapes,
    some_images,
)


def test_a_network_of_one_kind_is_one_object():
    """So that what is compiled for it once serves every training."""
    made = build_model("small_cnn", 7)
    assert build_model("small_cnn", 7) is made
    others = [build_model("small_cnn", 8), build_model("small_cnn", 7, compute_dtype="bfloat16")]
    assert made not in others and len({id(one.init) for one in (made, *others)}) == 3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("compute_dtype", "size", "channels", "classes"), [("float32", 32, 3, 100), ("bfloat16", 8, 1, 10)]
)
def test_outputs_of_every_model(name, compute_dtype, size, channels, classes):
    model = build_model(name, classes, compute_dtype=compute_dtype)
    images = jax.ShapeDtypeStruct((5, size, size, channels), jnp.float32)
    variables = shapes(model, images)
    normalises = name not in ("linear", "mlp")
    assert set(variables) == ({"params", "batch_stats"} if normalises else {"params"})
    # Whatever it computes in, what it keeps and what it returns is float32.
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    for train in (False, True):
        logits, collections = jax.eval_shape(functools.partial(model.apply, train=train), variables, images)
        assert (logits.shape, logits.dtype) == ((5, classes), jnp.float32)
        assert {"params": variables["params"], **collections} == variables  # the same shapes and types


def test_mlp_in_numpy():
    model = from_linen(MLP(3, widths=(5, 4)))
    vectors = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
    variables = filled(model, vectors)
    x = vectors.astype(np.float64)
    for name in ("Dense_0", "Dense_1"):
        layer = variables["params"][name]
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    last = variables["params"]["classifier"]
    expected = x @ last["kernel"] + last["bias"]
    for inputs in (vectors, vectors[:, None, None, :]):  # vectors, and images of one pixel
        logits, _ = model.apply(variables, inputs)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_resnet_in_numpy():
    blocks = 2  # the first of a stage may have another stride and width, the second not
    model = from_linen(CifarResNet(4, blocks))
    images = some_images(3, size=8)
    variables = filled(model, images)
    net = InNumPy(variables)
    x = net.norm_relu(net.conv(images.astype(np.float64)))
    for features in (16, 32, 64):
        for _ in range(blocks):
            smaller = features != x.shape[-1]
            y = net.norm(net.conv(net.norm_relu(net.conv(x, 2 if smaller else 1))))
            x = np.maximum(y + (option_a(x, features) if smaller else x), 0)
    assert_evaluates_to(net.linear(x), model, variables, images)


@pytest.mark.parametrize("final_norm", [False, True])
def test_preact_resnet18_in_numpy(final_norm):
    model = build_model("preact_resnet18", 3, final_norm=final_norm)
    images = some_images(2, size=8)
    variables = filled(model, images)
    net = InNumPy(variables)
    x = net.norm_relu(net.conv(images.astype(np.float64)))
    for features in (64, 128, 256, 512):
        for _ in range(2):
            smaller = features != x.shape[-1]
            y = net.norm_relu(x)
            # The shortcut of a wider block starts from the normalised input, of the others from the input.
            shortcut = net.conv(y, 2) if smaller else x
            x = shortcut + net.conv(net.norm_relu(net.conv(y, 2 if smaller else 1)))
    assert_evaluates_to(net.linear(net.norm_relu(x) if final_norm else x), model, variables, images)


def test_small_cnn_in_numpy():
    model = build_model("small_cnn", 5)
    images = some_images(3, size=8, channels=1)
    variables = filled(model, images)
    net = InNumPy(variables)
    x = images.astype(np.float64)
    for stride in (1, 1, 2, 1):
        x = net.norm_relu(net.conv(x, stride))
    assert_evaluates_to(net.linear(x), model, variables, images)


def test_convolution_pads_on_both_sides():
    # A 3x3 kernel of ones with padding 1 and stride 2 sums windows around pixels 0 and 2 of 4.
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    layer = convolution(1, 3, 2, dtype=jnp.float32)
    result = layer.apply({"params": {"kernel": jnp.ones((3, 3, 1, 1))}}, image)
    # Corner: 0+1+4+5; top: 1+2+3+5+6+7; left: 4+5+8+9+12+13; middle: 5+6+7+9+10+11+13+14+15.
    np.testing.assert_array_equal(result[0, :, :, 0], [[10, 24], [51, 90]])


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_stays_near_float32(train):
    images = some_images()
    single, half = (build_model("small_cnn", 10, compute_dtype=name) for name in ("float32", "bfloat16"))
    variables = filled(single, images)
    (exact, exact_stats), (rounded, rounded_stats) = (
        jax.jit(model.apply, static_argnames="train")(variables, images, train=train)
        for model in (single, half)
    )
    assert rounded.dtype == jnp.float32
    error = np.abs(np.asarray(exact - rounded)).max() / np.abs(np.asarray(exact)).max()
    # A bfloat16 has 8 bits: some roundings of 2^-8 each. Not a single one would mean float32 all along.
    assert 0 < error < 8 * 2**-8
    for one, two in zip(jax.tree.leaves(exact_stats), jax.tree.leaves(rounded_stats), strict=True):
        assert two.dtype == jnp.float32
        np.testing.assert_allclose(one, two, atol=0.05)


def test_moving_averages_change_in_training_only():
    model = build_model("small_cnn", 10)
    images = some_images()
    variables = filled(model, images)
    apply = jax.jit(model.apply, static_argnames="train")
    evaluated, same = apply(variables, images, train=False)
    trained, updated = apply(variables, images, train=True)
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(same["batch_stats"]), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated["batch_stats"]), strict=True
    ):
        assert (np.asarray(before) != np.asarray(after)).all()
    # In training an image is normalised by its batch, in evaluation by the moving averages alone.
    assert np.abs(np.asarray(evaluated - trained)).max() > 0.01
    halves = np.concatenate([apply(variables, half, train=False)[0] for half in np.split(images, 2)])
    np.testing.assert_allclose(halves, evaluated, rtol=1e-4, atol=1e-5)
    halves = np.concatenate([apply(variables, half, train=True)[0] for half in np.split(images, 2)])
    assert np.abs(halves - np.asarray(trained)).max() > 0.01


class OneNorm(nn.Module):
    """A batch normalisation and nothing else; its outputs are the logits."""

    @nn.compact
    def __call__(self, images, train):
        return batch_norm(train, jnp.float32)()(images).mean((1, 2))


def test_batch_normalisation_by_hand():
    model = from_linen(OneNorm())
    images = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)  # mean 4, variance 5
    variables = model.init(jax.random.key(0), images)
    scaled = {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}
    variables = {
        "params": {"BatchNorm_0": scaled},
        "batch_stats": {"BatchNorm_0": {"mean": jnp.array([10.0]), "var": jnp.array([4.0])}},
    } | {name: variables[name] for name in set(variables) - {"params", "batch_stats"}}
    logits, stats = model.apply(variables, images, train=True)
    np.testing.assert_allclose(
        logits[:, 0], 1 + 2 * (np.array([1, 3, 5, 7]) - 4) / np.sqrt(5 + 1e-5), rtol=1e-5
    )
    # A step keeps 0.9: 0.9 * 10 + 0.1 * 4 and 0.9 * 4 + 0.1 * 5.
    np.testing.assert_allclose(stats["batch_stats"]["BatchNorm_0"]["mean"], [9.4], rtol=1e-6)
    np.testing.assert_allclose(stats["batch_stats"]["BatchNorm_0"]["var"], [4.1], rtol=1e-6)
    logits, stats = model.apply(variables, images, train=False)
    np.testing.assert_allclose(
        logits[:, 0], 1 + 2 * (np.array([1, 3, 5, 7]) - 10) / np.sqrt(4 + 1e-5), rtol=1e-5
    )
    np.testing.assert_array_equal(stats["batch_stats"]["BatchNorm_0"]["mean"], [10.0])


def mapped(how, model, variables, images, axis_name):
    """Training mode with the batch split eight ways: logits of the whole, statistics of each part."""
    split = images.reshape(8, -1, *images.shape[1:])

    def apply(v, x):
        return model.apply(v, x, train=True, axis_name=axis_name)

    if how == "pmap":
        step = jax.pmap(apply, axis_name="devices", in_axes=(None, 0))
    else:
        step = jax.jit(jax.vmap(apply, axis_name="devices", in_axes=(None, 0)))
    logits, stats = step(variables, split)
    return np.asarray(logits).reshape(len(images), -1), jax.tree.map(np.asarray, stats)


@pytest.mark.parametrize("how", ["vmap", "pmap"])
def test_statistics_are_those_of_the_whole_batch(how):
    # Parts of different mean and spread, so that statistics of a part would show.
    images = some_images(16) * np.repeat([1, 2, 3, 4, 1, 2, 3, 4], 2)[:, None, None, None]
    images = images.astype(np.float32) + np.repeat(np.arange(8), 2)[:, None, None, None].astype(np.float32)
    one = build_model("small_cnn", 10)
    variables = filled(one, images)
    expected, expected_stats = jax.jit(one.apply, static_argnames="train")(variables, images, train=True)
    logits, stats = mapped(how, one, variables, images, "devices")
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    for parts, whole in zip(jax.tree.leaves(stats), jax.tree.leaves(expected_stats), strict=True):
        np.testing.assert_array_equal(parts, np.repeat(parts[:1], 8, axis=0))  # equal on all devices
        np.testing.assert_allclose(parts[0], whole, rtol=1e-4, atol=1e-5)
    # Without the axis each part goes its own way.
    apart, apart_stats = mapped(how, one, variables, images, None)
    assert np.abs(apart - np.asarray(expected)).max() > 0.1
    assert any((leaf != leaf[:1]).any() for leaf in jax.tree.leaves(apart_stats))


class OneConvolution(nn.Module):
    """A convolution and a normalisation: the smallest network of all the parts."""

    @nn.compact
    def __call__(self, images, train):
        x = convolution(32, 3, dtype=jnp.float32)(images)
        return batch_norm(train, jnp.float32)()(x).mean((1, 2))


def test_initial_variables_depend_on_the_key_alone():
    images = jnp.ones((1, 4, 4, 16))
    one = from_linen(OneConvolution()).init(jax.random.key(0), images)
    other = from_linen(OneConvolution()).init(jax.random.key(1), 2 * images)
    again = from_linen(OneConvolution()).init(jax.random.key(0), 3 * images)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    kernels = [np.asarray(variables["params"]["Conv_0"]["kernel"]) for variables in (one, other)]
    assert (kernels[0] != kernels[1]).all()
    # He: variance 2 / fan-out, 9 * 32 here; that of 4,608 normals is within five times sqrt(2 / 4608).
    for kernel in kernels:
        assert kernel.shape == (3, 3, 16, 32)
        assert abs(np.var(kernel) * 9 * 32 / 2 - 1) < 5 * np.sqrt(2 / 4608)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "Unknown model 'resnet18'. Did you mean 'resnet8'\\?"),
        ("resnet-20", "Did you mean 'resnet20'\\?"),
        ("ResNet32", "Did you mean 'resnet32'\\?"),
        ("preactresnet18", "Did you mean 'preact_resnet18'\\?"),
        ("", "Unknown model ''. Known models: small_cnn, medium_cnn, wide_cnn, resnet8, resnet20"),
        ("vit", "Unknown model 'vit'. Known models"),
    ],
)
def test_unknown_names_are_refused(name, words):
    for refuse in (check_model_name, lambda name: build_model(name, 10)):
        with pytest.raises(InputError, match=words):
            refuse(name)


def test_unknown_compute_type_is_refused():
    with pytest.raises(
        InputError, match=r"Unknown compute type 'float16'\. Known types: float32, bfloat16\."
    ):
        build_model("resnet20", 10, compute_dtype="float16")
