"""`fit` and `DSinkClassifier` with several labels an example."""

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from dsink_jax import DSinkClassifier, FittedDSink, InputError, fit
from dsink_jax.estimator import Settings
from dsink_jax.methods import (
    BinaryGeneralizedCrossEntropy,
    BinaryLogitAdjustment,
    LogitAdjustment,
    MultilabelDSink,
    make_facts,
)
from dsink_jax.training_set import make_folds
from multilabel_references import reference_labels

LABELS, FEATURES = 6, 16
QUICK = {"epochs": 60, "batch_size": 64}


def several(count=600, seed=1, missing=0.3):
    """Features, the true labels, from frequent to rare, and those given: some missing, as many more."""
    weights = np.random.default_rng(0).standard_normal((FEATURES, LABELS))
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, FEATURES)).astype(np.float32)
    true = features @ weights + np.linspace(1, -7, LABELS) > 0
    given = true & (rng.random(true.shape) > missing)
    given |= rng.random(true.shape) < missing * true.mean(0)
    return features, true.astype(int), given.astype(int)


@pytest.fixture(scope="module")
def data():
    return several()


@pytest.fixture(scope="module")
def fitted(data):
    features, _, given = data
    return fit(features, given, devices=jax.devices()[:1], **QUICK)


def precision(true, scores):
    return np.mean([average_precision_score(true[:, c], scores[:, c]) for c in range(LABELS)])


def test_labels_of_others_are_ranked_better_than_they_were_given(fitted):
    features, true, given = several(seed=2)
    found = precision(true, fitted.logits(features))
    assert found > 0.85 and found > precision(true, given.astype(float))
    assert (fitted.predict(features) == true).mean() > (given == true).mean()


def test_predictions_by_their_formulas(data, fitted):
    features, _, given = data
    layer = fitted.parts["target"].variables["params"]["classifier"]
    mean, scale = fitted.standardization
    balanced = ((features - mean) * scale) @ np.asarray(layer["kernel"], float) + layer["bias"]
    np.testing.assert_allclose(fitted.logits(features, prior="balanced"), balanced, rtol=1e-4, atol=1e-4)
    # f_N counts all labels alike: its mean for the shares that were given says which are the true ones.
    f_n = fitted.logits(features, "noise_robust", prior="balanced")
    shares = expit(f_n + logit(given.mean(0))).mean(0)
    np.testing.assert_allclose(fitted.class_shares, shares, rtol=1e-4)
    assert fitted.prior == "estimated"
    np.testing.assert_allclose(fitted.logits(features), balanced + logit(shares), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fitted.predict_proba(features), expit(fitted.logits(features)), atol=1e-6)
    assert (fitted.predict(features) == (fitted.logits(features) > 0)).all()
    own = np.linspace(0.1, 0.6, LABELS)
    np.testing.assert_allclose(
        fitted.logits(features, prior=own), balanced + logit(own), rtol=1e-3, atol=1e-3
    )


def test_surrogate_labels_are_those_of_each_label_apart(data, fitted):
    features = data[0][:50]
    z, z_n, z_l = (
        fitted.logits(features, role, prior="balanced").astype(float)
        for role in ("target", "noise_robust", "imbalance_robust")
    )
    marginal = expit(z_l).mean(0)
    np.testing.assert_allclose(fitted.class_marginal(features), marginal, atol=1e-5)
    found = fitted.surrogate_labels(features)
    assert found.converged
    np.testing.assert_allclose(found.labels, reference_labels(z, z_n, marginal), atol=1e-4)


def test_a_file_keeps_all_of_it(data, fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    assert loaded.several_labels and loaded.prior == "estimated"
    for role in ("target", "noise_robust", "imbalance_robust"):
        np.testing.assert_array_equal(loaded.logits(data[0], role), fitted.logits(data[0], role))


def test_what_stopped_goes_on(data, fitted, tmp_path):
    features, _, given = data
    one = jax.devices()[:1]
    fit(features, given, directory=tmp_path, target=False, devices=one, **QUICK)
    with pytest.raises(InputError, match="differs in labels"):
        fit(features, 1 - given, directory=tmp_path, target=False, devices=one, **QUICK)
    again = fit(features, given, directory=tmp_path, target=False, devices=one, **QUICK)
    np.testing.assert_array_equal(
        again.logits(features, "noise_robust"), fitted.logits(features, "noise_robust")
    )


@pytest.mark.slow
def test_eight_devices_fit_what_one_does(data, fitted):
    features, _, given = data
    np.testing.assert_allclose(
        fit(features, given, **QUICK).logits(features), fitted.logits(features), rtol=1e-2, atol=1e-2
    )


@pytest.mark.slow
@pytest.mark.parametrize("predictions", ["cached", "out_of_fold"])
def test_auxiliaries_may_be_looked_up(data, predictions):
    features, true, given = data
    how = {**QUICK, "auxiliary_predictions": predictions, "devices": jax.devices()[:1], "folds": 3}
    assert precision(true, fit(features, given, **how).logits(features)) > 0.85


def test_the_classifier_takes_and_gives_indicators(data):
    features, _, given = data
    classifier = DSinkClassifier(**QUICK).fit(features, given)
    assert classifier.classes_.tolist() == list(range(LABELS))
    predicted = classifier.predict(features)
    assert predicted.shape == given.shape and set(np.unique(predicted)) == {0, 1}
    probabilities = classifier.predict_proba(features)
    assert probabilities.shape == given.shape
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(features)), probabilities, atol=1e-6)
    more = classifier.set_params(prior="balanced").predict(features)
    assert more.sum() > predicted.sum()
    assert classifier.score(features, predicted) < 1 == classifier.score(features, more)


