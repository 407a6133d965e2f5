import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dsink_jax.errors import InputError
from dsink_jax.models import (
    MODELS,
    CifarResNet,
    PreActResNet18,
    SmallCNN,
    build_model,
    check_model_name,
    from_linen,
)
from dsink_jax.models.layers import batch_norm, convolution
from model_references import (
    IMAGES,
    InNumPy,
    assert_evaluates_to,
    filled,
    num_parameters,
    option_a,
    shapes,
    some_images,
)


def resnet_parameters(blocks, classes):
    """Convolutions without bias, two numbers a channel for each normalisation, a linear layer."""
    count = 3 * 9 * 16 + 2 * 16
    width = 16
    for features in (16, 32, 64):
        for _ in range(blocks):
            count += width * 9 * features + features * 9 * features + 2 * 2 * features
            width = features
    return count + 64 * classes + classes


def preact_parameters(classes, final_norm):
    count = 3 * 9 * 64 + 2 * 64
    width = 64
    for features in (64, 128, 256, 512):
        for _ in range(2):
            count += 2 * width + width * 9 * features + 2 * features + features * 9 * features
            if width != features:
                count += width * features  # a shortcut of 1x1 and nothing else
            width = features
    return count + (2 * 512 if final_norm else 0) + 512 * classes + classes


@pytest.mark.parametrize(
    ("name", "blocks", "classes", "expected"),
    [
        ("resnet8", 1, 10, 75_290),
        ("resnet20", 3, 10, 269_722),  # the paper's 0.27 million
        ("resnet20", 3, 100, 275_572),
        ("resnet32", 5, 10, 464_154),  # the paper's 0.46 million
        ("resnet32", 5, 100, 470_004),
    ],
)
def test_parameters_of_resnets(name, blocks, classes, expected):
    assert resnet_parameters(blocks, classes) == expected
    assert num_parameters(build_model(name, classes)) == expected


@pytest.mark.parametrize(
    ("classes", "final_norm", "expected"),
    [(10, False, 11_171_274), (10, True, 11_172_298), (100, False, 11_217_444), (100, True, 11_218_468)],
)
def test_parameters_of_preact_resnet18(classes, final_norm, expected):
    assert preact_parameters(classes, final_norm) == expected
    assert num_parameters(build_model("preact_resnet18", classes, final_norm=final_norm)) == expected


def test_final_norm_is_there_by_default():
    assert num_parameters(build_model("preact_resnet18", 10)) == preact_parameters(10, final_norm=True)


def small_cnn_parameters(width, channels, classes):
    convolutions = 9 * width * (channels + width + 2 * width + 4 * width)
    return convolutions + 2 * 6 * width + 2 * width * classes + classes


@pytest.mark.parametrize(
    ("width", "channels", "classes", "expected"), [(8, 1, 10, 4_370), (32, 3, 10, 66_410), (5, 3, 7, 1_847)]
)
def test_parameters_of_small_cnn(width, channels, classes, expected):
    assert small_cnn_parameters(width, channels, classes) == expected
    model = from_linen(functools.partial(SmallCNN, classes, width))
    images = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32)
    assert num_parameters(model, images) == expected
    by_name = build_model("small_cnn", classes)
    assert num_parameters(by_name, images) == small_cnn_parameters(SmallCNN.width, channels, classes)


def test_preact_normalisations_and_shortcuts():
    params = shapes(build_model("preact_resnet18", 10, final_norm=False))["params"]
    kernels = [layer["kernel"].shape for name, layer in params.items() if name.startswith("Conv")]
    assert sorted(shape for shape in kernels if shape[0] == 1) == [
        (1, 1, 64, 128),
        (1, 1, 128, 256),
        (1, 1, 256, 512),
    ]
    assert len(kernels) == 1 + 16 + 3
    # One for the stem and two a block: none for the three shortcuts, none at the end.
    norms = [name for name in params if name.startswith("BatchNorm")]
    assert len(norms) == 1 + 16
    assert all("bias" not in layer for name, layer in params.items() if name.startswith("Conv"))


def layer_shapes(module, images=IMAGES):
    """Output shape of every layer."""

    def run(variables, x):
        return module.apply(variables, x, train=False, capture_intermediates=True, mutable="intermediates")

    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    _, state = jax.eval_shape(run, variables, images)
    flat = traverse_util.flatten_dict(state["intermediates"])
    return {path[0]: outputs[0].shape for path, outputs in flat.items() if len(path) == 2}


