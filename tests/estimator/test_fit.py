"""`fit` on arrays: what it learns, what it predicts, what it keeps in a file, what it refuses."""

import gc
import pathlib

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from allocation_references import reference_labels
from blobs import WithDropout, blobs, corrupted_blobs, quarters
from dsink_jax import FittedDSink, InputError, fit, recipe
from dsink_jax.estimator import Settings
from dsink_jax.methods import ClassBalanced, CoTeaching, DSink, TransportReweighting, build_method, make_facts

QUICK = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def data():
    return corrupted_blobs()


@pytest.fixture(scope="module")
def fitted(data):
    return fit(*data, **QUICK, devices=jax.devices()[:1])


def test_the_three_models_predict(fitted):
    vectors, labels = blobs(200, seed=2)
    for role in ("target", "noise_robust", "imbalance_robust"):
        probabilities = fitted.predict_proba(vectors, role)
        assert probabilities.shape == (200, 4)
        np.testing.assert_allclose(probabilities, softmax(fitted.logits(vectors, role), 1), atol=1e-6)
        assert fitted.predict(vectors, role).tolist() == probabilities.argmax(1).tolist()
    # A third of the labels is wrong and a class has a fifth of another's examples; these are balanced.
    assert (fitted.predict(vectors) == labels).mean() > 0.9


def test_adjusted_noise_robust_model_is_the_published_formula(data, tmp_path):
    """Menon et al.: argmax of logits - log prior, here with the mean prediction on the training set."""
    fitted = fit(*data, **QUICK, selection=False, devices=jax.devices()[:1])
    prior = softmax(fitted.logits(data[0], "noise_robust").astype(float), 1).mean(0)
    np.testing.assert_allclose(fitted.class_prior, prior, rtol=1e-5)
    np.testing.assert_array_equal(fitted.class_shares, fitted.class_prior)  # there is nothing better
    vectors, labels = blobs(400, seed=2)
    by_hand = softmax(fitted.logits(vectors, "noise_robust"), 1) / prior
    by_hand /= by_hand.sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(vectors, "noise_robust_adjusted"), by_hand, atol=1e-5)
    rare = labels == np.bincount(data[1]).argmin()
    found = {
        role: (fitted.predict(vectors, role) == labels)[rare].mean()
        for role in ("noise_robust", "noise_robust_adjusted")
    }
    assert found["noise_robust_adjusted"] > found["noise_robust"]
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    assert (
        loaded.logits(vectors, "noise_robust_adjusted") == fitted.logits(vectors, "noise_robust_adjusted")
    ).all()


def test_where_the_noise_robust_model_is_balanced_there_is_nothing_to_adjust(fitted):
    assert fitted.parts["noise_robust"].method.is_balanced
    assert (fitted.class_prior == np.float32(1 / 4)).all()
    vectors, _ = blobs(40, seed=2)
    probabilities = fitted.predict_proba(vectors, "noise_robust")
    np.testing.assert_allclose(
        fitted.predict_proba(vectors, "noise_robust_adjusted"), probabilities, atol=1e-6
    )


def test_linear_model_is_its_formula(fitted):
    vectors, _ = blobs(10, seed=3)
    layer = fitted.parts["target"].variables["params"]["classifier"]
    mean, scale = fitted.standardization
    expected = ((vectors - mean) * scale) @ np.asarray(layer["kernel"], float) + layer["bias"]
    np.testing.assert_allclose(fitted.logits(vectors), expected, rtol=1e-4, atol=1e-4)


def test_features_are_standardised_over_the_training_set(data, fitted):
    vectors = data[0].astype(float)
    np.testing.assert_allclose(fitted.standardization.mean, vectors.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.standardization.scale, 1 / vectors.std(0), rtol=1e-5)


def test_surrogate_labels_are_the_batch_problem_of_all_inputs(fitted):
    vectors, _ = blobs(30, seed=4)
    target, noise_robust, imbalance_robust = (
        fitted.logits(vectors, role) for role in ("target", "noise_robust", "imbalance_robust")
    )
    marginal = np.exp(log_softmax(imbalance_robust.astype(float), 1)).mean(0)
    np.testing.assert_allclose(fitted.class_marginal(vectors), marginal, atol=1e-6)
    expected = reference_labels(target, noise_robust, marginal)
    allocation = fitted.surrogate_labels(vectors)
    assert allocation.converged
    np.testing.assert_allclose(allocation.labels, expected, atol=1e-5)


