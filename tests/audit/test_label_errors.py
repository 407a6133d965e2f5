"""Which labels are wrong: Q against a reference, Bayes' rule written out, and known corruption."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, log_softmax, logsumexp

from allocation_references import reference_labels
from dsink_jax import InputError, estimate_known_share
from dsink_jax.audit import find_label_errors
from dsink_jax.noise_model import fit_noise_model


def models(count=300, num_classes=4, seed=0, sharpness=3.0):
    """Predictions of two models around true classes, the labels given, and the true ones."""
    rng = np.random.default_rng(seed)
    shares = 0.5 ** np.arange(num_classes)
    true = rng.choice(num_classes, count, p=shares / shares.sum())
    eye = sharpness * np.eye(num_classes)[true]
    noise_robust, imbalance_robust = eye + rng.normal(size=(2, count, num_classes))
    labels = np.where(rng.random(count) < 0.3, rng.integers(0, num_classes, count), true)
    return labels, noise_robust, imbalance_robust, true


def written_out(labels, *models):
    """The same in float64 and loop by loop, from the noise model of the models' mean on."""
    count, num_classes = models[0].shape
    mean = sum(log_softmax(logits, 1) for logits in models) / len(models)
    model = fit_noise_model(mean.astype(np.float32), labels, balanced=False)
    scaled = mean / model.temperature
    surrogate = reference_labels(scaled, scaled, model.class_shares.astype(float))
    given = np.bincount(labels, minlength=num_classes) / count
    kept = np.mean(np.diag(model.transition_matrix))
    noise = np.zeros((num_classes, num_classes))
    for true in range(num_classes):
        for seen in range(num_classes):
            common = kept if true == seen else (1 - kept) * given[seen] / (1 - given[true])
            noise[true, seen] = (model.transition_matrix[true, seen] + common) / 2
    probabilities = np.zeros((count, num_classes))
    for i in range(count):
        joint = [surrogate[i, true] * noise[true, labels[i]] for true in range(num_classes)]
        probabilities[i] = np.asarray(joint) / sum(joint)
    return model.class_shares, surrogate, probabilities, noise


@pytest.mark.parametrize("more", [0, 1])
def test_every_step_written_out(more):
    labels, *two, _ = models()
    others = models(seed=1)[1 : 1 + more]
    found = find_label_errors(labels, *two, others)
    marginal, surrogate, probabilities, noise = written_out(labels, *two, *others)
    np.testing.assert_allclose(found.class_marginal, marginal, atol=1e-6)
    np.testing.assert_allclose(found.surrogate_labels, surrogate, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-4)
    np.testing.assert_allclose(found.noise, noise, atol=1e-4)
    rows = np.arange(len(labels))
    np.testing.assert_allclose(found.wrong_probability, 1 - found.probabilities[rows, labels], atol=1e-7)
    assert (found.proposed == found.probabilities.argmax(1)).all()
    np.testing.assert_allclose(found.confidence, found.probabilities.max(1))


def test_known_corruption_is_found_and_its_rates():
    labels, noise_robust, imbalance_robust, true = models(4000, sharpness=6.0)
    found = find_label_errors(labels, noise_robust, imbalance_robust)
    wrong = labels != true
    assert (found.is_wrong == wrong).mean() > 0.97
    assert (found.proposed == true).mean() > 0.97
    # Drawn from all four classes at a rate of 0.3, a quarter of which hits the true one.
    np.testing.assert_allclose(found.noise, 0.7 * np.eye(4) + 0.3 / 4, atol=0.06)
    np.testing.assert_allclose(found.class_marginal, np.bincount(true) / 4000, atol=0.03)
    # A probability is one: of those about 0.9, nine of ten are wrong.
    assert found.wrong_probability.mean() == pytest.approx(wrong.mean(), abs=0.02)
    worst = found.ranking[: wrong.sum() // 2]
    assert wrong[worst].all()


def test_log_probabilities_are_logits():
    labels, noise_robust, imbalance_robust, _ = models(50)
    one = find_label_errors(labels, noise_robust, imbalance_robust)
    other = find_label_errors(labels, log_softmax(noise_robust, 1), log_softmax(imbalance_robust, 1))
    np.testing.assert_allclose(one.wrong_probability, other.wrong_probability, atol=1e-4)


@given(seed=st.integers(0, 2**20), count=st.sampled_from([1, 20]), num_classes=st.sampled_from([2, 5]))
def test_probabilities_are_probabilities(seed, count, num_classes):
    labels, noise_robust, imbalance_robust, _ = models(count, num_classes, seed, sharpness=30.0)
    found = find_label_errors(labels, noise_robust, imbalance_robust)
    for rows in (found.probabilities, found.surrogate_labels, found.noise):
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-4)
    assert ((found.wrong_probability >= 0) & (found.wrong_probability <= 1)).all()
    assert sorted(found.ranking.tolist()) == list(range(count))
    assert (np.diff(found.wrong_probability[found.ranking]) <= 0).all()


