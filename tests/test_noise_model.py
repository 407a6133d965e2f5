"""The noise model against the same in plain NumPy, and against noise, shares and posteriors known."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from dsink_jax import noise_model
from dsink_jax.noise_model import TEMPERATURES, fit_noise_model

MATRIX = np.array([[0.80, 0.15, 0.05], [0.10, 0.80, 0.10], [0.25, 0.05, 0.70]])  # P(given | true)
SHARES = np.array([0.6, 0.3, 0.1])
CENTRES = 2.5 * np.array([[0, 0], [1, 0], [0.5, 0.9]])
OTHER_PRIOR = np.array([0.2, 0.1, 0.7])

compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
)


def planted(count, seed=0):
    """Balanced logits `[M, 3]` of the one who knows three Gaussian classes, labels as given, true ones."""
    rng = np.random.default_rng(seed)
    true = rng.choice(3, count, p=SHARES)
    points = CENTRES[true] + rng.standard_normal((count, 2))
    given = (rng.random(count)[:, None] > MATRIX.cumsum(1)[true]).sum(1)
    return -0.5 * ((points[:, None] - CENTRES) ** 2).sum(-1), given, true


def posteriors(logits, given):
    """What the one who knows shares and noise too says of the true class, before and after the label."""
    predictions = softmax(logits + np.log(SHARES), 1)
    joint = predictions * MATRIX[:, given].T
    return predictions, joint / joint.sum(1, keepdims=True)


def by_numpy(logits, given, *, balanced):
    """The same by loops over temperatures, iterations and classes, in float64."""
    count, classes = logits.shape
    share_given = np.array([np.mean(given == c) for c in range(classes)])
    best, scores = None, []
    for temperature in TEMPERATURES:
        own = np.maximum(logits - logits.max(1, keepdims=True), -30) / temperature
        shares, offset = share_given, np.log(np.maximum(share_given, 1e-9))
        matrix = 0.7 * np.eye(classes) + 0.3 * share_given
        for _ in range(40):
            predictions = softmax(own + offset, 1)
            joint = np.stack([predictions[i] * matrix[:, given[i]] for i in range(count)])
            believed = joint / joint.sum(1, keepdims=True)
            together = np.zeros((classes, classes))
            for c in range(classes):
                together[:, c] = believed[given == c].sum(0)
            kept = sum(together[c, c] for c in range(classes)) / count
            for true in range(classes):
                for c in range(classes):
                    together[true, c] += 2 * (kept if true == c else (1 - kept) * share_given[c])
                together[true, true] = together[true].max()  # no class is given another's label more often
            matrix = together / together.sum(1, keepdims=True)
            shares = (shares + believed.mean(0)) / 2
            log_shares = np.log(np.maximum(shares, 1e-9))
            if balanced:
                offset = log_shares
            else:
                offset = offset + log_shares - np.log(np.maximum(predictions.mean(0), 1e-9))
        predictions = softmax(own + offset, 1)
        joint = np.stack([predictions[i] * matrix[:, given[i]] for i in range(count)])
        fits = np.log(np.maximum(joint.sum(1), 1e-9))
        gains = [fits[given == c].mean() - np.log(share_given[c]) for c in np.unique(given)]
        roots = [np.sqrt(share_given[c]) for c in np.unique(given)]
        scores.append(fits.mean() + np.average(gains, weights=roots))
        found = {
            "temperature": temperature,
            "class_shares": shares,
            "transition_matrix": matrix,
            "predictions": predictions,
            "probabilities": joint / joint.sum(1, keepdims=True),
        }
        if best is None or fits.mean() > best[0]:
            best = fits.mean(), found
    of_score = {"score": max(scores), "score_temperature": TEMPERATURES[np.argmax(scores)]}
    return best[1] | of_score


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(
    "case", ["as it is", "shifted", "too sure", "a class ruled out", "a class unlabelled"]
)
def test_it_is_the_same_in_plain_numpy(case, balanced):
    logits, given, _ = planted(400, seed=3)
    if case == "shifted":
        logits = logits + np.log(OTHER_PRIOR)
    elif case == "too sure":
        logits = 1.7 * logits
    elif case == "a class ruled out":
        logits[::3, 2] = -np.inf
    elif case == "a class unlabelled":
        given[given == 2] = 1
    found = fit_noise_model(logits.astype(np.float32), given, balanced=balanced)
    expected = by_numpy(logits, given, balanced=balanced)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, atol=2e-3, err_msg=name)


@pytest.fixture(scope="module")
def many():
    return planted(20_000)


@pytest.mark.parametrize("balanced", [True, False])
def test_planted_noise_and_shares_are_found(many, balanced):
    """By a model that knows the classes, and nothing of how often they occur or are mistaken."""
    logits, given, true = many
    predictions, probabilities = posteriors(logits, given)
    found = fit_noise_model(logits.astype(np.float32), given, balanced=balanced)
    assert found.temperature == 1
    np.testing.assert_allclose(found.class_shares, SHARES, atol=0.015)
    np.testing.assert_allclose(found.transition_matrix, MATRIX, atol=0.03)
    assert np.abs(found.predictions - predictions).mean() < 0.01
    assert np.abs(found.probabilities - probabilities).mean() < 0.01
    # As good as by the truth: nine labels of ten, where one of five is wrong.
    right = (found.probabilities.argmax(1) == true).mean()
    assert right > (probabilities.argmax(1) == true).mean() - 0.003 > np.mean(given == true) + 0.1


def test_any_prior_of_the_model_gives_the_same_unless_it_is_balanced(many):
    logits, given, _ = many
    shifted = logits + np.log(OTHER_PRIOR)
    one, other = (fit_noise_model(each, given, balanced=False) for each in (logits, shifted))
    np.testing.assert_allclose(one.class_shares, other.class_shares, atol=0.01)
    np.testing.assert_allclose(one.transition_matrix, other.transition_matrix, atol=0.03)
    assert one.score == pytest.approx(other.score, abs=1e-3)
    assert np.abs(one.probabilities - other.probabilities).mean() < 0.01
    taken_for_balanced = fit_noise_model(shifted, given, balanced=True)
    assert np.abs(taken_for_balanced.class_shares - SHARES).max() > 0.03
    assert taken_for_balanced.score < other.score - 0.001


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_temperature_is_found(many, temperature):
    logits, given, _ = many
    found = fit_noise_model(temperature * logits[:4000], given[:4000], balanced=True)
    assert found.temperature == pytest.approx(temperature)
    np.testing.assert_allclose(found.class_shares, SHARES, atol=0.03)


def test_the_better_model_has_the_higher_score(many):
    """To see through the noise is better than to repeat it, and to know more of the inputs too."""
    logits, given, _ = (each[:4000] for each in many)
    rng = np.random.default_rng(1)
    of_noise = np.log(softmax(logits, 1) @ MATRIX)  # what a model that fits the labels as given says
    models = {
        "the truth": logits,
        "the noise too": of_noise,
        "blurred": logits + 2 * rng.standard_normal(logits.shape),
        "more blurred": logits + 6 * rng.standard_normal(logits.shape),
        "nothing": 0 * logits,
    }
    scores = {name: fit_noise_model(own, given, balanced=True).score for name, own in models.items()}
    assert scores["the truth"] == pytest.approx(scores["the noise too"], abs=0.02)
    assert scores["the truth"] > scores["the noise too"]
    order = [scores[name] for name in models if name != "the noise too"]
    assert (np.diff(order) < -0.03).all(), scores
    # With nothing but the shares of the given labels to go by: their negative entropy.
    shares = np.bincount(given) / len(given)
    assert scores["nothing"] == pytest.approx((shares * np.log(shares)).sum(), abs=1e-3)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_class_without_labels(balanced):
    logits, given, true = planted(2000, seed=4)
    kept = (given < 2) & (true < 2)
    logits, given = logits[kept], given[kept]
    found = fit_noise_model(logits, given, balanced=balanced)
    assert found.class_shares[2] < 0.02 and found.transition_matrix[:2, 2].max() < 1e-6
    known = fit_noise_model(logits[:, :2], given, balanced=balanced)
    np.testing.assert_allclose(found.class_shares[:2], known.class_shares, atol=0.02)
    assert found.score == pytest.approx(known.score, abs=0.02)


def test_minus_infinity_is_next_to_impossible():
    """So a wrongly excluded class costs no infinity, and is like a logit far below."""
    logits, given, _ = planted(500, seed=5)
    logits[given == 2, 2] = -np.inf
    far = np.where(np.isinf(logits), -1e9, logits)
    one, other = (fit_noise_model(each, given, balanced=True) for each in (logits, far))
    for name, value in one._asdict().items():
        np.testing.assert_array_equal(value, getattr(other, name))
        assert np.isfinite(value).all()


def test_a_row_more_compiles_nothing_and_filled_rows_say_nothing():
    logits, given, _ = planted(1001, seed=6)
    fit_noise_model(logits[:1000], given[:1000], balanced=True)
    compilations.clear()
    found = fit_noise_model(logits, given, balanced=True)
    fit_noise_model(logits[:980] + 1, given[:980], balanced=True)
    assert not compilations
    assert found.predictions.shape == found.probabilities.shape == (1001, 3)
    # They are filled up to 1,024 rows, with labels 0.
    expected = by_numpy(logits, given, balanced=True)
    assert found.score == pytest.approx(expected["score"], abs=1e-4)
    np.testing.assert_allclose(found.class_shares, expected["class_shares"], atol=1e-4)


def test_of_large_sets_the_temperature_is_that_of_a_part(many, monkeypatch):
    """All else is of all rows, as it is where the whole is tried at each temperature."""
    logits, given, _ = many
    whole = fit_noise_model(0.5 * logits, given, balanced=True)
    monkeypatch.setattr(noise_model, "_LARGEST", logits.size // 8)
    found = fit_noise_model(0.5 * logits, given, balanced=True)
    assert found.temperature == pytest.approx(0.5)
    for name in ("class_shares", "transition_matrix", "predictions", "probabilities"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("of_labels", [np.uint8, np.int64])
def test_any_precision(dtype, of_labels):
    logits, given, _ = planted(300, seed=7)
    own = logits.astype(dtype)
    expected = fit_noise_model(own.astype(np.float64), given, balanced=False)
    found = fit_noise_model(own, given.astype(of_labels), balanced=False)
    for name, value in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert found.predictions.dtype == found.probabilities.dtype == np.float32
    assert found.class_shares.dtype == found.transition_matrix.dtype == np.float32
    of_jax = fit_noise_model(jnp.asarray(own), jnp.asarray(given), balanced=False)
    assert of_jax.score == pytest.approx(found.score, abs=1e-5)


ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@hypothesis.given(
    logits=hnp.arrays(np.float32, (12, 3), elements=ANY),
    given=hnp.arrays(np.int32, 12, elements=st.integers(0, 2)),
    balanced=st.booleans(),
)
def test_whatever_comes_in_probabilities_come_out(logits, given, balanced):
    found = fit_noise_model(logits, given, balanced=balanced)
    for rows in (found.class_shares[None], found.transition_matrix, found.predictions, found.probabilities):
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-4)
    assert np.isfinite(found.score)
    assert np.isclose(found.temperature, TEMPERATURES).any()


def test_sure_models_by_hand():
    """Six examples of class 0, one of which was given as 1, and four of class 1: counts say all."""
    sure = 200.0 * np.eye(2)[[0] * 6 + [1] * 4]
    given = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = fit_noise_model(sure, given, balanced=True)
    np.testing.assert_allclose(found.class_shares, [0.6, 0.4], atol=1e-4)
    # Two examples of each class stand in for what both have in common: nine labels of ten are right.
    together = np.array([[5, 1], [0, 4]]) + 2 * np.array([[0.9, 0.1 * 0.5], [0.1 * 0.5, 0.9]])
    np.testing.assert_allclose(found.transition_matrix, together / together.sum(1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(found.probabilities, np.eye(2)[[0] * 6 + [1] * 4], atol=1e-3)


L, G = np.zeros((3, 2)), np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (L[0], G, r"must be \[M, C\] and labels \[M\], got \[2\] and \[3\]"),
        (L, G[:2], r"got \[3, 2\] and \[2\]"),
        (L[:0], G[:0], r"got \[0, 2\] and \[0\]"),
        (L[:, :0], G, r"got \[3, 0\]"),
        (L.tolist(), G, "logits must be an array, got list"),
        (L, [0, 1, 0], "labels must be an array, got list"),
        (L.astype(int), G, "Logits must be floating, got int64"),
        (L, G + 0.5, "Labels must be integers, got float64"),
        (L, G + 1, r"Labels must be in \[0, 2\), got 1 to 2"),
        (L, G - 1, r"Labels must be in \[0, 2\), got -1 to 0"),
        (np.where(np.eye(3, 2), np.nan, L), G, "no NaN .* first in row 0"),
        (np.where(np.arange(3)[:, None] == 1, -np.inf, L), G, "first in row 1"),
        (np.where(np.arange(2) == 1, np.inf, L), G, "first in row 0"),
    ],
)
def test_other_arrays_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_noise_model(logits, labels, balanced=True)
