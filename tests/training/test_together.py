"""Trainings side by side against the same trainings one after the other."""

import dataclasses

import jax
import numpy as np
import pytest

from blobs import blobs
from dsink_jax.data.streaming import is_streamed
from dsink_jax.methods import (
    BalancedSoftmax,
    ClassifierRetraining,
    CoTeaching,
    DivideMix,
    EarlyLearningRegularization,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    Mixup,
    make_facts,
)
from dsink_jax.models import make_model
from dsink_jax.training import (
    DeviceData,
    OptimizerSettings,
    Standardization,
    TrainingDivergedError,
    TrainingSettings,
    can_train_together,
    train,
    train_together,
)

DEVICE = jax.devices()[0]
NOISE = [np.eye(4) * 0.6 + 0.1, np.eye(4)]
KINDS = {
    "logit adjustment": [LogitAdjustment(tau) for tau in (0.5, 1.0, 2.0)],
    "robust losses": [GeneralizedCrossEntropy(q, tau=1.0) for q in (0.3, 0.7)],
    "state of each example": [EarlyLearningRegularization(weight) for weight in (1.0, 3.0)],
    "a matrix of each": [ForwardCorrection("known", tau=tau) for tau in (0.0, 1.0)],
    "inputs that are made": [Mixup(alpha) for alpha in (0.3, 1.0)],
}


@pytest.mark.parametrize(
    ("kind", "network"), [*((kind, "linear") for kind in KINDS), ("state of each example", "mlp")]
)
def test_each_is_what_train_gives_for_its_rows(kind, network):
    """Parts of 60, 61 and 33 rows in batches of 16: four, four and three steps an epoch."""
    vectors, labels = blobs(93, seed=2)
    vectors, methods = vectors.astype(np.float32), KINDS[kind]
    parts = [np.arange(60), np.arange(32, 93), np.arange(0, 93, 3)[:33]]
    settings = [
        TrainingSettings(3, 16, OptimizerSettings(learning_rate=0.1, weight_decay=decay))
        for decay in (0.0, 0.1, 0.3)[: len(methods)]
    ]
    facts = [
        [make_facts(np.bincount(labels[part], minlength=4) + k, 3, NOISE[k % 2]) for k in range(len(methods))]
        for part in parts
    ]
    model = make_model(network, 4, networks=1)
    standardization = Standardization(vectors.mean(0), 1 / vectors.std(0))
    together = train_together(
        model,
        methods,
        settings,
        DeviceData(vectors, labels.astype(np.int32)),
        parts,
        facts,
        seed=5,
        device=DEVICE,
        standardization=standardization,
    )
    for part, of_part, own in zip(parts, together, facts, strict=True):
        for method, how, known, found in zip(methods, settings, own, of_part, strict=True):
            alone = train(
                model,
                method,
                DeviceData(vectors[part], labels[part].astype(np.int32)),
                how,
                facts=known,
                seed=5,
                devices=[DEVICE],
                standardization=standardization,
            )
            assert found.method == method
            one, other = (each.logits(vectors, standardization, [DEVICE]) for each in (found, alone))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
            assert np.abs(one).max() > 0.5


def test_others_train_alone():
    vectors, facts = np.zeros((8, 2), np.float32), make_facts([4, 4], 20)
    for method in (LogitAdjustment(), BalancedSoftmax(), CoTeaching(0.2)):
        assert can_train_together(method, vectors, facts)
    for method in (ForwardCorrection(), DivideMix(), ClassifierRetraining()):
        assert not can_train_together(method, vectors, facts)
    assert can_train_together(ForwardCorrection("known"), vectors, facts)


def test_rows_that_are_streamed_are_trained_on_alone(tmp_path):
    np.save(tmp_path / "vectors.npy", np.zeros((8, 2), np.float32))
    streamed = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert is_streamed(streamed)
    assert not can_train_together(LogitAdjustment(), streamed, make_facts([4, 4], 20))


def test_methods_of_two_kinds_are_refused():
    vectors, labels = blobs(40, seed=2)
    settings = TrainingSettings(1, 8, OptimizerSettings())
    facts = make_facts(np.bincount(labels), 1)
    with pytest.raises(ValueError, match="numbers alone"):
        train_together(
            make_model("linear", 4, networks=1),
            [LogitAdjustment(), BalancedSoftmax()],
            [settings, settings],
            DeviceData(vectors, labels),
            [np.arange(20)],
            [[facts, facts]],
            seed=0,
            device=DEVICE,
        )


def test_one_that_diverges_is_told():
    vectors, labels = blobs(40, seed=2)
    settings = TrainingSettings(20, 8, OptimizerSettings(learning_rate=1.0))
    wild = dataclasses.replace(settings, optimizer=OptimizerSettings(learning_rate=1e30, weight_decay=0.5))
    facts = make_facts(np.bincount(labels), 20)
    with pytest.raises(TrainingDivergedError, match="Try a lower learning rate"):
        train_together(
            make_model("linear", 4, networks=1),
            [LogitAdjustment(), LogitAdjustment()],
            [settings, wild],
            DeviceData(vectors.astype(np.float32), labels),
            [np.arange(20)],
            [[facts, facts]],
            seed=0,
            device=DEVICE,
        )
