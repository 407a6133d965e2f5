"""What is compiled once serves all fits that differ in data and numbers; and how long fits take."""

import statistics
import time

import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from blobs import blobs, quarters
from dsink_jax import DSinkClassifier, fit

TRACED = []


class Counting(nn.Module):
    """Every trace of it is counted."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train):
        TRACED.append(inputs.shape)
        return nn.Dense(self.num_classes)(inputs)


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1])


HOW = {"epochs": 2, "batch_size": 32, "model": lambda num_classes: Counting(num_classes)}


@pytest.mark.slow
def test_a_fit_that_differs_in_data_and_numbers_traces_nothing(one_device):
    vectors, labels = blobs(100, seed=0)
    fit(vectors, labels, **HOW).predict(vectors)
    # In its own file: nothing else may have traced it before.
    assert TRACED
    TRACED.clear()
    others, classes = blobs(100, seed=9)
    numbers = {"learning_rate": 0.01, "alpha": 2.0, "weight_decay": 0.0, "momentum": 0.5, "seed": 5}
    fit(others, np.roll(classes, 3), **HOW | {"epochs": 3}, **numbers).predict(others)
    fit(others[:97], classes[:97], **HOW).predict(others)  # of about the same size
    assert not TRACED


@pytest.mark.slow
def test_folds_and_searches_share_programs(one_device):
    vectors, labels = blobs(120, seed=0)
    how = {**HOW, "noise_method": "elr"}
    classifier = DSinkClassifier(**how)
    cross_val_score(classifier, vectors, labels, cv=3)
    TRACED.clear()
    classifier.set_params(seed=1, alpha=1.0, learning_rate=0.02)
    cross_val_score(classifier, vectors, labels, cv=3)
    assert not TRACED
    fit(vectors, labels, **HOW, auxiliary_predictions="out_of_fold", folds=3)
    TRACED.clear()
    fit(vectors, labels, **HOW, auxiliary_predictions="out_of_fold", folds=3, seed=1)
    assert not TRACED


def seconds(function, repeats):
    """Median of the processor's time, so that it does not matter what else runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


@pytest.mark.slow
def test_after_a_first_fit_cross_validation_is_quick(one_device):
    """Wide margins: at most a second, or ten times logistic regression."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    vectors = rng.normal(size=(4, 64))[labels] + 2 * rng.normal(size=(500, 64))
    classifier = DSinkClassifier(epochs=1, selection=False)  # candidates are further trainings
    cross_val_score(classifier, vectors, labels, cv=5)
    ours = seconds(lambda: cross_val_score(classifier, vectors, labels, cv=5), 3)
    theirs = seconds(lambda: cross_val_score(LogisticRegression(max_iter=200), vectors, labels, cv=5), 3)
    assert ours < max(10 * theirs, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "limit"), [("linear", 0.005), ("resnet20", 0.1)])
def test_predictions_of_new_numbers_of_rows_are_quick(one_device, optimized, model, limit):
    if model == "linear":
        inputs, labels = blobs(64, seed=0)
    else:
        images, labels = quarters(64, seed=0)
        inputs = images.repeat(4, 1).repeat(4, 2)
    # Of one method, so that one program is compiled.
    fitted = fit(inputs, labels, epochs=1, model=model, imbalance_method="elr", target=False)
    fitted.predict(inputs[:64], "noise_robust")
    counts = iter(range(37, 61))
    taken = seconds(lambda: fitted.predict(inputs[: next(counts)], "noise_robust"), 24)
    known = seconds(lambda: fitted.predict(inputs[:60], "noise_robust"), 9)
    assert taken < max(limit, 3 * known)  # on a slow processor the network itself takes longer than the limit
