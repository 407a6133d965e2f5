"""Which class shares predictions are for: Bayes' rule, what keeps it, what refuses another."""

import json
import pickle

import jax
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from blobs import blobs, corrupted_blobs
from dsink_jax import DSinkClassifier, FittedDSink, InputError, fit

QUICK = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1}
ROLES = ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted")
SHARES = [0.5, 0.2, 0.0, 0.3]


@pytest.fixture(scope="module")
def data():
    return corrupted_blobs()


@pytest.fixture(scope="module")
def trained(data):
    return fit(*data, **QUICK, devices=jax.devices()[:1])


@pytest.fixture
def fitted(trained):
    """Its prior is as the fit left it."""
    yield trained
    trained.prior = "balanced"


@pytest.fixture(scope="module")
def gaussian_classes():
    """Models that know two classes, normal about -1 and 1; f_N has seen four times as many of the first."""
    vectors, labels = blobs(32, seed=0, num_classes=2, dimensions=1)
    known = fit(vectors, labels, epochs=1, standardize=False, devices=jax.devices()[:1])
    known.class_prior = np.array([0.8, 0.2], np.float32)
    for role, part in known.parts.items():
        bias = np.log(known.class_prior) if role == "noise_robust" else np.zeros(2, np.float32)
        layer = {"kernel": np.array([[-1.0, 1.0]], np.float32), "bias": bias}
        known.parts[role] = part._replace(variables={"params": {"classifier": layer}})
    return known


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("shares", [[0.9, 0.1], [0.3, 0.7], [2, 2]])
def test_predictions_are_by_bayes_rule(gaussian_classes, role, shares):
    points = np.linspace(-4, 4, 41)
    joint = np.stack([norm.pdf(points, -1), norm.pdf(points, 1)], 1) * np.array(shares)
    expected = joint / joint.sum(1, keepdims=True)
    probabilities = gaussian_classes.predict_proba(points[:, None], role, shares)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    # Where they are equally probable: x = log(shares[0] / shares[1]) / 2.
    border = np.log(shares[0] / shares[1]) / 2
    near = np.array([[border - 0.01], [border + 0.01]])
    assert gaussian_classes.predict(near, role, prior=shares).tolist() == [0, 1]


def test_estimated_shares_are_those_of_the_true_classes(data, fitted):
    np.testing.assert_array_equal(fitted.class_shares, fitted.selection.class_shares)
    assert fitted.class_shares.dtype == np.float32
    np.testing.assert_allclose(fitted.class_shares.sum(), 1, rtol=1e-6)
    vectors, _ = blobs(400, seed=1)
    centres = np.stack([vectors[number::4].mean(0) for number in range(4)])
    classes = ((data[0][:, None] - centres) ** 2).sum(-1).argmin(1)  # blobs are far apart
    true, observed = (np.bincount(labels) / len(data[0]) for labels in (classes, data[1]))
    assert np.abs(fitted.class_shares - true).sum() < np.abs(observed - true).sum()
    for role in ROLES:
        estimated = fitted.logits(data[0], role, prior="estimated")
        by_hand = fitted.logits(data[0], role, prior=fitted.class_shares)
        np.testing.assert_allclose(estimated, by_hand, atol=1e-5)


@pytest.mark.parametrize("role", ROLES)
def test_a_class_of_share_0_is_never_predicted(data, fitted, role):
    logits = fitted.logits(data[0], role, SHARES)
    probabilities = fitted.predict_proba(data[0], role, SHARES)
    assert logits.dtype == probabilities.dtype == np.float32
    assert (logits[:, 2] == -np.inf).all()
    assert (probabilities[:, 2] == 0).all()
    assert not np.isnan(probabilities).any()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert 2 not in fitted.predict(data[0], role, SHARES)
    assert 2 in fitted.predict(data[0], role)
    alone = fitted.predict_proba(data[0], role, np.array([0, 0, 5, 0]))
    assert (alone == [0, 0, 1, 0]).all()
    assert fitted.predict_proba(data[0][:0], role, SHARES).shape == (0, 4)


def test_the_prior_of_the_fit_is_that_of_its_predictions(data, fitted):
    """And changes nothing of the models: not what is trained, not Q."""
    other = fit(*data, **QUICK, devices=jax.devices()[:1], prior=np.array([5, 2, 0, 3]))
    np.testing.assert_allclose(other.prior, SHARES)
    for role in ROLES:
        before = fitted.logits(data[0], role)
        np.testing.assert_array_equal(other.logits(data[0], role, "balanced"), before)
        np.testing.assert_array_equal(other.logits(data[0], role), fitted.logits(data[0], role, prior=SHARES))
    np.testing.assert_array_equal(other.class_marginal(data[0]), fitted.class_marginal(data[0]))
    labels = fitted.surrogate_labels(data[0]).labels
    np.testing.assert_array_equal(other.surrogate_labels(data[0]).labels, labels)
    other.prior = "balanced"
    np.testing.assert_array_equal(other.predict_proba(data[0]), fitted.predict_proba(data[0]))
    given = np.array([1.0, 1, 1, 1])
    other.prior = given
    given[0] = 100  # what was given is not what is kept
    assert other.prior.tolist() == [0.25] * 4


