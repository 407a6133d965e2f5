"""`fit` with examples of no class: what is known, by its formula, and what the target does not learn."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, softmax

from blobs import blobs
from dsink_jax import (
    FittedDSink,
    InputError,
    estimate_known_share,
    fit,
    open_set_class_marginal,
    open_set_surrogate_labels,
)
from dsink_jax.estimator.classifier import DSinkClassifier

CLASSES = 4
HOW = {"epochs": 20, "batch_size": 64, "num_classes": CLASSES}


def with_strangers(seed=0, known=450, unknown=150):
    """Vectors of four classes far from the middle, and some near it with one of the first two labels."""
    vectors, labels = blobs(known, seed=seed)
    rng = np.random.default_rng(seed + 100)
    strangers = vectors.mean(0) + 0.7 * rng.standard_normal((unknown, vectors.shape[1]))
    given = np.concatenate([labels, rng.integers(0, 2, unknown)])
    order = rng.permutation(known + unknown)
    is_known = np.arange(known + unknown) < known
    return np.concatenate([vectors, strangers])[order].astype(np.float32), given[order], is_known[order]


@pytest.fixture(scope="module")
def data():
    return with_strangers()


@pytest.fixture(scope="module")
def fitted(data):
    vectors, given, is_known = data
    return fit(vectors, given, known_share=float(is_known.mean()), devices=jax.devices()[:1], **HOW)


def energies(fitted, vectors):
    return sum(
        logsumexp(fitted.logits(vectors, role).astype(float), axis=1) / 2
        for role in ("target", "noise_robust")
    )


def test_known_is_the_sigmoid_of_the_energy_above_the_level(data, fitted):
    vectors, _, is_known = data
    energy, share = energies(fitted, vectors), is_known.mean()
    level = brentq(lambda b: expit(energy - b).mean() - share, -50, 50)
    known = fitted.known_probability(vectors)
    assert known.shape == (len(vectors),) and known.dtype == np.float32
    np.testing.assert_allclose(known, expit(energy - level), atol=1e-4)
    assert known.mean() == pytest.approx(share, abs=1e-4)
    # Each by itself: what else is asked changes nothing.
    np.testing.assert_allclose(fitted.known_probability(vectors[:7]), known[:7], atol=1e-6)


def test_strangers_are_known_less(fitted):
    vectors, _, is_known = with_strangers(seed=5)
    known = fitted.known_probability(vectors)
    ranks = known[is_known][:, None] > known[~is_known]
    assert ranks.mean() > 0.9  # the area under the curve


def test_the_target_is_less_sure_of_strangers_than_that_of_a_closed_fit(data, fitted):
    vectors, given, _ = data
    decay = fitted.settings.weight_decay_of_heads
    closed = fit(vectors, given, devices=jax.devices()[:1], weight_decay=decay, **HOW)
    test, labels, is_known = with_strangers(seed=6)
    sure = [softmax(each.logits(test), 1).max(1)[~is_known].mean() for each in (fitted, closed)]
    assert sure[0] < sure[1]
    right = [(each.predict(test) == labels)[is_known].mean() for each in (fitted, closed)]
    assert right[0] >= right[1] - 0.01


def test_surrogate_labels_are_those_of_the_open_set(data, fitted):
    vectors, _, is_known = data
    z, z_n, z_l = (fitted.logits(vectors, role) for role in ("target", "noise_robust", "imbalance_robust"))
    share = float(is_known.mean())
    marginal = open_set_class_marginal(z_l, z, z_n, share)
    expected = open_set_surrogate_labels(z, z_n, marginal, share)
    found = fitted.surrogate_labels(vectors)
    np.testing.assert_allclose(found.known, expected.known, atol=1e-5)
    np.testing.assert_allclose(found.labels, expected.labels, atol=1e-5)


def test_an_estimated_share_is_that_of_the_auxiliary_models(data):
    vectors, given, _ = data
    fitted = fit(vectors, given, known_share="estimated", devices=jax.devices()[:1], **HOW)
    share = estimate_known_share(
        fitted.logits(vectors, "imbalance_robust"), fitted.logits(vectors, "noise_robust")
    )
    assert fitted.known.share == pytest.approx(share, abs=1e-5)
    assert fitted.known_probability(vectors).mean() == pytest.approx(share, abs=1e-3)
    # And it is what the target was trained with.
    given_share = fit(vectors, given, known_share=fitted.known.share, devices=jax.devices()[:1], **HOW)
    np.testing.assert_allclose(given_share.logits(vectors), fitted.logits(vectors), atol=1e-5)


def test_a_file_keeps_what_is_known(data, fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    assert loaded.known == fitted.known
    np.testing.assert_array_equal(loaded.known_probability(data[0]), fitted.known_probability(data[0]))


def test_the_classifier_tells_too(data, fitted):
    vectors, given, is_known = data
    classifier = DSinkClassifier(epochs=20, batch_size=64, known_share=float(is_known.mean()))
    known = classifier.fit(vectors, given).known_probability(vectors)
    np.testing.assert_allclose(known, fitted.known_probability(vectors), atol=1e-2)


@pytest.mark.parametrize("how", [{}, {"known_share": 0.5, "target": False}])
def test_fits_that_know_nothing_of_it_say_so(data, how):
    vectors, given, _ = data
    fitted = fit(vectors[:80], given[:80], epochs=1, num_classes=CLASSES, selection=False, **how)
    with pytest.raises(InputError, match="known_share below 1"):
        fitted.known_probability(vectors)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True, "guessed", None])
def test_shares_out_of_range_are_refused(data, share):
    with pytest.raises(InputError, match=r"known_share must be in \(0, 1\] or 'estimated'"):
        fit(data[0], data[1], known_share=share)
