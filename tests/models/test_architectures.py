"""Parameters, stages and layers of the networks, by hand."""

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from dsink_jax.models import (
    CifarResNet,
    PreActResNet18,
    SmallCNN,
    build_model,
    from_linen,
)
from model_references import (
    IMAGES,
    num_parameters,
    shapes,
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
    model = from_linen(SmallCNN(classes, width))
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
    assert layers["classifier"] == (2, 10)


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