@pytest.mark.parametrize("prior", ["balanced", "estimated", SHARES])
def test_files_and_pickles_keep_it(data, fitted, prior, tmp_path):
    fitted.prior = prior
    fitted.save(tmp_path / "model.npz")
    for copied in (FittedDSink.load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(copied.prior, fitted.prior)
        np.testing.assert_array_equal(copied.class_shares, fitted.class_shares)
        np.testing.assert_allclose(copied.predict_proba(data[0]), fitted.predict_proba(data[0]), atol=1e-5)


def test_files_of_the_format_before_and_damaged_ones_are_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays.pop("about")))

    def refused(about, arrays):
        np.savez(tmp_path / "other.npz", about=np.array(json.dumps(about)), **arrays)
        with pytest.raises(
            InputError, match="is not a file that a fitted model was saved in, or is"
        ) as caught:
            FittedDSink.load(tmp_path / "other.npz")
        return str(caught.value)

    old = {name: array for name, array in arrays.items() if name != "class_shares"}
    without = {name: value for name, value in about.items() if name != "prior"}
    assert "'dsink-jax fitted 3'" in refused({**without, "format": "dsink-jax fitted 3"}, old)
    assert "at least 0" in refused({**about, "prior": [1, -1, 0, 0]}, arrays)
    assert "class_shares has shape [2]" in refused(about, {**arrays, "class_shares": np.ones(2)})


WRONG = {
    "another word": ("uniform", 'Unknown prior \'uniform\'. It must be "balanced", "estimated" or an array'),
    "too few": ([0.5, 0.5], r"one share for each of 4 classes, got [2]"),
    "a number": (0.5, r"one share for each of 4 classes, got []"),
    "below 0": ([1, 1, 1, -0.5], "finite and at least 0, got -0.5 for class 3"),
    "NaN": ([1, float("nan"), 1, 1], "finite and at least 0, got nan for class 1"),
    "infinity": ([float("inf"), 1, 1, 1], "finite and at least 0, got inf for class 0"),
    "all 0": (np.zeros(4), "cannot all be 0"),
    "words": (["1", "1", "1", "1"], 'cannot be an array of <U1. It must be "balanced"'),
    "rows of two lengths": ([[1, 1], [1]], "not one array"),
    "a dictionary": ({0: 1.0}, 'cannot be {0: 1.0}. It must be "balanced"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_prior_is_refused_before_anything_is_trained(data, fitted, name, tmp_path):
    prior, message = WRONG[name]

    def sets():
        fitted.prior = prior

    for call in (
        lambda: fit(*data, prior=prior, directory=tmp_path / "fit"),
        lambda: fitted.predict(data[0], prior=prior),
        sets,
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "fit").exists()


def test_large_and_small_shares_are_no_trouble(data, fitted):
    for shares in ([1e308] * 4, [5e-324] * 4):
        np.testing.assert_array_equal(
            fitted.predict(data[0], prior=shares), fitted.predict(data[0], prior="balanced")
        )
    assert np.isfinite(fitted.logits(data[0], prior=[1, 1e-300, 1, 1])).all()


def test_a_directory_of_a_fit_is_the_same_for_any_prior(data, tmp_path):
    how = {**QUICK, "epochs": 1, "target": False, "directory": tmp_path, "devices": jax.devices()[:1]}
    first, again = (fit(*data, prior=prior, **how) for prior in ("balanced", "estimated"))
    assert again.prior == "estimated"
    balanced = (one.logits(data[0], "noise_robust_adjusted", "balanced") for one in (first, again))
    np.testing.assert_array_equal(*balanced)


NAMES = np.array(["d", "c", "b", "a"])  # classes_ is the other way round


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1])


def test_the_classifiers_prior_may_be_changed_after_its_fit(data, one_device):
    vectors, labels = data
    classifier = DSinkClassifier(**QUICK, role="noise_robust_adjusted").fit(vectors, NAMES[labels])
    fitted = classifier.fitted_
    balanced = classifier.predict_proba(vectors)
    assert "b" in classifier.predict(vectors)
    classifier.set_params(prior=[0.3, 0.0, 0.2, 0.5])  # of a, b, c, d
    assert classifier.fitted_ is fitted
    expected = balanced * np.array([0.3, 0.0, 0.2, 0.5])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(vectors), expected, atol=1e-5)
    assert (classifier.predict(vectors) == classifier.classes_[expected.argmax(1)]).all()
    copied = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_allclose(copied.predict_proba(vectors), expected, atol=1e-5)
    assert clone(classifier).prior == [0.3, 0.0, 0.2, 0.5]
    classifier.set_params(prior="balanced")
    np.testing.assert_array_equal(classifier.predict_proba(vectors), balanced)
    for wrong in ("uniform", [1.0, 1.0]):
        with pytest.raises(ValueError, match="prior"):
            classifier.set_params(prior=wrong).predict(vectors)
        with pytest.raises(ValueError, match="prior"):
            DSinkClassifier(**QUICK, prior=wrong).fit(vectors, NAMES[labels])


def test_a_search_over_priors(data, one_device):
    """Labels that are of two classes alone are best foreseen by the shares that say so."""
    vectors, labels = data
    some = labels < 2
    classifier = DSinkClassifier(**QUICK, role="noise_robust_adjusted")
    named, kept = NAMES[labels], NAMES[:2]
    grid = {"prior": ["balanced", np.array([0.0, 0.0, 1.0, 1.0])]}

    def of_the_two(estimator, X, y):
        chosen = np.isin(y, kept)
        return estimator.score(X[chosen], y[chosen])

    assert some.any()
    search = GridSearchCV(classifier, grid, cv=2, scoring=of_the_two).fit(vectors, named)
    np.testing.assert_array_equal(search.best_params_["prior"], grid["prior"][1])
    assert set(search.best_estimator_.predict(vectors)) == set(kept)
