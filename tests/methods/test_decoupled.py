"""Decoupled training: classifier re-training and normalised classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.data import Augmentation
from dsink_jax.methods import CrossEntropy, DSink, TauNormalization, Weighting
from dsink_jax.training import FitSettings, OptimizerSettings, Preprocessing, fit, make_predictor
from method_references import FACTS, build
from tiny_training import (
    AUGMENTED,
    NUM_CLASSES,
    SGD,
    assert_equal_trees,
    tiny_model,
    train,
    with_auxiliaries,
)

# 20 epochs in the facts of `build`: a second stage of two.
CRT = build("crt")


def test_stages_of_classifier_retraining():
    assert CRT.first_stage == CrossEntropy()
    stage = CRT.second_stage
    assert (stage.epochs, stage.learning_rate_factor) == (2, 1.0)
    assert stage.only_classifier and stage.class_balanced
    other = build("crt", crt_share=0.26, crt_learning_rate_factor=0.5).second_stage
    assert (other.epochs, other.learning_rate_factor) == (5, 0.5)
    assert build("crt", FACTS._replace(epochs=3)).second_stage.epochs == 1


@pytest.fixture(scope="module")
def stages(small_data, cpus):
    first = train(CRT.first_stage, small_data, cpus[:1], epochs=3)
    return first, train(CRT, small_data, cpus[:1], epochs=3, start_from=first.variables)


def test_second_stage_trains_the_classifier_alone(stages):
    first, second = stages
    before, after = first.variables, second.variables
    assert [record["epoch"] for record in second.history] == [1, 2]
    assert_equal_trees(after["batch_stats"], before["batch_stats"])
    assert set(after["params"]) == set(before["params"]) > {"classifier"}
    for name in set(after["params"]) - {"classifier"}:
        assert_equal_trees(after["params"][name], before["params"][name])
    for name, value in after["params"]["classifier"].items():
        assert np.abs(value - before["params"]["classifier"][name]).max() > 0.01


def test_second_stage_starts_from_a_fresh_classifier():
    trained = {"params": {"classifier": "old", "Dense_0": "kept"}, "batch_stats": "kept as well"}
    fresh = {"params": {"classifier": "new", "Dense_0": "not used"}, "batch_stats": "not used"}
    started = CRT.start(trained, fresh)
    assert started == {"params": {"classifier": "new", "Dense_0": "kept"}, "batch_stats": "kept as well"}
    assert trained["params"]["classifier"] == "old"


def test_two_steps_of_the_second_stage_written_out(small_data, cpus):
    """Gradient descent on the classifier over fixed features, with weight decay, from a fresh classifier."""
    from dsink_jax.data.batches import class_balanced_order

    plain = Preprocessing(Augmentation(), (0.3,), (0.25,))
    method = build("crt", FACTS._replace(epochs=1), crt_learning_rate_factor=0.5)
    optimizer = OptimizerSettings(0.2, "constant", 0.9, False, 0.01)
    settings = FitSettings(1, 32, optimizer)
    model = tiny_model(method)
    trained = jax.device_get(model.init(jax.random.key(9), small_data.images[:1].astype(np.float32)))
    fitted = fit(
        model,
        method,
        small_data,
        plain,
        settings,
        num_classes=NUM_CLASSES,
        seed=3,
        devices=cpus[:1],
        start_from=trained,
    )
    key = jax.random.split(jax.random.key(3))[0]
    fresh = model.init(key, small_data.images[:1].astype(np.float32))["params"]["classifier"]
    weights = [np.asarray(fresh[name], np.float64) for name in ("kernel", "bias")]
    images = (small_data.images.astype(np.float32) / 255 - 0.3) / 0.25
    features = np.asarray(model.features(trained, images), np.float64)
    order = class_balanced_order(small_data.labels, NUM_CLASSES, 32, 1, seed=3, epoch=0)
    velocities = [0.0, 0.0]
    for index, where in zip(order.index[:, 0], order.where[:, 0], strict=True):
        x, labels = features[index[where]], small_data.labels[index[where]]
        logits = x @ weights[0] + weights[1]
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        error = (probabilities - np.eye(NUM_CLASSES)[labels]) / len(labels)
        for i, gradient in enumerate((x.T @ error, error.sum(0))):
            velocities[i] = 0.9 * velocities[i] + gradient + 0.01 * weights[i]
            weights[i] = weights[i] - 0.1 * velocities[i]
    classifier = fitted.variables["params"]["classifier"]
    np.testing.assert_allclose(classifier["kernel"], weights[0], atol=1e-5)
    np.testing.assert_allclose(classifier["bias"], weights[1], atol=1e-5)


def test_dsink_has_its_term_in_both_stages(small_data, cpus):
    method = DSink(CRT, Weighting(2.0))
    assert method.first_stage == DSink(CrossEntropy(), Weighting(2.0))
    assert method.second_stage == CRT.second_stage
    data = with_auxiliaries(small_data)
    first = train(method.first_stage, data, cpus[:1], epochs=1)
    second = train(method, data, cpus[:1], epochs=1, start_from=first.variables)
    for fitted in (first, second):
        assert fitted.history[-1]["train"]["distillation"] > 0.01
    assert_equal_trees(second.variables["batch_stats"], first.variables["batch_stats"])
    assert_equal_trees(second.variables["params"]["Dense_0"], first.variables["params"]["Dense_0"])


def test_variables_on_the_device_survive_what_starts_from_them(small_data, cpus):
    variables = tiny_model(CRT).init(jax.random.key(1), small_data.images[:1].astype(np.float32))
    train(CRT, small_data, cpus[:1], epochs=1, start_from=variables)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_normalised_classifier_by_hand(tau):
    kernel = np.array([[3.0, 0.0, 1.0], [4.0, 0.5, 2.0]])
    variables = {
        "params": {
            "classifier": {"kernel": kernel, "bias": np.array([9.0, -9.0, 1.0])},
            "Conv_0": "backbone",
        },
        "batch_stats": "moments",
    }
    deployed = TauNormalization(tau).deployed(variables)
    norms = np.array([5.0, 0.5, np.sqrt(5.0)])
    np.testing.assert_allclose(deployed["params"]["classifier"]["kernel"], kernel / norms**tau, rtol=1e-6)
    np.testing.assert_array_equal(deployed["params"]["classifier"]["bias"], np.zeros(3))
    assert (deployed["params"]["Conv_0"], deployed["batch_stats"]) == ("backbone", "moments")
    np.testing.assert_array_equal(variables["params"]["classifier"]["bias"], [9.0, -9.0, 1.0])
    of_dsink = DSink(TauNormalization(tau), Weighting(1.0)).deployed(variables)
    assert_equal_trees(of_dsink["params"]["classifier"], deployed["params"]["classifier"])


def test_only_the_prediction_uses_the_normalised_classifier(small_data, cpus):
    fitted = train(TauNormalization(1.0), small_data, cpus[:1], epochs=2)
    plain = train(CrossEntropy(), small_data, cpus[:1], epochs=2)
    assert_equal_trees(fitted.variables, plain.variables)
    model = tiny_model(TauNormalization(1.0))
    predict = make_predictor(model, TauNormalization(1.0), AUGMENTED, cpus[:1])
    images = (small_data.images.astype(np.float32) / 255 - 0.3) / 0.25
    kernel = fitted.variables["params"]["classifier"]["kernel"]
    expected = np.asarray(model.features(fitted.variables, jnp.asarray(images))) @ (
        kernel / np.linalg.norm(kernel, axis=0)
    )
    logits = predict(fitted.variables, small_data.images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
    bare = make_predictor(model, None, AUGMENTED, cpus[:1])(fitted.variables, small_data.images)
    assert np.abs(bare - logits).max() > 0.01


def test_learning_rate_of_the_second_stage_is_a_share(small_data, cpus):
    """Half the rate at constant gradient halves the first step; see the settings the loop derives."""
    start = jax.device_get(tiny_model(CRT).init(jax.random.key(1), small_data.images[:1].astype(np.float32)))
    moved = []
    for factor in (1.0, 0.25):
        method = build("crt", FACTS._replace(epochs=1), crt_learning_rate_factor=factor)
        settings = FitSettings(1, 60, SGD)
        fitted = fit(
            *(tiny_model(method), method, small_data, AUGMENTED, settings),
            num_classes=NUM_CLASSES,
            seed=3,
            devices=cpus[:1],
            start_from=start,
        )
        key = jax.random.split(jax.random.key(3))[0]
        fresh = tiny_model(method).init(key, small_data.images[:1].astype(np.float32))
        moved.append(
            fitted.variables["params"]["classifier"]["kernel"] - fresh["params"]["classifier"]["kernel"]
        )
    np.testing.assert_allclose(moved[1], 0.25 * moved[0], rtol=1e-3, atol=1e-7)
