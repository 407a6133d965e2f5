"""Networks, methods and augmentation of one's own in `fit`: what people have, as they have it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import own_networks
from blobs import WithDropout, blobs, corrupted_blobs, quarters
from dsink_jax import InputError, fit, recipe
from dsink_jax.methods import (
    BalancedSoftmax,
    CrossEntropy,
    EarlyLearningRegularization,
    LogitAdjustment,
    TransportReweighting,
)

QUICK = {"epochs": 8, "batch_size": 32, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def data():
    return corrupted_blobs()


@pytest.fixture(scope="module")
def one():
    return jax.devices()[:1]


class OneLayer(nn.Module):
    """What a person writes who has vectors: nothing is said of shapes."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train):
        return nn.Dense(self.num_classes)(inputs)


class Recurrent(nn.Module):
    """Sequences `[n, T, D]`, with batch statistics and dropout."""

    @nn.compact
    def __call__(self, x, train):
        # Without a bias: its gradient is rounding alone, which AdamW would blow up to whole steps.
        x = nn.Dense(8, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(4)(x.mean(1))


class Embedded(nn.Module):
    """Integers `[n, T]`."""

    @nn.compact
    def __call__(self, tokens, train):
        assert jnp.issubdtype(tokens.dtype, jnp.integer)
        return nn.Dense(4)(nn.Embed(20, 8)(tokens).mean(1))


def sequences(count=200):
    """[M, T, D] of noise around a centre for each class."""
    vectors, labels = blobs(count, seed=3, dimensions=3)
    noise = np.random.default_rng(1).normal(size=(count, 5, 3))
    return (vectors[:, None] + noise).astype(np.float32), labels


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        WithDropout(4),
        lambda num_classes, classifier, axis_name: WithDropout(num_classes),
        own_networks.NNX(4, size=8, rate=0.2, rngs=nnx.Rngs(0)),
        lambda num_classes, rngs: own_networks.NNX(num_classes, size=8, rate=0.2, rngs=rngs),
        (
            lambda key, inputs: own_networks.init_pair(key, inputs) | {},
            own_networks.apply_pair,
        ),
    ],
    ids=["Linen", "a function that makes Linen", "NNX", "a function that takes rngs", "a pair"],
)
def test_networks_with_dropout_and_batch_statistics(data, one, model):
    vectors, labels = data
    kept = labels < 3 if isinstance(model, tuple) else labels < 4
    fitted = fit(vectors[kept], labels[kept], **QUICK, model=model, devices=one)
    test, classes = blobs(400, seed=2)
    known = classes < fitted.num_classes
    assert (fitted.predict(test[known]) == classes[known]).mean() > 0.85
    assert "params" in fitted.parts["target"].variables and len(fitted.parts["target"].variables) > 1
    # The three roles start from draws of their own, but for a module that has its values already.
    assert (fitted.logits(test) != fitted.logits(test, "noise_robust")).any()


