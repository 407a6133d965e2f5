"""Heads over features: weight decay and f_N chosen by labels held out."""

import pickle

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from blobs import blobs
from dsink_jax import DSinkClassifier, FittedDSink, fit
from dsink_jax.estimator import fitting, selection
from dsink_jax.methods import (
    BalancedSoftmax,
    DivideMix,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    PostHocLogitAdjustment,
    TransportReweighting,
)
from dsink_jax.noise_model import TEMPERATURES
from dsink_jax.recipe import Recipe
from dsink_jax.training_set import TrainingSet, make_folds

ROLES = ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted")
ONE = {"devices": jax.devices()[:1]}
QUICK = {"epochs": 2, "batch_size": 32, **ONE}


@pytest.fixture(scope="module")
def few():
    """Blobs in a long tail, an eighth of them labelled as the class after theirs."""
    vectors, labels = blobs(320, seed=1)
    kept = np.flatnonzero((labels < 3) | (np.arange(320) % 20 == 3))
    given = np.where(np.arange(len(kept)) % 8 == 0, (labels[kept] + 1) % 4, labels[kept])
    return vectors[kept].astype(np.float32), given


@pytest.fixture(scope="module")
def fitted(few):
    return fit(*few, **QUICK)


def chosen(fitted):
    """What a selection says, without arrays."""
    own = fitted.selection
    return [
        *((each.method, each.weight_decay, each.noise is None) for each in own[:2]),
        own.target_weight_decay,
        own.alpha,
        own.scores,
    ]


def assert_same_predictions(one, other, vectors):
    for role in ROLES:
        np.testing.assert_array_equal(one.logits(vectors, role), other.logits(vectors, role), err_msg=role)


def test_the_best_of_the_candidates_is_chosen_and_trained(few, fitted):
    """Each is trained on two thirds and scored by the labels of the rest."""
    own = fitted.selection
    assert len(own.scores) == 4 + 5 + 4
    scores = dict(sorted(own.scores, key=lambda one: one[1]))  # of the same words the best
    of_f_l = {words: score for words, score in scores.items() if words.startswith("LogitAdjustment")}
    assert len(of_f_l) == 4
    decay = own.imbalance_robust.weight_decay
    assert max(of_f_l, key=of_f_l.get).endswith(f" {decay:g}")
    best = max(scores, key=scores.get)
    kind = type(own.noise_robust.method).__name__
    assert best.startswith(kind) and best.endswith(f" {own.noise_robust.weight_decay:g}")
    for role, each in (("imbalance_robust", own.imbalance_robust), ("noise_robust", own.noise_robust)):
        assert fitted.parts[role].method == each.method
    assert isinstance(own.imbalance_robust.method, LogitAdjustment)
    assert (own.target_weight_decay, own.alpha) == (selection.TARGET_WEIGHT_DECAY, selection.ALPHA)
    assert fitted.class_shares.dtype == np.float32 and fitted.class_shares.sum() == pytest.approx(1, abs=1e-5)


def test_a_weight_of_the_dsink_loss_that_is_given_is_kept(few, monkeypatch):
    terms = {}
    apply = selection.Selection.apply

    def watched(self, specs, training_set):
        applied = apply(self, specs, training_set)
        terms[self.alpha] = applied[-1].term.alpha
        return applied

    monkeypatch.setattr(selection.Selection, "apply", watched)
    for alpha in (None, 3.0):
        fit(*few, **QUICK, noise_method="elr", alpha=alpha)
    assert terms == {100.0: 100.0, None: 3.0}