def test_same_seed_same_model_another_seed_another(data, fitted, tmp_path):
    again = fit(*data, **QUICK, devices=jax.devices()[:1])
    other = fit(*data, **QUICK, devices=jax.devices()[:1], seed=np.int64(1))
    other.save(tmp_path / "other.npz")  # numbers of NumPy too
    assert FittedDSink.load(tmp_path / "other.npz").settings.seed == 1
    assert (again.logits(data[0]) == fitted.logits(data[0])).all()
    assert (other.logits(data[0]) != fitted.logits(data[0])).any()


@pytest.mark.slow
def test_eight_devices_fit_what_one_does(data, fitted):
    several = fit(*data, **QUICK)
    np.testing.assert_allclose(several.logits(data[0]), fitted.logits(data[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"imbalance_method": "crt", "noise_method": CoTeaching("estimated")},
        {"imbalance_method": "ldam_drw", "noise_method": "dividemix"},
        {"noise_method": "tabasco", "base": "tabasco"},
        {"imbalance_method": TransportReweighting(2, "observed"), "base": "elr"},
        {"imbalance_method": lambda facts: ClassBalanced(beta=1 - 1 / float(facts.class_counts.sum()))},
    ],
    ids=[
        "two stages, two networks",
        "cosines, two networks",
        "features of two networks",
        "meta set, state",
        "function of the facts",
    ],
)
def test_other_methods_of_two_stages_networks_and_meta_sets(data, how, tmp_path):
    fitted = fit(*data, **(QUICK | {"epochs": 2}), devices=jax.devices()[:1], **how)
    fitted.save(tmp_path / "model.npz")
    objects = {name: method for name, method in how.items() if callable(method)}
    loaded = FittedDSink.load(tmp_path / "model.npz", **objects)
    for role in ("target", "noise_robust", "imbalance_robust"):
        probabilities = fitted.predict_proba(data[0], role)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(loaded.predict_proba(data[0], role), probabilities, atol=1e-6)


@pytest.mark.slow
def test_images():
    images, labels = quarters(60, seed=0)
    fitted = fit(images, labels, **QUICK, model="small_cnn", devices=jax.devices()[:1])
    assert (fitted.predict(images) == labels).mean() > 0.9
    # Bytes are put on the scale 0..1; floats of that scale are another kind of input.
    with pytest.raises(InputError, match="must be uint8, as in training"):
        fitted.predict(images / 255)
    assert fitted.standardization.mean[0] == pytest.approx(images.mean() / 255)


@pytest.mark.slow
def test_streamed_inputs_fit_what_arrays_in_memory_do(data, fitted, tmp_path):
    np.save(tmp_path / "vectors.npy", data[0].astype(np.float64))
    on_disk = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    streamed = fit(on_disk, data[1], **QUICK, devices=jax.devices()[:1])
    for inputs in (data[0], on_disk):
        np.testing.assert_allclose(streamed.logits(inputs), fitted.logits(data[0]), rtol=1e-4, atol=1e-4)


def test_streamed_inputs_that_are_not_finite(data, tmp_path):
    broken = data[0].copy()
    broken[3, 2] = np.nan
    np.save(tmp_path / "broken.npy", broken)
    with pytest.raises(InputError, match="hold NaN or infinity"):
        fit(np.load(tmp_path / "broken.npy", mmap_mode="r"), data[1], **QUICK)


def test_nothing_to_predict_for_is_no_error(fitted):
    assert fitted.predict_proba(np.zeros((0, 8))).shape == (0, 4)


def test_without_target_the_auxiliary_models_alone(data):
    fitted = fit(*data, **QUICK, target=False, devices=jax.devices()[:1])
    assert fitted.predict(data[0], "noise_robust").shape == data[1].shape
    with pytest.raises(InputError, match="target was not trained"):
        fitted.predict(data[0])


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="no list of memory maps here")
def test_fits_do_not_add_up():
    """A process may have 65,000 memory maps, and a search has many fits."""
    vectors, labels = blobs(40, seed=7)
    counts = []
    for seed in range(4):
        how = {"epochs": 1, "batch_size": 16, "target": False, "devices": jax.devices()[:1]}
        fitted = fit(vectors, labels, seed=seed, **how)
        fitted.predict(vectors, "noise_robust")
        gc.collect()
        counts.append(len(pathlib.Path("/proc/self/maps").read_text().splitlines()))
    assert counts[-1] - counts[1] < 10


