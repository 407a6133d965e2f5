"""Re-weighting by optimal transport to a meta set."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from dsink_jax.data import batches
from dsink_jax.data.meta_set import draw_meta_set
from dsink_jax.errors import InputError
from dsink_jax.methods import CrossEntropy
from dsink_jax.training import TrainingSettings, first_stage_settings
from dsink_jax.training.order import TrainingOrder
from dsink_jax.training_set import TrainingSet
from loss_references import numerical_gradient
from method_references import (
    CLASSES,
    EXAMPLES,
    LABELS,
    META,
    SGD,
    assert_equal_trees,
    build,
    cross_entropy,
    full_batch,
    kernels,
    linear_networks,
    loss_of,
    metrics_of,
    prepared,
    rows,
    tiny_data,
    tiny_training,
    with_meta_set,
)

META_LABELS = np.repeat(np.arange(CLASSES), 2)


def named(**options):
    return build("ot_reweighting", **options)


def class_weights(beta=0.9999):
    """By the counts without the two images of each class that the meta set takes."""
    weights = (1 - beta) / (1 - beta ** np.array([48.0, 28.0, 18.0]))
    return (weights * CLASSES / weights.sum())[LABELS]


def cost_by_hand(kind, meta_set, batch):
    networks = linear_networks(kernels())
    meta_inputs, meta_labels = np.asarray(batch.meta_inputs), META_LABELS
    if meta_set == "prototypes":
        meta_inputs = np.stack([meta_inputs[c == META_LABELS].mean(0) for c in range(CLASSES)])
        meta_labels = np.arange(CLASSES)
    features, of_meta = (np.asarray(networks.features(x), np.float64) for x in (batch.inputs, meta_inputs))
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(of_meta, axis=1)
    of_features = 1 - features @ of_meta.T / lengths
    of_labels = ((np.eye(CLASSES)[LABELS][:, None] - np.eye(CLASSES)[meta_labels]) ** 2).mean(-1)
    return {"feature": of_features, "label": of_labels, "combined": (of_features + of_labels) / 2}[kind]


def gradient_by_pot(weights, cost, where, epsilon=0.1):
    """Finite differences of the cost of POT's entropic plan from softmax(weights) to uniform."""

    def distance(own):
        marginal = np.exp(own - own.max())
        marginal = marginal / marginal.sum()
        uniform = np.full(cost.shape[1], 1 / cost.shape[1])
        plan = ot.sinkhorn(
            marginal, uniform, cost[where], epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=50_000
        )
        return (plan * cost[where]).sum()

    gradient = np.zeros(EXAMPLES)
    gradient[where] = numerical_gradient(distance, weights[where], step=1e-3)
    return gradient


CASES = [
    ("combined", "prototypes", (True,) * EXAMPLES),
    ("feature", "prototypes", (True,) * EXAMPLES),
    ("label", "prototypes", (True,) * EXAMPLES),
    ("combined", "whole", (True,) * EXAMPLES),
    ("combined", "prototypes", (True,) * 5 + (False,) * 3),
]


@pytest.mark.parametrize(("cost", "meta_set", "where"), CASES)
def test_one_step_of_the_weights_by_hand(cost, meta_set, where):
    where = np.array(where)
    # A sharper plan needs more iterations than the method has: compared where both converge.
    method = named(
        cost=cost, meta_set=meta_set, weight_rate=0.5, weight_decay=0.01, weight_momentum=0.8, epsilon=0.5
    )
    batch = full_batch(where)
    rng = np.random.default_rng(0)
    state = {
        "shift": rng.normal(0, 0.3, EXAMPLES).astype(np.float32),
        "momentum": rng.normal(0, 0.01, EXAMPLES).astype(np.float32),
    }
    weights, new = prepared(method, batch, jax.tree.map(jnp.asarray, state)).extra
    before = class_weights() + state["shift"]
    gradient = gradient_by_pot(before, cost_by_hand(cost, meta_set, batch), where, 0.5)
    assert np.abs(gradient).max() > 1e-3
    momentum = gradient + 0.01 * before + 0.8 * state["momentum"]
    np.testing.assert_allclose(new["momentum"][where], momentum[where], rtol=5e-3, atol=5e-5)
    np.testing.assert_allclose(weights[where], (before - 0.5 * momentum)[where], rtol=1e-3, atol=5e-5)
    np.testing.assert_allclose(new["shift"], weights - class_weights(), rtol=1e-4, atol=1e-5)


def test_the_meta_set_joins_the_inputs_and_the_loss():
    method = named(meta_weight=4.0)
    batch = prepared(method, full_batch())
    np.testing.assert_array_equal(
        batch.prepared, np.concatenate([full_batch().inputs, full_batch().meta_inputs])
    )
    logits = rows(70, count=EXAMPLES + len(META_LABELS))
    result = loss_of(method, logits, batch=batch)
    weights = np.asarray(batch.extra[0])
    meta = cross_entropy(logits[EXAMPLES:], META_LABELS).mean()
    expected = weights * cross_entropy(logits[:EXAMPLES]) + 4 * meta
    np.testing.assert_allclose(result.values, expected, rtol=1e-5)
    np.testing.assert_array_equal(result.predictions, logits[:EXAMPLES])
    np.testing.assert_array_equal(result.metrics["weight"], weights)
    assert_equal_trees(result.example_state, batch.extra[1])