def test_a_candidates_score_is_that_of_a_recipe_of_three_folds(few, fitted):
    """Trained by hand, with labels of each fold held out in turn; its temperature joins its predictions."""
    vectors, given = few
    settings = fitted.settings
    method, decay = LogitAdjustment(), fitted.selection.imbalance_robust.weight_decay
    how = {"selection": False, "weight_decay": decay, "imbalance_method": method}
    training_set = TrainingSet(vectors, given.astype(np.int32), 4, standardization=fitted.standardization)
    (spec, _) = fitting.Settings(**how).specs(training_set.facts(2), target=False)
    recipe = Recipe(
        training_set,
        [spec],
        settings.model_for(4, vectors.shape[1:]),
        fitting.Settings(**how, epochs=2).training(32),
        seed=0,
        folds=3,
        **ONE,
    )
    logits, _ = recipe.out_of_fold("imbalance_robust")
    found = selection.fit_noise_model(logits, given, balanced=True)
    words = f"{method} with weight decay {decay:g}"
    assert dict(fitted.selection.scores)[words] == pytest.approx(found.score, rel=1e-5)
    temperature = fitted.selection.imbalance_robust.method.temperature
    assert np.isclose(temperature, TEMPERATURES).any()
    whole = recipe.logits("imbalance_robust", vectors)
    np.testing.assert_allclose(fitted.logits(vectors, "imbalance_robust"), whole / temperature, rtol=1e-4)
    fold = make_folds(given, 3, 0)
    assert np.bincount(fold).min() > len(given) // 4


@pytest.mark.parametrize("weight_decay", [0.0, 0.07])
def test_a_weight_decay_that_is_given_is_kept(few, weight_decay):
    own = fit(*few, **QUICK, weight_decay=weight_decay).selection
    assert {own.imbalance_robust.weight_decay, own.noise_robust.weight_decay} == {weight_decay}
    assert own.target_weight_decay == weight_decay
    assert all(words.endswith(f"decay {weight_decay:g}") for words, _ in own.scores)
    assert len(own.scores) == 1 + 2 + 2


@pytest.mark.parametrize(
    "method",
    [
        "elr",
        EarlyLearningRegularization(momentum=0.9),
        DivideMix(temperature=0.4),
        lambda facts: LogitAdjustment(0.5),
    ],
    ids=["name", "object", "with a temperature of its own", "function"],
)
def test_a_noise_method_that_is_given_is_kept(few, method):
    own = fit(*few, **QUICK, target=False, noise_method=method)
    found = own.selection.noise_robust
    assert found.noise is None and found.weight_decay in selection.WEIGHT_DECAYS
    assert len(own.selection.scores) == 8
    if callable(method):
        assert found.method.tau == 0.5
    elif method == "elr":
        assert found.method == EarlyLearningRegularization()
    else:
        assert found.method == method
    assert own.parts["noise_robust"].method == found.method
    np.testing.assert_array_equal(own.class_shares, own.selection.class_shares)


@pytest.mark.parametrize(
    ("kind", "epochs"), [(LogitAdjustment, 10), (BalancedSoftmax, 10), (PostHocLogitAdjustment, 20)]
)
def test_a_temperature_that_is_given_is_gone_on_from(few, kind, epochs):
    """What divides the logits in the end is the same, whatever they were divided by before."""
    how = {**QUICK, "epochs": epochs, "target": False, "noise_method": "elr"}
    one, other = (fit(*few, **how, imbalance_method=kind(temperature=t)) for t in (1.0, 0.5))
    temperatures = [each.parts["imbalance_robust"].method.temperature for each in (one, other)]
    assert 0.7 < temperatures[0] / temperatures[1] < 1.4  # steps of those that are tried
    assert min(TEMPERATURES) < temperatures[0] < 1
    own, others = (each.logits(few[0], "imbalance_robust") for each in (one, other))
    np.testing.assert_allclose(own * temperatures[0], others * temperatures[1], rtol=1e-4, atol=1e-5)


NOTHING_CHOSEN = {
    "told so": {"selection": False},
    "nothing left open": {"noise_method": "elr", "weight_decay": 5e-4},
    "a network of one's own": {"model": nn.Dense(4)},
    "an optimiser of one's own": {"optimizer": optax.sgd(0.05)},
}


@pytest.mark.parametrize("case", NOTHING_CHOSEN)
def test_nothing_is_chosen(few, case):
    """The method as published: f_N by ELR."""
    own = fit(*few, **QUICK, target=False, **NOTHING_CHOSEN[case])
    assert own.selection is None
    assert own.parts["noise_robust"].method == EarlyLearningRegularization()
    assert own.parts["imbalance_robust"].method == LogitAdjustment()