@pytest.mark.slow
def test_own_module_is_given_vectors_as_vectors(data, one):
    how = QUICK | {"epochs": 1, "model": OneLayer(4)}
    fitted = fit(*data, **how, devices=one)
    params = fitted.parts["noise_robust"].variables["params"]["Dense_0"]
    mean, scale = fitted.standardization
    expected = (data[0] - mean) * scale @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(fitted.logits(data[0], "noise_robust"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_inputs_of_other_kinds(one):
    inputs, labels = sequences()
    fitted = fit(inputs, labels, **QUICK, model=Recurrent(), devices=one)
    assert (fitted.predict(inputs) == labels).mean() > 0.7  # the classes overlap
    np.testing.assert_allclose(fitted.standardization.mean, inputs.mean((0, 1)), atol=1e-5)
    with pytest.raises(InputError, match=r"must be \[5, 3\] each, as in training, got \[4, 3\]"):
        fitted.predict(inputs[:, :4])

    images, labels = quarters(120, seed=0)
    fitted = fit(images, labels, **QUICK, model=WithDropout(4), devices=one)
    assert (fitted.predict(images) == labels).mean() > 0.9

    tokens = np.random.default_rng(0).integers(0, 5, (120, 6)) + 5 * labels[:, None]
    how = QUICK | {"optimizer": "adamw"}
    fitted = fit(tokens.astype(np.int64), labels, **how, model=Embedded(), standardize=False, devices=one)
    assert fitted.standardization is None and fitted.kind.dtype == "int32"
    assert (fitted.predict(tokens.astype(np.uint8)) == labels).mean() > 0.9
    with pytest.raises(InputError, match="must be integers, as in training, got float64"):
        fitted.predict(tokens.astype(float))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", optax.adam(0.02)], ids=["adamw", "an Optax transformation"])
def test_optimizers(data, one, optimizer):
    fitted = fit(*data, **QUICK, optimizer=optimizer, devices=one)
    test, classes = blobs(400, seed=2)
    assert (fitted.predict(test) == classes).mean() > 0.9


def test_an_optax_transformation_has_its_own_numbers(data, one):
    how = {**QUICK, "epochs": 1, "target": False, "devices": one, "optimizer": optax.sgd(0.03)}
    numbers = ({"learning_rate": 0.1, "weight_decay": 0.1}, {"learning_rate": 0.9, "weight_decay": 0.0})
    first, second = (fit(*data, **(how | changed)).logits(data[0], "noise_robust") for changed in numbers)
    assert (first == second).all()


def test_augmentation_of_ones_own(data, one):
    """Called with each example and a key of its own; in training alone."""
    how = {**QUICK, "epochs": 1, "target": False, "devices": one}

    def to_zero(key, batch):
        assert batch.shape == (1, 8)
        return 0 * batch

    fitted = fit(*data, **how, preprocess=to_zero, standardize=False, weight_decay=0.0)
    # No input, no gradient: the kernel of the noise-robust model is as it was drawn.
    kernel = fitted.parts["noise_robust"].variables["params"]["classifier"]["kernel"]
    other = fit(data[0], np.roll(data[1], 1), **how, preprocess=to_zero, standardize=False, weight_decay=0.0)
    np.testing.assert_array_equal(
        kernel, other.parts["noise_robust"].variables["params"]["classifier"]["kernel"]
    )
    assert (fitted.logits(data[0], "noise_robust") != fitted.logits(data[0] * 2, "noise_robust")).any()
    with pytest.raises(InputError, match="has to keep shape and dtype"):
        fit(*data, **how, preprocess=lambda key, batch: batch[:, :4])


def test_methods_by_name_object_and_function_are_the_same(data, one):
    how = {**QUICK, "epochs": 2, "devices": one}
    named = fit(*data, **how, imbalance_method="balanced_softmax")
    for method in (BalancedSoftmax(), lambda facts: LogitAdjustment(tau=float(facts.class_prior.sum()))):
        other = fit(*data, **how, imbalance_method=method)
        np.testing.assert_array_equal(named.logits(data[0]), other.logits(data[0]))
    momentum = fit(*data, **how, noise_method=EarlyLearningRegularization(momentum=0.9))
    default = fit(*data, **how, noise_method=EarlyLearningRegularization())
    assert (momentum.logits(data[0], "noise_robust") != default.logits(data[0], "noise_robust")).any()
    known = fit(*data, **how, noise_method="elr")
    np.testing.assert_array_equal(known.logits(data[0]), default.logits(data[0]))


LACKS = {
    "crt": ("crt", OneLayer(4), "name that layer classifier"),
    "tau_norm": ("tau_norm", OneLayer(4), "name that layer classifier"),
    "ldam_drw": ("ldam_drw", OneLayer(4), "needs logits that are cosines"),
    "ot_reweighting": (TransportReweighting(2, "observed"), OneLayer(4), "needs the features"),
    "tabasco": ("tabasco", OneLayer(4), "needs the features"),
    "two of an NNX module": (
        "dividemix",
        own_networks.NNX(4, size=8, rngs=nnx.Rngs(0)),
        "give a function of rngs",
    ),
    "a number of classes": ("cross_entropy", OneLayer(3), "3] for inputs"),
    "other inputs": (CrossEntropy(), own_networks.NNX(4, size=5, rngs=nnx.Rngs(0)), "cannot be"),
}


@pytest.mark.parametrize("case", LACKS)
def test_what_a_network_lacks_is_said_before_anything_is_trained(data, one, case, monkeypatch):
    method, model, said = LACKS[case]
    monkeypatch.setattr(recipe, "train", None)
    with pytest.raises(InputError) as caught:
        fit(*data, imbalance_method=method, model=model, devices=one)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.slow
def test_eight_devices_train_what_one_does(cpus):
    """The whole recipe: dropout, batch statistics, AdamW, sequences."""
    inputs, labels = sequences(160)
    how = {"epochs": 4, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.01, "model": Recurrent()}
    single, several = (fit(inputs, labels, **how, devices=devices) for devices in (cpus[:1], cpus))
    for role in ("noise_robust", "imbalance_robust", "target"):
        np.testing.assert_allclose(
            several.logits(inputs, role), single.logits(inputs, role), rtol=1e-3, atol=1e-3, err_msg=role
        )