def test_features_that_do_not_vary():
    vectors, labels = blobs(40, seed=6)
    vectors[:, 3] = 7.0
    fitted = fit(vectors, labels, **QUICK, devices=jax.devices()[:1])
    assert fitted.standardization.scale[3] == 1
    assert np.isfinite(fitted.logits(vectors)).all()


@pytest.mark.slow
def test_a_class_without_examples_changes_nothing_for_the_others(data):
    """Four classes of which three occur, against three."""
    kept = data[1] < 3
    vectors, labels = data[0][kept], data[1][kept]
    test, classes = blobs(400, seed=8)
    test, classes = test[classes < 3], classes[classes < 3]
    how = QUICK | {"epochs": 20, "devices": jax.devices()[:1]}
    one = fit(vectors, labels, **how)
    other = fit(vectors, labels, num_classes=4, **how)
    for role in ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted"):
        assert np.isfinite(other.logits(test, role)).all()
        accuracies = [(fitted.predict(test, role) == classes).mean() for fitted in (one, other)]
        assert min(accuracies) > 0.9 and abs(accuracies[0] - accuracies[1]) < 0.02, role
    marginal = other.class_marginal(test)
    assert marginal[3] == 0
    np.testing.assert_allclose(marginal[:3], one.class_marginal(test), atol=0.02)
    allocation = other.surrogate_labels(test)
    assert allocation.converged and np.isfinite(allocation.labels).all()
    np.testing.assert_allclose(allocation.labels[:, 3], 0, atol=1e-6)


@pytest.mark.parametrize("standardize", [True, False])
def test_whether_inputs_are_standardised(data, standardize):
    fitted = fit(*data, **QUICK, standardize=standardize, target=False, devices=jax.devices()[:1])
    part = fitted.parts["noise_robust"]
    layer = part.variables["params"]["classifier"]
    inputs = (data[0] - data[0].mean(0)) / data[0].std(0) if standardize else data[0]
    expected = (inputs @ layer["kernel"] + layer["bias"]) / part.method.temperature
    np.testing.assert_allclose(fitted.logits(data[0], "noise_robust"), expected, rtol=1e-3, atol=1e-3)


V, L = blobs(20, seed=5)
NAN = np.where(np.arange(8) == 3, np.nan, V)