def test_images_are_fitted_as_published():
    images = np.random.default_rng(0).integers(0, 255, (120, 4, 4, 1)).astype(np.uint8)
    own = fit(images, np.arange(120) % 4, **QUICK, model="linear", target=False)
    assert own.selection is None and own.parts["noise_robust"].method == EarlyLearningRegularization()


TOO_FEW = {
    "examples": (np.arange(99) % 4, {}),
    "of all classes but one": (np.r_[np.zeros(110, int), [1, 1, 2, 2, 3]], {}),
    "of a class for the method": (
        np.r_[np.arange(120) % 3, 3],
        {"imbalance_method": PostHocLogitAdjustment()},
    ),
    "of a class for the meta set": (
        np.r_[np.arange(120) % 3, 3, 3, 3],
        {"imbalance_method": TransportReweighting(2, "observed")},
    ),
}


@pytest.mark.parametrize("case", TOO_FEW)
def test_where_there_are_too_few_examples_nothing_is_held_out(case):
    labels, how = TOO_FEW[case]
    vectors, _ = blobs(len(labels), seed=3)
    own = fit(vectors, labels, **QUICK, **how).selection
    robust = GeneralizedCrossEntropy(tau=1.0)
    assert own.noise_robust == (robust, selection.UNSELECTED_WEIGHT_DECAY, None)
    assert own.imbalance_robust == (
        how.get("imbalance_method", LogitAdjustment()),
        selection.UNSELECTED_WEIGHT_DECAY,
        None,
    )
    assert own.target_weight_decay == selection.TARGET_WEIGHT_DECAY
    assert own.class_shares is None and own.scores == ()
    given = fit(vectors, labels, **QUICK, **how, noise_method="elr", weight_decay=0.2, target=False)
    assert given.selection is None  # nothing was left open
    kept = fit(vectors, labels, **QUICK, **how, noise_method="elr", target=False).selection
    assert kept.noise_robust.method == EarlyLearningRegularization()


def test_a_hundred_examples_are_enough():
    vectors, labels = blobs(100, seed=3)
    assert fit(vectors, labels, **QUICK, target=False).selection.scores


def test_same_seed_same_choice_another_seed_other_folds(few, fitted):
    again, other = fit(*few, **QUICK), fit(*few, **QUICK, seed=1)
    assert chosen(again) == chosen(fitted)
    np.testing.assert_array_equal(again.class_shares, fitted.class_shares)
    assert_same_predictions(again, fitted, few[0])
    assert [score for _, score in other.selection.scores] != [score for _, score in fitted.selection.scores]