def test_weights_start_at_the_class_balanced_ones():
    weights = prepared(named(weight_rate=0.0, beta=0.9), full_batch()).extra[0]
    np.testing.assert_allclose(weights, class_weights(0.9), rtol=1e-5)


def test_weights_are_never_negative():
    batch, uphill = full_batch(), 10.0
    state = {"shift": jnp.zeros(EXAMPLES), "momentum": jnp.full(EXAMPLES, uphill)}
    weights, new = prepared(named(weight_rate=1.0, weight_momentum=0.9), batch, state).extra
    np.testing.assert_array_equal(weights, np.zeros(EXAMPLES))
    np.testing.assert_allclose(new["shift"], -class_weights(), rtol=1e-5)


def test_stages():
    method = named()
    assert method.first_stage == CrossEntropy()
    stage = method.second_stage(20)
    assert (stage.epochs, stage.learning_rate_factor, stage.class_balanced) == (5, 0.1, False)
    assert stage.only_classifier
    assert not named(trains="network").second_stage(20).only_classifier
    other = named(share=0.5, learning_rate_factor=1.0).second_stage(20)
    assert (other.epochs, other.learning_rate_factor) == (10, 1.0)
    settings = TrainingSettings(20, 16, SGD)
    assert first_stage_settings(settings, method) == settings
    assert first_stage_settings(settings, named(share=0.35, cuts_first=True)).last_epoch == 13
    assert first_stage_settings(settings, CrossEntropy()) == settings


@pytest.mark.parametrize("trains", ["classifier", "network"])
def test_what_is_trained(trains, cpus):
    first = tiny_training(CrossEntropy(), cpus, 1)
    trained = tiny_training(named(trains=trains), cpus, 8, start_from=first.variables)
    assert [record["epoch"] for record in trained.history] == [1, 2]
    before, after = first.variables, trained.variables
    assert_equal_trees(after["batch_stats"], before["batch_stats"])
    changed = {
        name
        for name, tree in after["params"].items()
        if any(
            not np.array_equal(one, two)
            for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(before["params"][name]), strict=True)
        )
    }
    assert changed == ({"classifier"} if trains == "classifier" else set(after["params"]))
    assert {"weight", "loss", "accuracy"} <= metrics_of(trained)[-1].keys()


@pytest.mark.parametrize("devices", [1, 4])
def test_meta_inputs_are_never_in_the_order(devices, cpus):
    data = with_meta_set(tiny_data())

    def drawn(data, stage, epoch):
        order = TrainingOrder(data, 16, cpus[:devices], 4, 0, stage)
        arguments, _ = zip(*order.dispatches(epoch, 1, 0), strict=True)
        index, where = map(np.stack, zip(*arguments, strict=True))
        taken = 0 if data.meta_index is None else 4 * META
        assert (order.num_examples, order.steps) == (len(data.labels) - taken, len(index))
        return index, where

    for stage in (None, build("crt").second_stage(20)):
        for epoch in range(3):
            index, where = drawn(data, stage, epoch)
            assert not set(index.ravel().tolist()) & set(data.meta_index.tolist())
            if stage is None:
                kept = np.setdiff1d(np.arange(60), data.meta_index)
                np.testing.assert_array_equal(np.sort(index[where]), kept)
    expected = batches.training_order(60, 16, devices, seed=0, epoch=1)
    np.testing.assert_array_equal(drawn(tiny_data(), None, 1)[0], expected.index)


@pytest.mark.parametrize("per_class", [1, 3])
def test_meta_sets_are_balanced_and_drawn_by_the_seed(per_class):
    labels = np.random.default_rng(0).integers(0, 5, 80)
    index = draw_meta_set(labels, per_class, 5, seed=1)
    assert index.dtype == np.int32 and len(set(index.tolist())) == 5 * per_class
    np.testing.assert_array_equal(labels[index], np.repeat(np.arange(5), per_class))
    np.testing.assert_array_equal(index, draw_meta_set(labels, per_class, 5, seed=1))
    assert not np.array_equal(index, draw_meta_set(labels, per_class, 5, seed=2))


def test_a_meta_set_as_large_as_a_class_is_refused():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    for per_class in (2, 3):
        with pytest.raises(
            InputError, match=r"of \d images a class is too large: class 1 has 2. Give at most 1"
        ):
            draw_meta_set(labels, per_class, 3, seed=0)
    assert len(draw_meta_set(labels, 1, 3, seed=0)) == 3


@pytest.mark.parametrize("kind", ["observed", "clean"])
def test_meta_labels_are_those_that_were_asked_for(kind):
    clean = tiny_data().labels
    observed = tiny_data(wrong=True).labels
    data = TrainingSet(tiny_data().inputs, observed, 4, clean_labels=clean)
    meta = data.meta_set(named(meta_labels=kind, meta_per_class=3))
    own, other = (clean, observed) if kind == "clean" else (observed, clean)
    np.testing.assert_array_equal(meta["meta_labels"], np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(meta["meta_labels"], own[meta["meta_index"]])
    assert not np.array_equal(meta["meta_labels"], other[meta["meta_index"]])
    # The first stage has no meta set, and clean labels that nobody knows are refused.
    assert data.meta_set(named().first_stage) == {}
    with pytest.raises(InputError, match="Clean labels are not known here"):
        TrainingSet(data.inputs, observed, 4).meta_set(named(meta_labels="clean"))