BAD = {
    "words": ((np.array([["a"] * 8] * 20), L), {}, "must be numbers"),
    "one axis": ((V[:, 0], L), {}, "vectors [M, D] or images"),
    "no features": ((V[:, :0], L), {}, "vectors [M, D] or images"),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), {}, "not one array"),
    "NaN": ((NAN, L), {}, "first in example 0"),
    "too large for float32": ((V * 1e300, L), {}, "too large for float32"),
    "a label too few": ((V, L[1:]), {}, "one label for each of 20"),
    "no example": ((V[:0], L[:0]), {}, "at least 1"),
    "words for labels": ((V, np.array(["a"] * 20)), {}, "Labels must be integers"),
    "label below 0": ((V, L - 1), {}, "number the classes from 0 without gaps"),
    "labels with gaps": ((V, L * 10**6), {}, "number the classes from 0 without gaps"),
    "labels from 1": ((V, L + 1), {}, "4 different values, 1 to 4: number the classes from 0"),
    "one label": ((V, 0 * L), {}, "All 20 labels are 0: two classes at least"),
    "wide, channels first": ((np.zeros((20, 3, 48, 64)), L), {}, "numpy.moveaxis(images, 1, -1)"),
    "four channels first": ((np.zeros((20, 4, 64, 64)), L), {}, "numpy.moveaxis(images, 1, -1)"),
    "channels first": ((np.zeros((20, 3, 8, 8)), L), {}, "numpy.moveaxis(images, 1, -1)"),
    "names as labels": ((V, L.astype(str)), {}, "DSinkClassifier takes names"),
    "ragged labels": ((V[:2], [[1], [2, 3]]), {}, "labels are not one array"),
    "label too large": ((V, L), {"num_classes": 3}, "must be in [0, 3)"),
    "one class": ((V, L), {"num_classes": 1}, "at least 2"),
    "unknown setting": ((V, L), {"epoch": 3}, "Did you mean 'epochs'"),
    "unknown model": ((V, L), {"model": "resnet2"}, "Unknown model"),
    "no module": ((V, L), {"model": 3}, "a module, or a function that makes one"),
    "a module of other classes": ((V, L), {"model": WithDropout(3)}, "3] for inputs"),
    "a maker of other arguments": ((V, L), {"model": lambda width: WithDropout(4, width)}, "needs width"),
    "vectors for a network of images": ((V, L), {"model": "resnet20"}, "resnet20 is for images"),
    "unknown method": ((V, L), {"noise_method": "erl"}, "Did you mean 'elr'"),
    "negative alpha": ((V, L), {"alpha": -1.0}, "alpha must be at least 0"),
    "no epochs": ((V, L), {"epochs": 0}, "epochs must be an integer of at least 1"),
    "no batch": ((V, L), {"batch_size": 0}, "batch_size must be an integer of at least 1"),
    "learning rate": ((V, L), {"learning_rate": -1.0}, "learning rate must be positive"),
    "seed": ((V, L), {"seed": -1}, "seed must be an integer"),
    "momentum": ((V, L), {"momentum": 1.0}, "Momentum must be in [0, 1)"),
    "unknown optimiser": ((V, L), {"optimizer": "adam"}, "Did you mean 'adamw'"),
    "no optimiser": ((V, L), {"optimizer": 3}, "an optax.GradientTransformation"),
    "an augmentation that is none": ((V, L), {"preprocess": "flip"}, "a function (key, batch) -> batch"),
    "unknown auxiliary predictions": ((V, L), {"auxiliary_predictions": "offline"}, "Did you mean 'online'"),
    "one fold": ((V, L), {"auxiliary_predictions": "out_of_fold", "folds": 1}, "folds must be between 2"),
    "decay": ((V, L), {"average_decay": 1.0}, "average_decay must be in (0, 1)"),
    "an option of a method": ((V, L), {"elr_momentum": 0.5}, "Unknown setting 'elr_momentum'"),
    "no method": ((V, L), {"base": 3}, "A method must be a name"),
    "co-teaching without a rate": (
        (V, L),
        {"noise_method": "coteaching"},
        "CoTeaching(noise_rate='estimated')",
    ),
    "clean meta labels": ((V, L), {"imbalance_method": TransportReweighting(2, "clean")}, "observed labels"),
    "integers beyond 32 bits": ((V.astype(int) + 2**40, L), {"standardize": False}, "beyond 32 bits"),
    "a bucket": (
        (V, L),
        {"directory": "gs://bucket/x"},
        "directory gs://bucket/x: only places",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, tmp_path, monkeypatch):
    """Before anything is trained or written."""
    monkeypatch.chdir(tmp_path)
    (inputs, labels), how, said = BAD[case]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError) as caught:
        patch.setattr(recipe, "train", None)
        fit(inputs, labels, **how)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_bad_inputs_to_predict_for(fitted, data):
    with pytest.raises(InputError, match=r"must be \[8\] each, as in training, got \[7\]"):
        fitted.predict(data[0][:, :7])
    with pytest.raises(InputError, match="Unknown role"):
        fitted.predict(data[0], "teacher")


def test_settings_have_the_defaults_of_the_experiments():
    """But for what is chosen; where nothing is, it is as published."""
    from experiments.config import DIGITS

    mine = Settings()
    for name in ("imbalance_method", "base", "auxiliary_predictions"):
        assert getattr(mine, name) == getattr(DIGITS, name), name
    assert (mine.noise_method, mine.weight_decay, mine.alpha, mine.epochs) == ("auto", None, None, None)
    f_L, f_N, target = mine.specs(make_facts([3, 2], 1), target=True)
    assert target.term == DSink(DIGITS.alpha)
    assert (f_L.method, f_N.method) == (
        build_method(DIGITS.imbalance_method),
        build_method(DIGITS.noise_method),
    )
    assert mine.training(16).optimizer.weight_decay == DIGITS.weight_decay == 5e-4
    assert mine.training(16).epochs == 30


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [(3300, 100, 31), (3400, 100, 30), (100, 128, 1000), (1000, 128, 125), (10_000, 128, 30)],
)
def test_epochs_of_vectors_are_1000_steps_at_least(count, batch_size, expected):
    assert Settings().training(batch_size, -(-count // batch_size)).epochs == expected
    assert Settings(epochs=3).training(batch_size, -(-count // batch_size)).epochs == 3
