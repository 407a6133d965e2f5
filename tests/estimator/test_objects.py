"""Objects that people bring: changed after a fit, of other structures and types, alike but for a number."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.model_selection import GridSearchCV

from blobs import blobs
from dsink_jax import DSinkClassifier, FittedDSink, InputError, fit
from dsink_jax.methods import (
    ClassBalanced,
    CrossEntropy,
    EarlyLearningRegularization,
    MethodLoss,
    TauNormalization,
)

VECTORS, LABELS = blobs(64, seed=1)
QUICK = {"epochs": 2, "batch_size": 16, "devices": jax.devices()[:1]}
QUICK_FOR_SEARCH = {"epochs": 1, "batch_size": 16, "role": "noise_robust"}


def test_an_option_changed_after_a_fit_changes_no_fitted_model():
    method = TauNormalization(tau=0.0)
    fitted = fit(VECTORS, LABELS, imbalance_method=method, **QUICK)
    before = fitted.predict_proba(VECTORS, "imbalance_robust")
    method.set_params(tau=5.0)
    np.testing.assert_array_equal(fitted.predict_proba(VECTORS, "imbalance_robust"), before)


class Layer(NamedTuple):
    kernel: Any
    bias: Any


PARAMETERS = {
    "a NamedTuple": lambda kernel, bias: Layer(kernel, bias),
    "a list of pairs": lambda kernel, bias: [(kernel, bias)],
    "names with slashes": lambda kernel, bias: {"mlp/~/linear": {"kernel": kernel, "bias": bias}},
    "bfloat16": lambda kernel, bias: {"k": kernel.astype(jnp.bfloat16), "b": bias.astype(jnp.bfloat16)},
}


@functools.cache
def pair(kind):
    def init(key, inputs):
        kernel = 0.1 * jax.random.normal(key, (inputs.shape[-1], 4))
        return {"params": PARAMETERS[kind](kernel, jnp.zeros(4))}

    def apply(variables, inputs, train):
        leaves = {leaf.ndim: leaf.astype(jnp.float32) for leaf in jax.tree.leaves(variables["params"])}
        return inputs @ leaves[2] + leaves[1]

    return init, apply


@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameters_of_any_structure_and_type(kind, tmp_path):
    how = {**QUICK, "model": pair(kind), "directory": tmp_path / "fit"}
    fitted = fit(VECTORS, LABELS, **how)
    again = fit(VECTORS, LABELS, **how)  # finished: read from its checkpoints
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz", model=pair(kind))
    for other in (again, loaded):
        np.testing.assert_array_equal(other.logits(VECTORS), fitted.logits(VECTORS))
    types = {leaf.dtype for leaf in jax.tree.leaves(fitted.parts["target"].variables["params"])}
    assert types == {jnp.dtype(jnp.bfloat16 if kind == "bfloat16" else jnp.float32)}


def test_an_average_of_parameters_in_a_tuple_is_used():
    how = {**QUICK, "model": pair("a NamedTuple")}
    plain, averaged = (fit(VECTORS, LABELS, average_decay=decay, **how) for decay in (None, 0.9))
    assert np.abs(plain.logits(VECTORS) - averaged.logits(VECTORS)).max() > 1e-4


def add(number, key, batch):
    return batch + number


@pytest.mark.parametrize(
    ("setting", "one", "other"),
    [
        ("optimizer", optax.sgd(1e-4), optax.sgd(0.1)),
        ("preprocess", functools.partial(add, 1.0), functools.partial(add, 2.0)),
        ("preprocess", lambda key, batch: batch + 1.0, lambda key, batch: batch + 2.0),
    ],
)
def test_a_directory_tells_functions_apart_by_what_is_in_them(setting, one, other, tmp_path):
    how = {**QUICK, "epochs": 1, "target": False, "directory": tmp_path}
    fit(VECTORS, LABELS, **{setting: one}, **how)
    with pytest.raises(InputError, match=f"differs in setting {setting}"):
        fit(VECTORS, LABELS, **{setting: other}, **how)


def test_what_cannot_be_hashed_is_named_before_anything_is_trained():
    class Unhashable:
        __hash__ = None

        def __call__(self, key, batch):
            return batch

    with pytest.raises(InputError, match="preprocess must be hashable"):
        fit(VECTORS, LABELS, preprocess=Unhashable(), **QUICK)


def test_bounds_hold_for_what_programs_compute_with():
    with pytest.raises(InputError, match=r"beta must be in \[0.0, 1.0\)"):
        ClassBalanced(beta=0.99999999)


def test_a_step_that_is_not_finite_can_be_left_out():
    fitted = fit(VECTORS, LABELS, on_nan="skip", target=False, **QUICK)
    assert fitted.parts["noise_robust"].history[-1]["train"]["skipped"] == 0


def test_options_of_methods_by_name(tmp_path):
    options = {"coteaching_noise_rate": "estimated", "logit_adjustment_tau": 0.5}
    fitted = fit(VECTORS, LABELS, noise_method="coteaching", options=options, target=False, **QUICK)
    assert fitted.parts["noise_robust"].method.noise_rate == "estimated"
    assert fitted.parts["imbalance_robust"].method.tau == 0.5
    fitted.save(tmp_path / "model.npz")
    assert FittedDSink.load(tmp_path / "model.npz").settings == fitted.settings
    with pytest.raises(InputError, match="Did you mean 'elr_momentum'"):
        fit(VECTORS, LABELS, options={"elr_momentun": 0.5}, **QUICK)
    with pytest.raises(InputError, match="must be a dictionary"):
        fit(VECTORS, LABELS, options="elr", **QUICK)
    with pytest.raises(InputError, match="gce_q is one of gce"):
        fit(VECTORS, LABELS, options={"gce_q": 0.5}, **QUICK)


SOURCE = """
import flax.linen as nn
import jax.numpy as jnp
SCALE = 2.0
def scaled(batch):
    return SCALE * jnp.tanh(batch)
