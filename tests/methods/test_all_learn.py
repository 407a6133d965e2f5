"""Every method learns from long-tailed, mislabelled digits within a few epochs."""

import dataclasses

import jax
import numpy as np
import pytest

from dsink_jax.methods import METHODS
from dsink_jax.training import FitSettings, OptimizerSettings, fit, make_predictor
from experiments.config import DIGITS, MethodOptions
from experiments.problem import load_problem
from experiments.run_directory import RunDirectory
from method_references import build

# Those that start slowly, by small gradients, margins or few examples, have more.
EPOCHS = {"gce": 25, "truncated_gce": 60, "ldam_drw": 30, "coteaching": 25, "dividemix": 25}
OPTIONS = {
    "coteaching_noise_rate": "estimated",
    "ot_reweighting_meta_per_class": 3,
    "ot_reweighting_meta_labels": "observed",
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    config = dataclasses.replace(
        DIGITS, noise_rate=0.2, imbalance_ratio=5.0, run_dir=directory, options=MethodOptions(), devices=1
    )
    return load_problem(config, RunDirectory(config), jax.devices()[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_it_learns(name, digits):
    """A fifth of the labels redrawn, the largest class five times the smallest; chance is 0.1."""
    epochs = EPOCHS.get(name, 15)
    method = build(name, digits.facts._replace(epochs=epochs), **OPTIONS)
    model = digits.model_for(method)
    optimizer = OptimizerSettings(0.1, "cosine", 0.9, False, 5e-4)
    settings = FitSettings(epochs, 64, optimizer, evaluate_every=epochs)
    start = None
    for stage in filter(None, (method.first_stage, method)):
        fitted = fit(
            *(model, stage, digits.training_set(stage), digits.preprocessing, settings),
            num_classes=10,
            seed=0,
            devices=digits.devices,
            start_from=start,
        )
        start = fitted.variables
    predict = make_predictor(model, method, digits.preprocessing, digits.devices)
    test = digits.data.test
    accuracy = np.mean(predict(start, test.images).argmax(-1) == test.labels)
    assert accuracy > 0.3