def test_preact_stages():
    layers = layer_shapes(PreActResNet18(10))
    of_conv = [layers[f"Conv_{i}"][1:] for i in range(20)]
    stages = [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]
    # The stem, two blocks of two convolutions a stage, and a shortcut in all but the first.
    assert of_conv == [stages[0]] * 5 + [stages[1]] * 5 + [stages[2]] * 5 + [stages[3]] * 5
    # A block's first normalisation sees what comes in, at the size and width of the block before.
    of_norm = [layers[f"BatchNorm_{i}"][1:] for i in range(18)]
    expected = [stages[0]]  # stem
    before = stages[0]
    for stage in stages:
        expected += [before, stage, stage, stage]
        before = stage
    assert of_norm == [*expected, stages[3]]  # and the final one
    assert layers["Dense_0"] == (2, 10)


@pytest.mark.parametrize(("blocks", "depth"), [(1, 8), (3, 20), (5, 32)])
def test_resnet_stages(blocks, depth):
    layers = layer_shapes(CifarResNet(10, blocks))
    of_conv = [layers[f"Conv_{i}"][1:] for i in range(6 * blocks + 1)]
    stages = [(32, 32, 16), (16, 16, 32), (8, 8, 64)]
    assert of_conv == [stages[0]] * (2 * blocks + 1) + [stages[1]] * 2 * blocks + [stages[2]] * 2 * blocks
    # Convolutions and the linear layer make the depth; shortcuts have none.
    assert len([name for name in layers if not name.startswith("BatchNorm")]) == depth


def test_small_cnn_stages():
    layers = layer_shapes(SmallCNN(10, width=6), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
    assert [layers[f"Conv_{i}"][1:] for i in range(4)] == [(8, 8, 6), (8, 8, 6), (4, 4, 12), (4, 4, 12)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("compute_dtype", "size", "channels", "classes"), [("float32", 32, 3, 100), ("bfloat16", 8, 1, 10)]
)
def test_outputs_of_every_model(name, compute_dtype, size, channels, classes):
    model = build_model(name, classes, compute_dtype=compute_dtype)
    images = jax.ShapeDtypeStruct((5, size, size, channels), jnp.float32)
    variables = shapes(model, images)
    assert set(variables) == {"params", "batch_stats"}
    # Whatever it computes in, what it keeps and what it returns is float32.
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    for train in (False, True):
        logits, batch_stats = jax.eval_shape(functools.partial(model.apply, train=train), variables, images)
        assert (logits.shape, logits.dtype) == ((5, classes), jnp.float32)
        assert batch_stats == variables["batch_stats"]  # the same shapes and types


def test_resnet_in_numpy():
    blocks = 2  # the first of a stage may have another stride and width, the second not
    model = from_linen(functools.partial(CifarResNet, 4, blocks))
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
        jax.jit(model.apply, static_argnums=2)(variables, images, train) for model in (single, half)
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
    apply = jax.jit(model.apply, static_argnums=2)
    evaluated, same = apply(variables, images, False)
    trained, updated = apply(variables, images, True)
    for before, after in zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated), strict=True
    ):
        assert (np.asarray(before) != np.asarray(after)).all()
    # In training an image is normalised by its batch, in evaluation by the moving averages alone.
    assert np.abs(np.asarray(evaluated - trained)).max() > 0.01
    halves = np.concatenate([apply(variables, half, False)[0] for half in np.split(images, 2)])
    np.testing.assert_allclose(halves, evaluated, rtol=1e-4, atol=1e-5)
    halves = np.concatenate([apply(variables, half, True)[0] for half in np.split(images, 2)])
    assert np.abs(halves - np.asarray(trained)).max() > 0.01


