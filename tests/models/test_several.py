"""Several networks in one model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.models import build_model, from_linen, several
from model_references import filled, shapes, some_images

ONE = build_model("small_cnn", 5)
TWO = several(ONE, 2)
IMAGES = some_images(8)
apply_one = jax.jit(ONE.apply, static_argnames="train")
apply_two = jax.jit(TWO.apply, static_argnames="train")


def part(variables, index):
    return {kind: tree[f"network_{index}"] for kind, tree in variables.items()}


def assert_trees_close(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_one_is_the_model_itself():
    assert several(ONE, 1) is ONE


@pytest.mark.parametrize("networks", [2, 3])
def test_variables_have_a_level_more(networks):
    variables = shapes(several(ONE, networks))
    assert set(variables) == {"params", "batch_stats"}
    names = {f"network_{index}" for index in range(networks)}
    assert set(variables["params"]) == set(variables["batch_stats"]) == names
    for index in range(networks):
        assert part(variables, index) == shapes(ONE)


@pytest.mark.parametrize("train", [False, True])
def test_networks_are_applied_one_by_one(train):
    variables = filled(TWO, IMAGES)
    logits, collections = apply_two(variables, IMAGES, train=train)
    assert logits.shape == (2, 8, 5)
    assert logits.dtype == jnp.float32
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    for index in range(2):
        expected, expected_stats = apply_one(part(variables, index), IMAGES, train=train)
        np.testing.assert_allclose(logits[index], expected, rtol=1e-5, atol=1e-5)
        assert_trees_close(part(collections, index), expected_stats)


def test_features_of_each():
    variables = filled(TWO, IMAGES)
    features = jax.jit(TWO.features)(variables, IMAGES)
    for index in range(2):
        expected = jax.jit(ONE.features)(part(variables, index), IMAGES)
        np.testing.assert_allclose(features[index], expected, rtol=1e-5, atol=1e-5)
    assert features.shape == (2, *expected.shape)


def test_features_that_one_does_not_tell():
    assert several(ONE._replace(features=None), 2).features is None


def test_each_may_have_its_own_images():
    variables = filled(TWO, IMAGES)
    own = (IMAGES, 2 * IMAGES[::-1] + 1)
    logits, collections = apply_two(variables, own, train=True)
    for index in range(2):
        expected, expected_stats = apply_one(part(variables, index), own[index], train=True)
        np.testing.assert_allclose(logits[index], expected, rtol=1e-5, atol=1e-5)
        assert_trees_close(part(collections, index), expected_stats)
    # The second network's images are of no concern to the first.
    same, same_stats = apply_two(variables, IMAGES, train=True)
    np.testing.assert_allclose(same[0], logits[0], rtol=1e-5, atol=1e-5)
    assert_trees_close(part(same_stats, 0), part(collections, 0))
    assert np.abs(same[1] - logits[1]).max() > 0.01


class OneOfEach(nn.Module):
    """A convolution and a linear layer: little to compile."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(3, name="classifier")(nn.Conv(2, (3, 3))(images).mean((1, 2)))


def test_initial_parameters_differ():
    two = several(from_linen(OneOfEach()), 2)
    variables = two.init(jax.random.key(0), IMAGES)
    first, second = (part(variables, index)["params"] for index in range(2))
    for name in ("Conv_0", "classifier"):
        assert (np.asarray(first[name]["kernel"]) != np.asarray(second[name]["kernel"])).all()
    # The key decides all of it.
    jax.tree.map(np.testing.assert_array_equal, variables, two.init(jax.random.key(0), IMAGES))
    other = two.init(jax.random.key(1), IMAGES)["params"]["network_0"]["classifier"]["kernel"]
    assert (np.asarray(other) != np.asarray(first["classifier"]["kernel"])).all()


def test_gradient_of_one_does_not_reach_the_other():
    variables = filled(TWO, IMAGES)

    @jax.jit
    @jax.grad
    def gradient(params):
        logits, _ = TWO.apply({**variables, "params": params}, IMAGES, train=True)
        return (logits[1] ** 2).sum()

    of_each = gradient(variables["params"])
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(of_each["network_0"]))
    assert np.abs(of_each["network_1"]["classifier"]["kernel"]).max() > 0.1


def test_wrong_number_of_images():
    variables = filled(TWO, IMAGES)
    with pytest.raises(ValueError, match="zip"):
        TWO.apply(variables, (IMAGES, IMAGES, IMAGES), train=False)