def test_indicators_may_be_sparse(data):
    features, _, given = data
    dense, sparse = (
        DSinkClassifier(epochs=1).fit(features, form(given)).predict_proba(features)
        for form in (np.asarray, csr_array)
    )
    np.testing.assert_array_equal(dense, sparse)


def test_what_was_not_adjusted_for_in_training_is_in_the_prediction(data):
    """Plain binary cross-entropy gives what the adjusted one does, but for the decay of weights."""
    features, true, given = data
    how = {**QUICK, "weight_decay": 0.0, "target": False, "devices": jax.devices()[:1]}
    plain, adjusted = (
        fit(features, given, imbalance_method=BinaryLogitAdjustment(tau), **how) for tau in (0.0, 1.0)
    )
    own, other = (each.logits(features, "imbalance_robust", prior="balanced") for each in (plain, adjusted))
    layer = plain.parts["imbalance_robust"].variables["params"]["classifier"]
    mean, scale = plain.standardization
    raw = ((features - mean) * scale) @ np.asarray(layer["kernel"], float) + layer["bias"]
    np.testing.assert_allclose(own, raw - logit(given.mean(0)), rtol=1e-3, atol=1e-3)
    assert np.corrcoef(own.ravel(), other.ravel())[0, 1] > 0.99
    assert precision(true, own) == pytest.approx(precision(true, other), abs=0.02)


def test_methods_by_their_formulas():
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((5, 3)).astype(np.float32), rng.integers(0, 2, (5, 3))
    facts = make_facts([30, 10, 2], 5)._replace(class_prior=np.float32([0.6, 0.2, 0.04]))
    shifted = logits + logit(np.float64(facts.class_prior))
    given = np.where(labels, expit(shifted), expit(-shifted))

    class Around:
        pass

    context, batch = Around(), Around()
    context.facts, batch.labels = facts, labels
    found = BinaryLogitAdjustment().loss(logits, batch, (), context)
    np.testing.assert_allclose(found.values, -np.log(given).sum(1), rtol=1e-4)
    found = BinaryGeneralizedCrossEntropy(q=0.5).loss(logits, batch, (), context)
    np.testing.assert_allclose(found.values, ((1 - given**0.5) / 0.5).sum(1), rtol=1e-4)


def test_settings_name_the_methods_with_and_without_binary():
    facts = make_facts([30, 10, 2], 5)._replace(class_prior=np.float32([0.6, 0.2, 0.04]))
    for noise in ("auto", "gce", "binary_gce", BinaryGeneralizedCrossEntropy()):
        f_l, f_n, target = Settings(noise_method=noise).specs(facts, target=True, several_labels=True)
        assert f_l.method == target.method == BinaryLogitAdjustment()
        assert f_n.method == BinaryGeneralizedCrossEntropy() and isinstance(target.term, MultilabelDSink)


def test_folds_have_rare_labels_in_turn():
    labels = np.zeros((100, 3), int)
    labels[:50, 0], labels[40:60, 1], labels[[3, 45, 90], 2] = 1, 1, 1
    fold = make_folds(labels, 3, 0)
    assert sorted(fold[[3, 45, 90]]) == [0, 1, 2]
    for label in range(3):
        each = np.bincount(fold[labels[:, label] > 0], minlength=3)
        assert np.ptp(each) <= 3


BAD = {
    "numbers": (lambda y: y * 2, {}, "must be 0 or 1, whether an example has the label, got 2"),
    "NaN": (lambda y: np.where(y, np.nan, 0.0), {}, "must be 0 or 1"),
    "words": (lambda y: np.where(y, "yes", "no"), {}, "must be 0 or 1"),
    "nobody": (lambda y: y * (np.arange(LABELS) != 2), {}, "No example has the label of column 2"),
    "all": (lambda y: y | (np.arange(LABELS) == 1), {}, "Every example has the label of column 1"),
    "rows": (lambda y: y[:-1], {}, r"\[600, C\]"),
    "one column": (lambda y: y[:, :1], {}, r"labels\[:, 0\]"),
    "three axes": (lambda y: y[:, :, None], {}, "one label for each of 600"),
    "number of classes": (lambda y: y, {"num_classes": 4}, "num_classes is 4, and the indicators have 6"),
    "method for one label": (lambda y: y, {"noise_method": "elr"}, "'elr' is for one label an example"),
    "a prior of 0": (lambda y: y, {"prior": np.zeros(LABELS)}, r"in \(0, 1\)"),
    "known share": (lambda y: y, {"known_share": 0.5}, "known_share is for one label"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(data, name):
    features, _, given = data
    change, how, said = BAD[name]
    with pytest.raises(InputError, match=said):
        fit(features, change(given), **how)


def test_one_hot_labels_are_warned_of(data):
    features = data[0]
    with pytest.warns(UserWarning, match=r"give labels.argmax\(1\)"):
        fit(features, np.eye(LABELS)[np.arange(len(features)) % LABELS], epochs=1, target=False)


def test_methods_for_several_labels_are_for_no_others(data):
    features, _, given = data
    with pytest.raises(InputError, match="not for one label an example"):
        fit(features, given[:, 0], noise_method=BinaryGeneralizedCrossEntropy())
    with pytest.raises(InputError, match=r"LogitAdjustment is not for indicators \[M, C\]"):
        fit(features, given, imbalance_method=LogitAdjustment())