class OneNorm(nn.Module):
    """A batch normalisation and nothing else; its outputs are the logits."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train):
        return batch_norm(train, self.axis_name, jnp.float32)()(images).mean((1, 2))


def test_batch_normalisation_by_hand():
    model = from_linen(OneNorm)
    images = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)  # mean 4, variance 5
    variables = model.init(jax.random.key(0), images)
    scaled = {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}
    variables = {
        "params": {"BatchNorm_0": scaled},
        "batch_stats": {"BatchNorm_0": {"mean": jnp.array([10.0]), "var": jnp.array([4.0])}},
    } | {name: variables[name] for name in set(variables) - {"params", "batch_stats"}}
    logits, stats = model.apply(variables, images, True)
    np.testing.assert_allclose(
        logits[:, 0], 1 + 2 * (np.array([1, 3, 5, 7]) - 4) / np.sqrt(5 + 1e-5), rtol=1e-5
    )
    # A step keeps 0.9: 0.9 * 10 + 0.1 * 4 and 0.9 * 4 + 0.1 * 5.
    np.testing.assert_allclose(stats["BatchNorm_0"]["mean"], [9.4], rtol=1e-6)
    np.testing.assert_allclose(stats["BatchNorm_0"]["var"], [4.1], rtol=1e-6)
    logits, stats = model.apply(variables, images, False)
    np.testing.assert_allclose(
        logits[:, 0], 1 + 2 * (np.array([1, 3, 5, 7]) - 10) / np.sqrt(4 + 1e-5), rtol=1e-5
    )
    np.testing.assert_array_equal(stats["BatchNorm_0"]["mean"], [10.0])


def test_initial_normalisation_does_nothing():
    model = from_linen(OneNorm)
    variables = model.init(jax.random.key(0), jnp.ones((2, 1, 1, 3)))
    assert set(variables) == {"params", "batch_stats"}
    np.testing.assert_array_equal(variables["batch_stats"]["BatchNorm_0"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["BatchNorm_0"]["var"], np.ones(3))


def mapped(how, model, variables, images):
    """Training mode with the batch split eight ways: logits of the whole, statistics of each part."""
    split = images.reshape(8, -1, *images.shape[1:])

    def apply(v, x):
        return model.apply(v, x, True)

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
    many = build_model("small_cnn", 10, axis_name="devices")
    variables = filled(one, images)
    expected, expected_stats = jax.jit(one.apply, static_argnums=2)(variables, images, True)
    logits, stats = mapped(how, many, variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    for parts, whole in zip(jax.tree.leaves(stats), jax.tree.leaves(expected_stats), strict=True):
        np.testing.assert_array_equal(parts, np.repeat(parts[:1], 8, axis=0))  # equal on all devices
        np.testing.assert_allclose(parts[0], whole, rtol=1e-4, atol=1e-5)
    # Without the axis each part goes its own way.
    apart, apart_stats = mapped(how, one, variables, images)
    assert np.abs(apart - np.asarray(expected)).max() > 0.1
    assert any((leaf != leaf[:1]).any() for leaf in jax.tree.leaves(apart_stats))


def test_evaluation_needs_no_axis():
    images = some_images(4)
    many = build_model("small_cnn", 10, axis_name="devices")
    variables = filled(many, images)
    one = build_model("small_cnn", 10)
    logits, expected = (
        jax.jit(model.apply, static_argnums=2)(variables, images, False)[0] for model in (many, one)
    )
    np.testing.assert_array_equal(logits, expected)


class OneConvolution(nn.Module):
    """A convolution and a normalisation: the smallest network of all the parts."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train):
        x = convolution(32, 3, dtype=jnp.float32)(images)
        return batch_norm(train, self.axis_name, jnp.float32)()(x).mean((1, 2))


def test_initial_variables_depend_on_the_key_alone():
    images = jnp.ones((1, 4, 4, 16))
    one = from_linen(OneConvolution).init(jax.random.key(0), images)
    axis = from_linen(OneConvolution, axis_name="devices").init(jax.random.key(0), images)
    other = from_linen(OneConvolution).init(jax.random.key(1), 2 * images)
    jax.tree.map(np.testing.assert_array_equal, one, axis)
    kernels = [np.asarray(variables["params"]["Conv_0"]["kernel"]) for variables in (one, other)]
    assert (kernels[0] != kernels[1]).all()
    # He: variance 2 / fan-out, 9 * 32 here; that of 4,608 normals is within five times sqrt(2 / 4608).
    for kernel in kernels:
        assert kernel.shape == (3, 3, 16, 32)
        assert abs(np.var(kernel) * 9 * 32 / 2 - 1) < 5 * np.sqrt(2 / 4608)


def test_initialisation_needs_no_axis():
    class Averaging(nn.Module):
        axis_name: str | None = None

        @nn.compact
        def __call__(self, images, train):
            x = nn.Dense(2)(images.mean((1, 2)))
            return x if self.axis_name is None else jax.lax.pmean(x, self.axis_name)

    model = from_linen(Averaging, axis_name="devices")
    assert shapes(model)["params"]["Dense_0"]["kernel"].shape == (3, 2)
    with pytest.raises(NameError, match="unbound axis name"):
        jax.eval_shape(functools.partial(model.apply, train=False), shapes(model), IMAGES)


def test_module_without_statistics():
    class Linear(nn.Module):
        axis_name: str | None = None

        @nn.compact
        def __call__(self, images, train):
            return nn.Dense(2, dtype=jnp.bfloat16)(images.reshape(len(images), -1))

    model = from_linen(Linear, axis_name="devices")
    variables = model.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)))
    assert set(variables) == {"params"}
    for train in (False, True):
        logits, stats = model.apply(variables, jnp.ones((3, 2, 2, 1)), train)
        assert (logits.shape, logits.dtype, stats) == ((3, 2), jnp.float32, {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "Unknown model 'resnet18'. Did you mean 'resnet8'\\?"),
        ("resnet-20", "Did you mean 'resnet20'\\?"),
        ("ResNet32", "Did you mean 'resnet32'\\?"),
        ("preactresnet18", "Did you mean 'preact_resnet18'\\?"),
        ("", "Unknown model ''. Known models: small_cnn, resnet8, resnet20, resnet32, preact_resnet18."),
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
