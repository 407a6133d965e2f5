"""Rivals, measures and D-SINK with its parts, on sets made up."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from dsink_jax.estimator import Settings
from experiments.natural import measures, models, rivals
from natural_files import made_up


def test_measures_are_those_of_another_implementation():
    rng = np.random.default_rng(0)
    gold = rng.choice([0, 1, 2, 5], 200)  # classes that do not occur count for nothing
    predicted = np.where(rng.random(200) < 0.5, gold, rng.integers(0, 6, 200))
    for dtype in (np.int64, np.uint8):
        pair = gold.astype(dtype), predicted.astype(dtype)
        assert measures.balanced_accuracy(*pair) == pytest.approx(
            np.mean([np.mean(predicted[gold == label] == label) for label in (0, 1, 2, 5)])
        )
        expected = f1_score(gold, predicted, labels=[0, 1, 2, 5], average="macro")
        assert measures.macro_f1(*pair) == pytest.approx(expected)
        assert measures.accuracy(*pair) == np.mean(gold == predicted)
    known = np.where(predicted > 2, 5, predicted)
    assert measures.balanced_accuracy(gold, known) == pytest.approx(balanced_accuracy_score(gold, known))


def test_measures_by_hand():
    gold, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 2])
    assert measures.balanced_accuracy(gold, predicted) == pytest.approx((2 / 3 + 0) / 2)
    assert measures.macro_f1(gold, predicted) == pytest.approx((4 / 5 + 0) / 2)
    assert measures.l1([0.5, 0.5], np.array([0.8, 0.2])) == pytest.approx(0.6)


def test_strength_is_chosen_by_labels_of_other_folds():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 2
    signal = (labels - 0.5)[:, None] * 3 + 0.1 * rng.standard_normal((90, 1))
    noise = rng.standard_normal((90, 60))
    assert rivals.choose_strength(signal, labels, None, 0) == rivals.GRID[0]  # the smallest of equals
    # So much regularisation that the larger class is all that it says.
    uneven = np.repeat([0, 1], [80, 10])
    around = np.concatenate([(uneven - 0.5)[:, None] * 2 + 0.3 * rng.standard_normal((90, 1)), noise], 1)
    assert rivals.choose_strength(around, uneven, None, 0) > rivals.GRID[0]
    assert rivals.choose_strength(around, uneven, "balanced", 0) in rivals.GRID


def test_strength_is_chosen_from_some_of_many_rows(monkeypatch):
    seen = []
    monkeypatch.setattr(rivals, "_ROWS_FOR_CHOICE", 50)
    monkeypatch.setattr(rivals, "_fit", lambda model, x, y: seen.append(np.bincount(y)) or model.fit(x, y))
    natural = made_up(count=200)
    rivals.choose_strength(natural.inputs, natural.given, None, 0, grid=(1.0,))
    assert len(seen) == 5
    for counts in seen:
        assert counts.sum() == 40
        np.testing.assert_allclose(counts / 40, np.bincount(natural.given) / 200, atol=0.06)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_rivals_predict_for_all_classes(class_weight):
    pytest.importorskip("cleanlab")
    natural = made_up()
    data = natural.inputs, natural.given, natural.test_inputs, 4  # no example of the last class
    plain = rivals.logistic_regression(*data, class_weight=class_weight, seed=0)
    assert plain.chosen in rivals.GRID
    cleaned = rivals.clean_learning(*data, class_weight=class_weight, seed=0, strength=1.0)
    assert cleaned.chosen == 1.0
    held_out = rivals.out_of_fold(natural.inputs, natural.given, 4, class_weight=class_weight, seed=0)
    for found, labels in (
        (plain.probabilities, natural.test_gold),
        (cleaned.probabilities, natural.test_gold),
        (held_out, natural.gold),
    ):
        assert found.shape == (len(labels), 4)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        assert not found[:, 3].any()
        assert np.mean(found.argmax(1) == labels) > 0.85


@pytest.mark.slow
def test_every_model_is_trained_and_learns(monkeypatch):
    # On one device: a thousand steps on eight virtual ones take minutes.
    quick = functools.partial(models.fit, epochs=30, devices=jax.devices()[:1])
    monkeypatch.setattr(models, "fit", quick)
    natural = made_up(count=300, tested=100)
    found = list(models.train_models(natural, 0))
    assert tuple(one.model for one in found) == models.models_of(images=False)
    assert models.AS_PUBLISHED in models.models_of(images=False)
    by_name = {one.model: one for one in found}
    for one in found:
        assert measures.accuracy(natural.test_gold, one.estimated) > 0.85, one.model
        assert one.balanced.shape == (100,)
        assert (one.shares is not None) == (one.model == models.DSINK)
    for name in (models.DSINK, "f_L", models.ENSEMBLE, models.NAIVE):
        assert measures.balanced_accuracy(natural.test_gold, by_name[name].balanced) > 0.85
    assert by_name[models.STOPPED_EARLY].chosen.endswith(" epochs")


@pytest.mark.slow
def test_images_have_cross_entropy_beside_them(monkeypatch):
    how = {"model": "small_cnn", "epochs": 2, "batch_size": 32}
    monkeypatch.setattr(models, "IMAGES", how)
    natural = made_up(count=64, tested=20, features=64)

    def images(vectors):
        return np.clip(60 * vectors.reshape(-1, 8, 8, 1) + 60, 0, 255).astype(np.uint8)

    natural = dataclasses.replace(
        natural, inputs=images(natural.inputs), test_inputs=images(natural.test_inputs)
    )
    found = [one.model for one in models.train_models(natural, 0)]
    assert tuple(found) == models.models_of(images=True)
    assert models.CROSS_ENTROPY in found


def test_epochs_are_chosen_by_given_labels_that_were_held_out(monkeypatch):
    asked = []

    class Recipe:
        def __init__(self, epochs):
            self.epochs = epochs

        def logits(self, name, inputs):
            good = self.epochs == 4
            return np.eye(3)[rest] if good else np.ones((len(inputs), 3))

    natural = made_up(count=100)
    rest = natural.given[models.make_folds(natural.given, 10, 0) == 0]

    def alone(seen, settings):
        asked.append((len(seen.given), settings.epochs))
        return Recipe(settings.epochs)

    monkeypatch.setattr(models, "_alone", alone)
    assert models.choose_epochs(natural, Settings(epochs=20)) == 4
    assert asked == [(90, 2), (90, 4), (90, 8), (90, 20)]