def test_models_that_rule_out_every_class_between_them():
    with np.errstate(divide="ignore"):
        noise_robust = np.log(np.eye(3)[[0] * 4 + [1] * 5])
        imbalance_robust = np.log(np.eye(3)[[0] * 4 + [1] * 4 + [2]])
    found = find_label_errors(np.array([0] * 4 + [1] * 5), noise_robust, imbalance_robust)
    assert np.isfinite(found.probabilities).all()
    assert not found.is_wrong.any()


@pytest.mark.parametrize("seed", range(4))
def test_models_that_know_nothing_exchange_no_classes(seed):
    """Each class keeps its own label as often as any other; more doubt than guessing would be is not cast."""
    labels, _, _, _ = models(200)
    noise_robust, imbalance_robust = np.random.default_rng(seed).normal(size=(2, 200, 4))
    found = find_label_errors(labels, noise_robust, imbalance_robust)
    assert (np.diag(found.noise) >= found.noise.max(1) - 1e-6).all()
    assert found.wrong_probability.mean() < 3 / 4


def test_order_of_examples_does_not_matter():
    labels, noise_robust, imbalance_robust, _ = models(100)
    order = np.random.default_rng(1).permutation(100)
    one = find_label_errors(labels, noise_robust, imbalance_robust)
    other = find_label_errors(labels[order], noise_robust[order], imbalance_robust[order])
    np.testing.assert_allclose(one.wrong_probability[order], other.wrong_probability, atol=1e-4)


