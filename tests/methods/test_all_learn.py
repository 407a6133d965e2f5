"""Every method learns from long-tailed, mislabelled digits within a few epochs."""

import functools

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from dsink_jax.methods import METHODS
from dsink_jax.models import MLP, make_model
from dsink_jax.recipe import ModelSpec, Recipe
from dsink_jax.training import OptimizerSettings, TrainingSettings
from dsink_jax.training_set import TrainingSet
from method_references import build

# Those that start slowly, by small gradients, margins or few examples, have more.
EPOCHS = {
    **{"gce": 25, "truncated_gce": 60, "ldam_drw": 30},
    **dict.fromkeys(("coteaching", "dividemix", "tabasco"), 25),
}
OPTIONS = {"coteaching": {"noise_rate": "estimated"}}


@functools.cache
def digits():
    """A training set, and clean inputs and labels of others.

    The largest class five times the smallest, a fifth of the labels redrawn.
    """
    rng = np.random.default_rng(0)
    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / 16).astype(np.float32)
    order = rng.permutation(len(labels))
    training, test = order[:1200], order[1200:]
    counts = np.round(100 * 5.0 ** (-np.arange(10) / 9)).astype(int)
    training = np.concatenate([training[labels[training] == c][:n] for c, n in enumerate(counts)])
    redrawn = rng.random(len(training)) < 0.2
    observed = np.where(redrawn, rng.integers(0, 10, len(training)), labels[training]).astype(np.int32)
    return TrainingSet(inputs[training], observed, 10), inputs[test], labels[test]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_it_learns(name):
    """Chance is 0.1."""
    training_set, inputs, labels = digits()
    epochs = EPOCHS.get(name, 15)
    method = build(name, training_set.facts(epochs), **OPTIONS.get(name, {}))

    def model_for(method):
        network = MLP(10, (32,), classifier=method.classifier)
        return make_model(network, 10, networks=method.networks)

    settings = TrainingSettings(epochs, 64, OptimizerSettings(learning_rate=0.1), evaluate_every=epochs)
    specs = [ModelSpec(name, method)]
    recipe = Recipe(training_set, specs, model_for, settings, seed=0, devices=jax.devices()[:1])
    accuracy = np.mean(recipe.logits(name, inputs).argmax(-1) == labels)
    assert accuracy > 0.3