def augmented(key, batch):
    return scaled(batch).astype(batch.dtype)
class Net(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(4)(nn.relu(inputs))
"""


def test_a_directory_tells_edited_code_apart(tmp_path):
    def run_with(edited, setting):
        names = {"__name__": "__main__"}
        exec(edited, names)
        given = {"preprocess": names["augmented"]} if setting == "preprocess" else {"model": names["Net"]()}
        fit(VECTORS, LABELS, target=False, directory=tmp_path / setting, **given, **{**QUICK, "epochs": 1})

    for setting, edits in {
        "preprocess": [("jnp.tanh", "jnp.sin"), ("SCALE = 2.0", "SCALE = 3.0"), ("SCALE *", "SCALE +")],
        "model": [("nn.relu", "nn.tanh")],
    }.items():
        run_with(SOURCE, setting)
        run_with(SOURCE, setting)  # the same again goes on
        for old, new in edits:
            with pytest.raises(InputError, match=f"differs in setting {setting}"):
                run_with(SOURCE.replace(old, new), setting)


def test_a_search_over_options_of_a_method_by_name():
    classifier = DSinkClassifier(epochs=1).set_params(noise_method__momentum=0.9)
    assert classifier.noise_method == EarlyLearningRegularization(momentum=0.9)
    search = GridSearchCV(DSinkClassifier(**QUICK_FOR_SEARCH), {"noise_method__momentum": [0.7, 0.9]}, cv=2)
    assert set(search.fit(VECTORS, LABELS).best_params_) == {"noise_method__momentum"}


@dataclasses.dataclass(frozen=True)
class Mean(CrossEntropy):
    """Forgets that a value is wanted for each example."""

    def loss(self, logits, batch, example_state, context):
        return MethodLoss(logits.mean())


@dataclasses.dataclass(frozen=True)
class Bare(CrossEntropy):
    def loss(self, logits, batch, example_state, context):
        return logits.mean(-1)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"noise_method": Mean()}, r"Mean.loss must return MethodLoss\(values\) with a value for each of 16"),
        ({"noise_method": Bare()}, "Bare.loss must return MethodLoss"),
        ({"noise_method": CrossEntropy}, r"give CrossEntropy\(\)"),
        ({"preprocess": lambda batch: batch}, "preprocess must be a function"),
    ],
)
def test_mistakes_in_what_one_writes(setting, said):
    with pytest.raises(InputError, match=said):
        fit(VECTORS, LABELS, **setting, **QUICK)
