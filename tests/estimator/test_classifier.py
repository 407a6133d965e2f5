"""`DSinkClassifier` by scikit-learn's own checks, and in its pipelines and searches."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from blobs import blobs
from dsink_jax import DSinkClassifier, fit
from dsink_jax.estimator import Settings
from dsink_jax.methods import EarlyLearningRegularization

QUICK = {"epochs": 20, "batch_size": 16}


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """As on most people's machines; several are for the tests of `fit`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1])
        yield


@pytest.mark.slow
@parametrize_with_checks([DSinkClassifier(**QUICK)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_parameters_are_the_settings():
    parameters = DSinkClassifier().get_params()
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    assert parameters.keys() - fields.keys() == {"role", "prior", "random_state", "verbose"}
    for name, field in fields.items():
        assert parameters[name] == field.default


@pytest.fixture(scope="module")
def iris():
    data = load_iris()
    return data.data, data.target_names[data.target]


@pytest.fixture(scope="module")
def classifier(iris):
    return DSinkClassifier(**QUICK).fit(*iris)


def test_labels_are_words_in_sorted_order(iris, classifier):
    features, labels = iris
    assert classifier.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert classifier.score(features, labels) > 0.9
    probabilities = classifier.predict_proba(features)
    assert (classifier.predict(features) == classifier.classes_[probabilities.argmax(1)]).all()
    assert classifier.surrogate_labels(features).labels.shape == (150, 3)
    log_probabilities = classifier.predict_log_proba(features)
    np.testing.assert_allclose(np.exp(log_probabilities), probabilities, atol=1e-6)
    assert np.isfinite(classifier.predict_log_proba(1e4 * features)).all()


def test_another_role_predicts_and_needs_no_target(iris, classifier):
    features, labels = iris
    adjusted = DSinkClassifier(**QUICK, role="noise_robust_adjusted").fit(features, labels)
    assert set(adjusted.fitted_.parts) == {"noise_robust", "imbalance_robust"}
    expected = classifier.fitted_.predict_proba(features, "noise_robust_adjusted")
    np.testing.assert_array_equal(adjusted.predict_proba(features), expected)
    assert (adjusted.predict(features) == adjusted.classes_[expected.argmax(1)]).all()
    with pytest.raises(ValueError, match="target"):
        adjusted.surrogate_labels(features)
    with pytest.raises(ValueError, match="Unknown role 'teacher'"):
        DSinkClassifier(**QUICK, role="teacher").fit(features, labels)


def test_labels_of_two_kinds_are_named(iris):
    features, labels = iris
    for given in ([labels[0], None, labels[2]], [None, labels[0], labels[2]]):
        with pytest.raises(ValueError, match=r"of one kind, got NoneType and str_?\. Leave out"):
            DSinkClassifier(**QUICK).fit(features[:3], np.array(given, object))


def test_it_is_fit_with_numbered_labels(iris, classifier):
    features, _ = iris
    numbered = fit(features.astype(np.float32), load_iris().target, **QUICK)
    np.testing.assert_array_equal(numbered.predict_proba(features), classifier.predict_proba(features))


def test_pickled_and_cloned(iris, classifier):
    copied = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_allclose(copied.predict_proba(iris[0]), classifier.predict_proba(iris[0]), atol=1e-6)
    assert clone(classifier).get_params() == classifier.get_params()


@pytest.mark.slow
def test_in_a_pipeline_under_a_search(iris):
    """Over numbers of the fit, and over options of a method that is given as an object."""
    method = EarlyLearningRegularization(momentum=0.9)
    pipeline = make_pipeline(MinMaxScaler(), DSinkClassifier(**QUICK, noise_method=method))
    grid = {
        "dsinkclassifier__alpha": [0.0, 10.0],
        "dsinkclassifier__learning_rate": [0.05, 0.2],
        "dsinkclassifier__noise_method__momentum": [0.1, 0.8],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(*iris)
    assert search.best_score_ > 0.8
    best = search.best_estimator_[-1]
    momentum = search.best_params_["dsinkclassifier__noise_method__momentum"]
    assert best.noise_method == EarlyLearningRegularization(momentum=momentum)
    assert best.fitted_.parts["noise_robust"].method.momentum == momentum
    assert method.momentum == 0.9  # what was given is as it was


def test_options_of_methods_are_parameters():
    classifier = DSinkClassifier(noise_method=EarlyLearningRegularization(momentum=0.9))
    assert classifier.get_params()["noise_method__momentum"] == 0.9
    copied = clone(classifier).set_params(noise_method__weight=1.0)
    assert copied.noise_method == EarlyLearningRegularization(1.0, 0.9)
    assert classifier.noise_method == EarlyLearningRegularization(momentum=0.9)
    with pytest.raises(ValueError, match=r"momentum must be in \[0\.0, 1\.0\]"):
        copied.set_params(noise_method__momentum=2.0)
    assert copied.noise_method.momentum == 0.9


def test_errors_are_plain(iris):
    features, labels = iris
    with pytest.raises(ValueError, match="Did you mean 'elr'"):
        DSinkClassifier(noise_method="erl").fit(features, labels)
    with pytest.raises(ValueError, match="one class: setosa"):
        DSinkClassifier().fit(features[:50], labels[:50])


def test_random_state_is_a_seed_or_draws_one_and_curves_are_kept():
    vectors, labels = blobs(40, seed=0)
    how = {"epochs": 3, "batch_size": 16, "role": "noise_robust"}

    def of(**given):
        return DSinkClassifier(**how, **given).fit(vectors, labels)

    seeded = of(seed=3)
    for same in (of(random_state=3), of(random_state=3, seed=8)):
        np.testing.assert_array_equal(same.predict_proba(vectors), seeded.predict_proba(vectors))
    drawn = [of(random_state=kind(5)) for kind in (np.random.RandomState, np.random.default_rng)]
    for one, kind in zip(drawn, (np.random.RandomState, np.random.default_rng), strict=True):
        np.testing.assert_array_equal(
            of(random_state=kind(5)).predict_proba(vectors), one.predict_proba(vectors)
        )
    assert (drawn[0].predict_proba(vectors) != drawn[1].predict_proba(vectors)).any()
    records = seeded.fitted_.parts["noise_robust"].history
    assert seeded.history_.keys() == {"noise_robust", "imbalance_robust"}
    assert seeded.history_["noise_robust"]["loss"].tolist() == [one["train"]["loss"] for one in records]
    assert len(records) == 3
