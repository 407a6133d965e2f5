"""Decoupled training: classifier re-training and normalised classifiers."""

import jax
import numpy as np
import pytest

from dsink_jax.data.batches import class_balanced_order
from dsink_jax.methods import CrossEntropy, TauNormalization
from dsink_jax.training import OptimizerSettings, TrainingSettings, train
from method_references import (
    STANDARDIZATION,
    TINY_CLASSES,
    assert_equal_trees,
    build,
    tiny_data,
    tiny_facts,
    tiny_model,
    tiny_training,
)

CRT = build("crt")
INPUTS = (tiny_data().inputs.astype(np.float32) / 255 - 0.3) / 0.25


def test_stages_of_classifier_retraining():
    assert CRT.first_stage == CrossEntropy()
    stage = CRT.second_stage(20)
    assert (stage.epochs, stage.learning_rate_factor) == (2, 1.0)
    assert stage.only_classifier and stage.class_balanced
    other = build("crt", share=0.26, learning_rate_factor=0.5).second_stage(20)
    assert (other.epochs, other.learning_rate_factor) == (5, 0.5)
    assert CRT.second_stage(3).epochs == 1


def test_second_stage_starts_from_a_fresh_classifier():
    trained = {"params": {"classifier": "old", "Dense_0": "kept"}, "batch_stats": "kept as well"}
    fresh = {"params": {"classifier": "new", "Dense_0": "not used"}, "batch_stats": "not used"}
    started = CRT.start(trained, fresh)
    assert started == {"params": {"classifier": "new", "Dense_0": "kept"}, "batch_stats": "kept as well"}
    assert trained["params"]["classifier"] == "old"


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_second_stage_written_out(factor, cpus):
    """Two steps down the gradient of the classifier alone, with weight decay, over fixed features.

    They start from a fresh classifier. The variables that were given survive.
    """
    method, model = build("crt", learning_rate_factor=factor), tiny_model(CRT)
    settings = TrainingSettings(1, 32, OptimizerSettings("sgd", 0.2, "constant", 0.9, False, 0.01))
    start = model.init(jax.random.key(9), INPUTS[:1])
    trained = train(
        model,
        method,
        tiny_data(),
        settings,
        facts=tiny_facts(1),
        seed=3,
        devices=cpus[:1],
        standardization=STANDARDIZATION,
        start_from=start,
    ).variables
    fresh = model.init(jax.random.split(jax.random.key(3))[0], INPUTS[:1])["params"]["classifier"]
    weights = [np.asarray(fresh[name], np.float64) for name in ("kernel", "bias")]
    features = np.asarray(model.features(start, INPUTS), np.float64)
    order = class_balanced_order(tiny_data().labels, TINY_CLASSES, 32, 1, seed=3, epoch=0)
    velocities = [0.0, 0.0]
    for index, where in zip(order.index[:, 0], order.where[:, 0], strict=True):
        x, labels = features[index[where]], tiny_data().labels[index[where]]
        logits = x @ weights[0] + weights[1]
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        error = (probabilities - np.eye(TINY_CLASSES)[labels]) / len(labels)
        for i, gradient in enumerate((x.T @ error, error.sum(0))):
            velocities[i] = 0.9 * velocities[i] + gradient + 0.01 * weights[i]
            weights[i] = weights[i] - 0.2 * factor * velocities[i]
    classifier = trained["params"].pop("classifier")
    np.testing.assert_allclose(classifier["kernel"], weights[0], atol=1e-5)
    np.testing.assert_allclose(classifier["bias"], weights[1], atol=1e-5)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(start))
    del start["params"]["classifier"]
    assert_equal_trees(trained, start)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_normalised_classifier_by_hand(tau):
    kernel = np.array([[3.0, 0.0, 1.0], [4.0, 0.5, 2.0]])
    classifier = {"kernel": kernel, "bias": np.array([9.0, -9.0, 1.0])}
    variables = {"params": {"classifier": classifier, "Conv_0": "backbone"}, "batch_stats": "moments"}
    used = TauNormalization(tau).inference_variables(variables)
    norms = np.array([5.0, 0.5, np.sqrt(5.0)])
    np.testing.assert_allclose(used["params"]["classifier"]["kernel"], kernel / norms**tau, rtol=1e-6)
    np.testing.assert_array_equal(used["params"]["classifier"]["bias"], np.zeros(3))
    assert (used["params"]["Conv_0"], used["batch_stats"]) == ("backbone", "moments")
    np.testing.assert_array_equal(classifier["bias"], [9.0, -9.0, 1.0])


def test_only_the_prediction_uses_the_normalised_classifier(cpus):
    trained, plain = (tiny_training(method, cpus, 2) for method in (TauNormalization(), CrossEntropy()))
    assert_equal_trees(trained.variables, plain.variables)
    kernel = trained.variables["params"]["classifier"]["kernel"]
    features = np.asarray(trained.model.features(trained.variables, INPUTS))
    expected = features @ (kernel / np.linalg.norm(kernel, axis=0))
    logits = trained.logits(tiny_data().inputs, STANDARDIZATION, cpus[:1])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(plain.logits(tiny_data().inputs, STANDARDIZATION, cpus[:1]) - logits).max() > 0.01
