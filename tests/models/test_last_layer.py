"""The last layer of all networks, and the features that it is given."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.errors import InputError
from dsink_jax.models import MODELS, build_model
from dsink_jax.models.layers import classifier_layer
from model_references import filled, num_parameters, shapes, some_images


def draw(num_examples=5, width=6, classes=4, seed=0):
    """Features and a kernel."""
    rng = np.random.default_rng(seed)
    features, kernel = rng.standard_normal((num_examples, width)), rng.standard_normal((width, classes))
    return features.astype(np.float32), kernel.astype(np.float32)


def cosines(features, kernel, dtype=jnp.float32):
    """Logits of the cosine classifier with that kernel."""
    layer = classifier_layer("cosine", kernel.shape[1], dtype)
    return layer.apply({"params": {"kernel": jnp.asarray(kernel)}}, jnp.asarray(features))


def exact_cosines(features, kernel):
    features, kernel = np.asarray(features, np.float64), np.asarray(kernel, np.float64)
    return features @ kernel / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)


# The cosine classifier.


def test_cosines_by_hand():
    # (3, 4) with (1, 0), (0, -2), (6, 8) and (-4, 3): 3/5, -4/5, 1 and 0.
    got = cosines(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0, 6.0, -4.0], [0.0, -2.0, 8.0, 3.0]]))
    np.testing.assert_allclose(got, [[0.6, -0.8, 1.0, 0.0]], rtol=0, atol=1e-6)


@hypothesis.given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (4, 2), elements=st.floats(-100, 100, width=32)),
)
def test_cosines_are_between_minus_one_and_one(features, kernel):
    got = np.asarray(cosines(features, kernel))
    assert (np.abs(got) <= 1 + 1e-6).all()
    # A vector along a kernel's column has cosine 1 with it, the opposite one -1.
    for sign in (1, -1):
        along = np.asarray(cosines(sign * kernel.T, kernel))
        long = np.linalg.norm(kernel, axis=0) > 1e-3
        np.testing.assert_allclose(np.diagonal(along)[long], sign, rtol=1e-6)


@hypothesis.given(
    hnp.arrays(np.float32, 5, elements=st.floats(2**-7, 2**10, width=32)),
    hnp.arrays(np.float32, 4, elements=st.floats(2**-7, 2**10, width=32)),
)
def test_lengths_do_not_count(of_features, of_columns):
    features, kernel = draw()
    got = cosines(features * of_features[:, None], kernel * of_columns)
    np.testing.assert_allclose(got, cosines(features, kernel), rtol=0, atol=1e-6)


def test_gradient_of_cosines():
    # At right angles to the features, so that a step does not change their length to first order.
    features, kernel = draw()
    to_features, to_kernel = jax.grad(lambda x, w: cosines(x, w)[:, 1].sum(), argnums=(0, 1))(
        jnp.asarray(features), jnp.asarray(kernel)
    )
    np.testing.assert_allclose((to_features * features).sum(1), 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose((to_kernel * kernel).sum(0), 0, rtol=0, atol=1e-5)
    # d cos / d x = (w / |w| - cos x / |x|) / |x|.
    x, w = np.asarray(features, np.float64), np.asarray(kernel[:, 1], np.float64)
    lengths = np.linalg.norm(x, axis=1)[:, None]
    expected = (w / np.linalg.norm(w) - exact_cosines(features, kernel)[:, 1:2] * x / lengths) / lengths
    np.testing.assert_allclose(to_features, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("zero", ["features", "kernel", "both"])
def test_gradient_at_zero_is_finite(zero):
    features, kernel = (jnp.asarray(array) for array in draw())
    if zero != "kernel":
        features = jnp.zeros_like(features)
    if zero != "features":
        kernel = jnp.zeros_like(kernel)
    np.testing.assert_array_equal(cosines(features, kernel), 0)
    gradients = jax.grad(lambda x, w: (cosines(x, w) * jnp.arange(4.0)).sum(), argnums=(0, 1))(
        features, kernel
    )
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_cosines_in_bfloat16():
    features, kernel = draw()
    got = cosines(features, kernel, jnp.bfloat16)
    assert got.dtype == jnp.bfloat16
    # Two vectors and their product, each rounded to 8 bits.
    np.testing.assert_allclose(
        got.astype(jnp.float32), exact_cosines(features, kernel), rtol=0, atol=4 * 2**-8
    )


@pytest.mark.parametrize(("kind", "parameters"), [("linear", {"kernel", "bias"}), ("cosine", {"kernel"})])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_of_the_last_layer(kind, parameters, dtype):
    features = draw()[0]
    variables = classifier_layer(kind, 4, dtype).init(jax.random.key(0), features)
    assert set(variables["params"]) == parameters
    assert variables["params"]["kernel"].shape == (6, 4)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "cosin",
            r"Unknown classifier 'cosin'\. Did you mean 'cosine'\? Known classifiers: linear, cosine\.",
        ),
        ("Linear", "Did you mean 'linear'"),
        ("softmax", r"Unknown classifier 'softmax'\. Known"),
    ],
)
def test_unknown_kinds_are_refused(kind, message):
    with pytest.raises(InputError, match=message):
        classifier_layer(kind, 4, jnp.float32)
    with pytest.raises(InputError, match=message):
        shapes(build_model("small_cnn", 10, classifier=kind))


# Features.

KINDS_OF_NETWORK = [*((name, {}) for name in MODELS), ("preact_resnet18", {"final_norm": False})]


@pytest.mark.parametrize(("name", "options"), KINDS_OF_NETWORK)
def test_logits_are_linear_in_the_features(name, options):
    model = build_model(name, 7, **options)
    images = some_images(2, size=8)
    variables = filled(model, images)
    last = variables["params"]["classifier"]

    @jax.jit
    def both(variables, images):
        return model.features(variables, images), model.apply(variables, images, train=False)[0]

    features, logits = both(variables, images)
    assert features.dtype == jnp.float32
    assert features.shape == (2, last["kernel"].shape[0])
    expected = np.asarray(features, np.float64) @ last["kernel"] + last["bias"]
    size = np.abs(expected).max()
    np.testing.assert_allclose(logits / size, expected / size, rtol=0, atol=1e-5)
    assert np.ptp(features, axis=0).max() > 1e-3  # they tell one image from another


@pytest.mark.parametrize("name", MODELS)
def test_cosine_classifier_of_every_model(name):
    linear, cosine = (build_model(name, 7, classifier=kind) for kind in ("linear", "cosine"))
    of_linear, of_cosine = shapes(linear), shapes(cosine)
    assert num_parameters(cosine) == num_parameters(linear) - 7  # no bias
    assert set(of_cosine["params"]["classifier"]) == {"kernel"}
    # The rest is the same network.
    for variables in (of_linear, of_cosine):
        del variables["params"]["classifier"]
    assert of_linear == of_cosine


def test_logits_are_cosines_of_the_features():
    model = build_model("small_cnn", 7, classifier="cosine")
    images = some_images(4, channels=1)
    variables = filled(model, images)
    logits, _ = jax.jit(model.apply, static_argnames="train")(variables, images, train=False)
    features = jax.jit(model.features)(variables, images)
    expected = exact_cosines(features, variables["params"]["classifier"]["kernel"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_features_are_those_of_evaluation():
    # One image at a time or all together: no statistics of the batch.
    model = build_model("small_cnn", 7)
    images = some_images(4, channels=1)
    variables = filled(model, images)
    features = jax.jit(model.features)
    together = features(variables, images)
    alone = np.concatenate([features(variables, images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
