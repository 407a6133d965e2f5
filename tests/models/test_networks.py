"""What may be given for a network, what becomes of it, and what is said of one that will not do."""

import functools
import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from dsink_jax.errors import InputError
from dsink_jax.models import (
    build_model,
    check_model,
    check_model_takes,
    from_linen,
    make_model,
)
from own_networks import NNX, Linen, SharedMasks, apply_pair, init_pair

KEY = jax.random.key(0)
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


class Plain(nn.Module):
    """Its mode has no name and its last layer another."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Sequence(nn.Module):
    @nn.compact
    def __call__(self, x, training):  # [n, T, D]
        assert x.ndim == 3
        x = nn.Dropout(0.5, deterministic=not training)(nn.Dense(5)(x))
        return nn.Dense(3)(x.max(1))


class AllOptions(nn.Module):
    num_classes: int
    classifier: str
    axis_name: str | None = "unbound"

    @nn.compact
    def __call__(self, x, train):
        assert self.axis_name is None
        return nn.Dense(self.num_classes, use_bias=self.classifier == "linear")(x)


MODULE = NNX(rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("network", "params"),
    [
        (Linen(), {"Dense_0", "BatchNorm_0", "classifier"}),
        (Plain(3), {"Dense_0"}),
        (Plain, {"Dense_0"}),
        (lambda num_classes, classifier, axis_name: Plain(num_classes), {"Dense_0"}),
        (functools.partial(Linen, rate=0.1), {"Dense_0", "BatchNorm_0", "classifier"}),
        (AllOptions, {"Dense_0"}),
        (MODULE, {"hidden", "norm", "classifier"}),
        (NNX, {"hidden", "norm", "classifier"}),
        (functools.partial(NNX, rate=0.0), {"hidden", "norm", "classifier"}),
        (lambda: MODULE, {"hidden", "norm", "classifier"}),
        ((init_pair, apply_pair), {"hidden", "classifier"}),
        (lambda: (init_pair, apply_pair), {"hidden", "classifier"}),
        (from_linen(Linen()), {"Dense_0", "BatchNorm_0", "classifier"}),
        (lambda: from_linen(Linen()), {"Dense_0", "BatchNorm_0", "classifier"}),
        ("linear", {"classifier"}),
        (lambda num_classes: "mlp", {"Dense_0", "classifier"}),
    ],
)
def test_what_may_be_given(network, params):
    model = make_model(network, 3)
    # What cannot be compared is not compiled anew either.
    assert make_model(network, 3) == model
    assert make_model(network, 3).apply is model.apply
    check_model(model, VECTORS.shape, VECTORS.dtype, 3)
    variables = model.init(KEY, VECTORS)
    assert set(variables["params"]) == params
    logits, collections = model.apply(variables, VECTORS)
    assert (logits.shape, logits.dtype) == ((6, 3), jnp.float32)
    assert collections == {kind: tree for kind, tree in variables.items() if kind != "params"}
    # Plain arrays under names, as files hold them.
    flat = traverse_util.flatten_dict(variables)
    assert all(isinstance(part, str) for path in flat for part in path)
    assert all(np.asarray(leaf).dtype == np.float32 for leaf in flat.values())


def test_equal_modules_are_one_model():
    model = make_model(Linen(rate=0.2), 3)
    assert make_model(Linen(rate=0.2), 3) is from_linen(Linen(rate=0.2)) is model
    assert make_model(lambda: Linen(rate=0.2), 3) is model
    assert make_model(Linen(rate=0.3), 3) is not model
    two = make_model(Linen(rate=0.2), 3, networks=2)
    assert two.networks == 2 and make_model(lambda: Linen(rate=0.2), 3, networks=2) is two
    assert make_model("mlp", 3, networks=2) is make_model("mlp", 3, networks=2)
    assert make_model(functools.partial(NNX, rate=0.2), 3) is make_model(functools.partial(NNX, rate=0.2), 3)
    assert make_model(NNX, 3) is not make_model(NNX, 4)
    # A module that cannot be hashed is itself alone.
    dense = Unhashable([5, 3])
    assert make_model(dense, 3) is make_model(dense, 3)
    assert make_model(Unhashable([5, 3]), 3) is not make_model(dense, 3)


class Unhashable(nn.Module):
    widths: list
    scale: np.ndarray | None = None

    def setup(self):
        self.layers = [nn.Dense(width) for width in self.widths]

    def __hash__(self):
        raise TypeError("no")

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_sequences():
    inputs = np.random.default_rng(1).normal(size=(6, 5, 4)).astype(np.float32)
    for module in (Sequence(), SharedMasks()):
        model = make_model(module, 3)
        check_model(model, inputs.shape, inputs.dtype, 3)
        variables = model.init(KEY, inputs[:1])
        evaluated, _ = model.apply(variables, inputs)
        trained, _ = model.apply(variables, inputs, train=True, key=KEY)
        assert evaluated.shape == trained.shape == (6, 3)
        assert np.abs(evaluated - trained).max() > 1e-2
        np.testing.assert_array_equal(evaluated, model.apply(variables, inputs, key=KEY)[0])
    # Networks for vectors flatten them.
    assert make_model("linear", 3).init(KEY, inputs)["params"]["classifier"]["kernel"].shape == (20, 3)


def test_where_a_module_starts():
    # An instance from its values, a class from the key.
    instance, made = make_model(MODULE, 3), make_model(NNX, 3)
    first, second = (instance.init(jax.random.key(seed), VECTORS) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    np.testing.assert_array_equal(first["params"]["classifier"]["kernel"], MODULE.classifier.kernel[...])
    assert first["params"]["classifier"]["kernel"] is not MODULE.classifier.kernel[...]
    first, second = (made.init(jax.random.key(seed), VECTORS) for seed in (0, 1))
    kernels = [one["params"]["classifier"]["kernel"] for one in (first, second)]
    assert (kernels[0] != kernels[1]).all()
    with pytest.raises(InputError, match="would start 2 networks with equal values"):
        make_model(MODULE, 3, networks=2)
    with pytest.raises(InputError, match="equal values"):
        make_model(lambda: NNX(rngs=nnx.Rngs(0)), 3, networks=2)
    assert make_model(NNX, 3, networks=2).networks == 2


def test_a_module_is_looked_at_anew():
    class Scaled(NNX):
        scale, widths = 1.0, (1,)

        def __call__(self, x):
            return super().__call__(x) * self.scale * self.widths[0]

    module = Scaled(rngs=nnx.Rngs(0))
    first = make_model(module, 3)
    before, logits = first.init(KEY, VECTORS), first.apply(first.init(KEY, VECTORS), VECTORS)[0]
    # Other values start another training of the same program.
    module.classifier.kernel[...] = jnp.ones_like(module.classifier.kernel[...])
    second = make_model(module, 3)
    assert second == first and hash(second) == hash(first)
    assert not (second != first)  # noqa: SIM202
    assert second.apply is first.apply
    np.testing.assert_array_equal(jax.jit(second.init)(KEY, VECTORS)["params"]["classifier"]["kernel"], 1)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(first.init)(KEY, VECTORS), before)
    assert make_model(Scaled(rngs=nnx.Rngs(5)), 3) == first
    # What is no value is another program, also where it has no hash.
    module.scale = 3.0
    third = make_model(module, 3)
    assert third != first
    np.testing.assert_allclose(third.apply(before, VECTORS)[0], 3 * logits, rtol=1e-6)
    module.widths = [2]
    fourth = make_model(module, 3)
    assert make_model(module, 3) == fourth != third
    module.widths[0] = 5
    fifth = make_model(module, 3)
    assert fifth != fourth
    np.testing.assert_allclose(fourth.apply(before, VECTORS)[0], 6 * logits, rtol=1e-6)
    np.testing.assert_allclose(fifth.apply(before, VECTORS)[0], 15 * logits, rtol=1e-6)
    # So are other shapes, which a module's layers need not tell.
    module.shift = nnx.Param(jnp.zeros(2))
    sixth = make_model(module, 3)
    module.shift = nnx.Param(jnp.zeros(3))
    assert make_model(module, 3) != sixth


def test_a_function_is_remembered():
    rate = 0.5

    def listed(num_classes):
        return Unhashable([5, num_classes])

    def outside():
        return Linen(rate=rate)

    class Widths(NNX):
        def __init__(self, widths, *, rngs):
            super().__init__(rngs=rngs)

    for network in (
        listed,
        lambda: Unhashable([5, 3], functools.partial(nn.LayerNorm)),
        functools.partial(Unhashable, widths=[5, 3]),
        functools.partial(Widths, widths=[8]),
        functools.partial(Unhashable, [3], np.ones(3)),
    ):
        assert make_model(network, 3) is make_model(network, 3)
    assert make_model(listed, 3) is not make_model(listed, 4)
    # Until something else is outside of it.
    assert make_model(outside, 3) is make_model(Linen(rate=0.5), 3)
    rate = 0.1
    assert make_model(outside, 3) is make_model(Linen(rate=0.1), 3)


@pytest.mark.parametrize(
    "give", [lambda net: net, lambda net: lambda: net, lambda net: lambda: make_model(net, 3)]
)
def test_no_cache_keeps_a_module(give):
    module = NNX(rngs=nnx.Rngs(0))
    model = make_model(give(module), 3)
    check_model(model, VECTORS.shape, VECTORS.dtype, 3)
    kind = model.kind
    shapes = [jax.eval_shape(one.init, KEY, VECTORS) for one in (model, kind)]
    assert kind == model and shapes[0] == shapes[1]
    kept = [weakref.ref(one) for one in (module, module.classifier.kernel[...])]
    del module, model
    gc.collect()
    assert [one() for one in kept] == [None] * 2
    assert kind.init(KEY, VECTORS)["params"]["classifier"]["kernel"].shape == (6, 3)


def test_nnx_gives_the_modules_own_numbers():
    model, module = make_model(MODULE, 3), nnx.clone(MODULE)
    variables = model.init(KEY, VECTORS)
    module.eval()
    np.testing.assert_allclose(model.apply(variables, VECTORS)[0], module(VECTORS), rtol=1e-6, atol=1e-6)
    _, after = model.apply(variables, VECTORS, train=True, key=KEY)
    module.train()
    module(VECTORS)
    for moment in ("mean", "var"):
        expected = getattr(module.norm, moment)[...]
        np.testing.assert_allclose(after["batch_stats"]["norm"][moment], expected, rtol=1e-6)
    # The person's module is not touched.
    np.testing.assert_array_equal(MODULE.norm.mean[...], 0)


@pytest.mark.parametrize("network", [Linen(), NNX, NNX(rngs=nnx.Rngs(0))])
def test_cosines_of_ones_own_network(network):
    model = make_model(network, 3, classifier="cosine")
    assert model is not make_model(network, 3)
    check_model(model, VECTORS.shape, VECTORS.dtype, 3, classifier="cosine", needs=("features", "classifier"))
    variables = model.init(KEY, VECTORS)
    features = np.asarray(model.features(variables, VECTORS), np.float64)
    kernel = np.asarray(variables["params"]["classifier"]["kernel"], np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    expected = features @ kernel / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(model.apply(variables, VECTORS)[0], expected, rtol=0, atol=1e-6)
    # In training they are cosines too, of features with dropout, and statistics are updated.
    logits, after = model.apply(variables, VECTORS, train=True, key=KEY)
    assert np.abs(logits).max() <= 1 + 1e-6
    assert np.abs(logits - expected).max() > 1e-2
    _, of_linear = make_model(network, 3).apply(
        make_model(network, 3).init(KEY, VECTORS), VECTORS, train=True, key=KEY
    )
    jax.tree.map(np.testing.assert_array_equal, after, of_linear)


def test_a_function_is_asked_for_cosines():
    asked = []

    def make(num_classes, classifier):
        asked.append(classifier)
        return Plain(num_classes)

    make_model(make, 3, classifier="cosine")
    make_model(make, 3)
    assert asked == ["cosine", "linear"]
    named = make_model("mlp", 3, classifier="cosine")
    assert named is build_model("mlp", 3, classifier="cosine")
    assert make_model(lambda num_classes: "mlp", 3, classifier="cosine") is named


@pytest.mark.parametrize(
    "network", [Plain(3), Plain, (init_pair, apply_pair), from_linen(Linen()), lambda: from_linen(Linen())]
)
def test_cosines_that_cannot_be_had(network):
    with pytest.raises(InputError, match=r"needs logits that are cosines.*classifier.*features_only=True"):
        make_model(network, 3, classifier="cosine")


class Wrong(nn.Module):
    """A network with one thing wrong."""

    what: str

    @nn.compact
    def __call__(self, x, features_only=False):
        if self.what == "error":
            return x @ jnp.ones((7, 3))
        if features_only:
            return x[0] if self.what == "features" else x
        logits = nn.Dense(4 if self.what == "classes" else 3)(x)
        return {
            "integers": jnp.argmax(logits, -1),
            "rank": logits[:, None],
            "two": (logits, x),
        }.get(self.what, logits)


@pytest.mark.parametrize(
    ("what", "needs", "words"),
    [
        ("error", (), r"cannot be initialised on inputs \[6, 4\] of float32: TypeError: dot_general"),
        ("classes", (), r"logits \[6, 4\] for inputs \[6, 4\] and 3 classes; expected \[6, 3\]"),
        ("rank", (), r"logits \[6, 1, 3\]"),
        ("integers", (), r"one floating array, logits \[n, C\], got int32"),
        ("two", (), r"one floating array, logits \[n, C\], got tuple"),
        ("features", ("features",), r"features are \[4\] for inputs \[6, 4\]; expected \[n, D\]"),
        ("classifier", ("classifier",), r"kernel \[D, 3\], and params has \['Dense_0'\]: name that layer"),
        ("nothing", ("feature",), "Unknown need 'feature'"),
    ],
)
def test_what_is_wrong_is_said(what, needs, words):
    model = make_model(Wrong(what), 3)
    with pytest.raises(InputError, match=words) as caught:
        check_model(model, VECTORS.shape, VECTORS.dtype, 3, needs=needs)
    assert len(str(caught.value).splitlines()) == 1


def test_features_that_are_not_told():
    for network in (Plain(3), (init_pair, apply_pair), "two of them"):
        model = make_model(Plain(3), 3, networks=2) if network == "two of them" else make_model(network, 3)
        with pytest.raises(InputError, match=r"needs the features.*features_only=True"):
            check_model(model, VECTORS.shape, VECTORS.dtype, 3, needs=("features",))
    check_model(make_model((init_pair, apply_pair), 3), (6, 4), "float32", 3, needs=("classifier",))
    check_model(make_model(Linen(), 3, networks=2), (6, 4), "float32", 3, needs=("features", "classifier"))


def test_collections_that_a_step_changes():
    def apply(variables, inputs, train):
        return inputs, {"state": {"steps": variables["state"]["steps"] + 0.5}}

    changing = make_model((lambda key: {"params": {}, "state": {"steps": jnp.zeros((), int)}}, apply), 4)
    with pytest.raises(
        InputError, match=r"shapes and types that they had, and it changes those of \['state'\]"
    ):
        check_model(changing, (6, 4), "float32", 4)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (3, "A network must be a name, a Flax Linen or NNX module, .* got 3"),
        ((init_pair,), "A network must be"),
        ("resnet21", "Unknown model 'resnet21'"),
        (lambda width: Plain(width), "takes no more than num_classes.* needs width"),
        (lambda: lambda x: x, "A network must be .* got <function"),
        (lambda rngs: Plain(3), "takes rngs must make an NNX module, got Plain"),
        (lambda: 3, "A network must be"),
    ],
)
def test_what_is_no_network(network, words):
    with pytest.raises(InputError, match=words):
        make_model(network, 3)


def test_a_pair_must_give_params():
    model = make_model((lambda key, inputs: {"w": inputs[0]}, lambda variables, inputs: inputs), 4)
    with pytest.raises(InputError, match=r'init must return a dict with "params".* got \[\'w\'\]'):
        check_model(model, (6, 4), "float32", 4)


def test_networks_of_images():
    for name, shape in (("linear", (6, 4)), ("mlp", (6, 5, 4)), ("small_cnn", (6, 8, 8, 1))):
        check_model_takes(name, shape)
    with pytest.raises(
        InputError, match="resnet8 is for images, and the inputs are vectors: choose linear or"
    ):
        check_model_takes("resnet8", (6, 4))
    with pytest.raises(InputError, match=r"the inputs are \[5, 4\]"):
        check_model_takes("resnet8", (6, 5, 4))