LABELS, LOGITS = np.array([0, 1, 1]), np.zeros((3, 2))
NAN = np.array([[0.0, 0.0], [np.nan, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((LABELS[:2], LOGITS, LOGITS), "one label for each of 3 examples, got 2"),
        ((LABELS + 1, LOGITS, LOGITS), "must be in [0, 2)"),
        ((LABELS, LOGITS, LOGITS[:, :1]), "must have one shape"),
        ((LABELS, LOGITS, LOGITS, [LOGITS[:2]]), "must have one shape"),
        ((LABELS, LOGITS[0], LOGITS), "floating [M, C]"),
        ((LABELS, LOGITS.astype(int), LOGITS), "floating [M, C]"),
        ((LABELS[:0], LOGITS[:0], LOGITS[:0]), "floating [M, C]"),
        ((LABELS, NAN, LOGITS), "example 1 hold NaN"),
        ((LABELS * 0, LOGITS[:, :1], LOGITS[:, :1]), "at least 2 classes"),
        ((LABELS, LOGITS, np.full((3, 2), -np.inf)), "example 0 hold NaN or are no prediction"),
    ],
)
def test_bad_input_is_named(arguments, said):
    with pytest.raises(InputError) as caught:
        find_label_errors(*arguments)
    assert said in str(caught.value)


def with_unknown(unknown=100):
    """The same, and examples that no model is sure of."""
    labels, noise_robust, imbalance_robust, _ = models(sharpness=6.0)
    rng = np.random.default_rng(9)
    more = rng.normal(size=(2, unknown, 4))
    given = rng.integers(0, 4, unknown)
    of_two = (np.concatenate(pair) for pair in zip((noise_robust, imbalance_robust), more, strict=True))
    return np.concatenate([labels, given]), *of_two


def test_known_is_the_sigmoid_of_the_energy_above_the_level():
    labels, noise_robust, imbalance_robust = with_unknown()
    energy = (logsumexp(noise_robust, 1) + logsumexp(imbalance_robust, 1)) / 2
    level = brentq(lambda b: expit(energy - b).mean() - 0.75, -50, 50)
    found = find_label_errors(labels, noise_robust, imbalance_robust, known_share=0.75)
    np.testing.assert_allclose(found.known, expit(energy - level), atol=1e-4)
    # The rest is as it would be, but for labels of examples of no class.
    closed = find_label_errors(labels, noise_robust, imbalance_robust)
    assert closed.known is None and not closed.is_none.any()
    np.testing.assert_array_equal(found.probabilities, closed.probabilities)
    rows = np.arange(len(labels))
    expected = 1 - found.probabilities[rows, labels] * expit(energy - level)
    np.testing.assert_allclose(found.wrong_probability, expected, atol=1e-4)
    assert found.is_none[300:].mean() > 0.9 > 0.1 > found.is_none[:300].mean()
    assert found.is_wrong[found.is_none].all()


def test_an_estimated_share_is_that_of_the_energies():
    labels, noise_robust, imbalance_robust = with_unknown()
    found = find_label_errors(labels, noise_robust, imbalance_robust, known_share="estimated")
    share = estimate_known_share(imbalance_robust, noise_robust)
    assert found.known.mean() == pytest.approx(share, abs=1e-4)
    assert share == pytest.approx(0.75, abs=0.05)


def test_where_the_energies_are_of_one_kind_all_are_known():
    labels, noise_robust, imbalance_robust, _ = models()
    found = find_label_errors(labels, noise_robust, imbalance_robust, known_share="estimated")
    assert (found.known == 1).all()


@pytest.mark.parametrize("share", [0, 1.5, "guessed", None, True, float("nan")])
def test_shares_out_of_range_are_refused(share):
    labels, noise_robust, imbalance_robust, _ = models(20)
    with pytest.raises(InputError, match=r"known_share must be in \(0, 1\]"):
        find_label_errors(labels, noise_robust, imbalance_robust, known_share=share)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn, np.float16])
def test_logits_of_few_bits_count_as_their_float32_values(dtype):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    logits = (3 * np.eye(3)[labels] + rng.normal(size=(30, 3))).astype(dtype)
    found = find_label_errors(labels, logits, logits)
    expected = find_label_errors(labels, logits.astype(np.float32), logits.astype(np.float32))
    np.testing.assert_array_equal(found.wrong_probability, expected.wrong_probability)


def test_probabilities_of_one_model_are_judged_as_their_logarithms_twice():
    labels, logits, _, _ = models()
    found = find_label_errors(labels, pred_probs=np.exp(log_softmax(logits, 1)))
    expected = find_label_errors(labels, logits, logits)
    np.testing.assert_allclose(found.wrong_probability, expected.wrong_probability, atol=1e-4)
    table = found.columns()
    assert list(table) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    np.testing.assert_array_equal(table["given_label"], labels)
    np.testing.assert_array_equal(np.argsort(table["label_score"], kind="stable"), found.ranking)
    np.testing.assert_array_equal(table["is_label_issue"], table["label_score"] < 0.5)
    np.testing.assert_array_equal(table["predicted_label"], found.probabilities.argmax(1))


def test_logits_and_probabilities_in_each_others_place_are_told():
    labels, logits, other, _ = models(30)
    probabilities = np.exp(log_softmax(logits, 1))
    for wrong in (logits, np.log(probabilities), 2 * probabilities, -probabilities):
        with pytest.raises(InputError, match="must be probabilities"):
            find_label_errors(labels, pred_probs=wrong)
    with pytest.raises(InputError, match="logits are probabilities"):
        find_label_errors(labels, other, probabilities)
    with pytest.raises(InputError, match="not both"):
        find_label_errors(labels, other, logits, pred_probs=probabilities)
    with pytest.raises(InputError, match="or pred_probs"):
        find_label_errors(labels, other)
    with pytest.raises(InputError, match="energies"):
        find_label_errors(labels, pred_probs=probabilities, known_share=0.9)
    probabilities[3, 0] = np.nan
    with pytest.raises(InputError, match="example 3"):
        find_label_errors(labels, pred_probs=probabilities)