@pytest.mark.slow
def test_eight_devices_choose_what_one_does(few, fitted, cpus):
    several = fit(*few, **(QUICK | {"devices": cpus}))
    assert chosen(several) == chosen(fitted)
    np.testing.assert_array_equal(several.class_shares, fitted.class_shares)
    for role in ROLES:
        np.testing.assert_allclose(
            several.logits(few[0], role), fitted.logits(few[0], role), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("how", [{}, {"noise_method": "elr"}, {"imbalance_method": LogitAdjustment(0.5)}])
def test_files_and_pickles_keep_what_was_chosen(few, how, tmp_path):
    own = fit(*few, **QUICK, **how)
    own.save(tmp_path / "model.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1])
        pickled = pickle.loads(pickle.dumps(own))
    for copied in (FittedDSink.load(tmp_path / "model.npz", **ONE), pickled):
        assert {role: part.method for role, part in copied.parts.items()} == {
            role: part.method for role, part in own.parts.items()
        }
        assert copied.settings == own.settings and copied.selection is None
        assert_same_predictions(copied, own, few[0])
        np.testing.assert_array_equal(
            copied.logits(few[0], prior="estimated"), own.logits(few[0], prior="estimated")
        )


class Halved(LogitAdjustment):
    """A method of one's own, which predicts in its own way."""

    def predict(self, logits, facts):
        return super().predict(logits, facts) / 2


def test_the_temperature_of_a_method_of_ones_own_is_in_the_file(few, tmp_path):
    method = Halved()
    own = fit(*few, **QUICK, target=False, imbalance_method=method, weight_decay=0.1)
    found = own.parts["imbalance_robust"].method
    assert type(found) is Halved and found.temperature != 1 and method.temperature == 1
    own.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz", **ONE, imbalance_method=Halved())
    np.testing.assert_array_equal(
        loaded.logits(few[0], "imbalance_robust"), own.logits(few[0], "imbalance_robust")
    )


def test_a_fit_that_was_stopped_goes_on_with_the_same_choice(few, fitted, tmp_path, monkeypatch):
    train = Recipe.train

    def stops(self, name):
        if name == "target":
            raise KeyboardInterrupt
        return train(self, name)

    how = {**QUICK, "directory": tmp_path / "fit"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recipe, "train", stops)
        fit(*few, **how)
    for _ in range(2):  # gone on with, then read
        own = fit(*few, **how)
        assert chosen(own) == chosen(fitted)
        assert_same_predictions(own, fitted, few[0])


def test_of_many_examples_a_sample_is_looked_at(few, monkeypatch):
    """Every class in its share, none twice, another by another seed; what is trained in the end sees all."""
    vectors, given = few
    monkeypatch.setattr(selection, "LARGEST", 128)
    counts = np.bincount(given)
    samples = [selection._sample(given, counts, seed) for seed in (0, 0, 1)]
    for rows in samples:
        assert (np.diff(rows) > 0).all() and 0 <= rows.min() <= rows.max() < len(given)
        np.testing.assert_array_equal(np.bincount(given[rows]), np.ceil(counts * 128 / len(given)))
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()
    seen = []
    fit_noise_model = selection.fit_noise_model

    def watched(logits, labels, *, balanced):
        seen.append(len(logits))
        return fit_noise_model(logits, labels, balanced=balanced)

    monkeypatch.setattr(selection, "fit_noise_model", watched)
    own = fit(vectors, given, **QUICK, target=False)
    assert set(seen) == {len(samples[0])} and len(seen) == 13
    assert own.facts.class_counts.sum() == pytest.approx(len(given))


def test_features_that_are_streamed_choose_the_same(few, fitted, tmp_path):
    np.save(tmp_path / "vectors.npy", few[0])
    own = fit(np.load(tmp_path / "vectors.npy", mmap_mode="r"), few[1], **QUICK, target=False)
    for one, other in zip(own.selection[:2], fitted.selection[:2], strict=True):
        assert one.method == other.method and one.weight_decay == other.weight_decay


def test_a_class_without_examples(few):
    own = fit(*few, **QUICK, num_classes=6)
    assert own.selection.scores and own.class_shares[4:].max() < 1e-3
    for role in ROLES:
        assert np.isfinite(own.logits(few[0], role)).all()
        assert own.predict(few[0], role).max() < 4


def test_what_is_chosen_is_told(few, capsys):
    own = fit(*few, **QUICK, target=False, verbose=True).selection
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "choosing by labels held out"
    for name, each in (("f_L", own.imbalance_robust), ("f_N", own.noise_robust)):
        assert f"{name}: {each.method} with weight decay {each.weight_decay:g}" in printed


def test_auxiliary_predictions_out_of_fold_go_with_it(few):
    own = fit(*few, **QUICK, auxiliary_predictions="out_of_fold", folds=2)
    assert own.selection.scores and np.isfinite(own.logits(few[0])).all()


def test_the_classifier_chooses_too(few, fitted, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1])
    classifier = DSinkClassifier(epochs=2, batch_size=32).fit(*few)
    assert chosen(classifier.fitted_) == chosen(fitted)
    assert DSinkClassifier(epochs=2, batch_size=32, selection=False).fit(*few).fitted_.selection is None


compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
)


@pytest.mark.slow
def test_another_fit_compiles_nothing(few):
    """Of about as many examples: whatever is chosen for f_L and f_N, and the target if it is of that kind."""
    vectors, given = few
    kind = type(fit(vectors, given, **QUICK).selection.noise_robust.method)
    compilations.clear()
    others, classes = blobs(len(given) - 2, seed=7)
    fit(others, classes, **QUICK | {"epochs": 3}, target=False, seed=3, learning_rate=0.02)
    assert not compilations
    moved = vectors[:-2] + 0.01
    again = fit(moved, given[:-2], **QUICK | {"epochs": 3}, seed=3, alpha=3.0, learning_rate=0.02)
    assert type(again.selection.noise_robust.method) is kind
    assert not compilations
