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


def small_cnn_parameters(width, channels, classes):
    convolutions = 9 * width * (channels + width + 2 * width + 4 * width)
    return convolutions + 2 * 6 * width + 2 * width * classes + classes


GREY, COLOUR = (jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32) for channels in (1, 3))


@pytest.mark.parametrize(
    ("model", "images", "by_hand", "expected"),
    [
        (build_model("resnet8", 10), IMAGES, resnet_parameters(1, 10), 75_290),
        (build_model("resnet20", 10), IMAGES, resnet_parameters(3, 10), 269_722),  # the paper's 0.27 million
        (build_model("resnet32", 10), IMAGES, resnet_parameters(5, 10), 464_154),  # the paper's 0.46 million
        (build_model("resnet32", 100), IMAGES, resnet_parameters(5, 100), 470_004),
        (
            build_model("preact_resnet18", 10, final_norm=False),
            IMAGES,
            preact_parameters(10, False),
            11_171_274,
        ),
        (build_model("preact_resnet18", 100), IMAGES, preact_parameters(100, True), 11_218_468),
        (build_model("small_cnn", 10), GREY, small_cnn_parameters(8, 1, 10), 4_370),
        (from_linen(SmallCNN(7, 5)), COLOUR, small_cnn_parameters(5, 3, 7), 1_847),
    ],
)
def test_number_of_parameters(model, images, by_hand, expected):
    assert num_parameters(model, images) == by_hand == expected


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
