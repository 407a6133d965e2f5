"""`fit` on arrays: what it learns, what it predicts, what it keeps in a file, what it refuses."""

import functools
import gc
import pathlib
import pickle

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from allocation_references import reference_labels
from dsink_jax import FittedDSink, InputError, fit
from dsink_jax.data import corrupt
from dsink_jax.errors import StorageError
from dsink_jax.estimator import Settings
from dsink_jax.methods import MethodOptions

QUICK = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1}


def blobs(count, seed, num_classes=4, dimensions=8):
    """Vectors around one centre for each class, and their classes."""
    centres = np.random.default_rng(0).normal(size=(num_classes, dimensions)) * 2
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    return centres[labels] + rng.normal(size=(count, dimensions)), labels


@pytest.fixture(scope="module")
def data():
    vectors, labels = blobs(400, seed=1)
    drawn = corrupt(labels, 4, imbalance_ratio=5, noise="symmetric", noise_rate=0.4, data_seed=0)
    return vectors[drawn.index], drawn.noisy_labels


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


def test_adjusted_noise_robust_model_is_the_published_formula(data, fitted, tmp_path):
    """Menon et al.: argmax of logits - log prior, here with the mean prediction on the training set."""
    prior = softmax(fitted.logits(data[0], "noise_robust").astype(float), 1).mean(0)
    np.testing.assert_allclose(fitted.class_prior, prior, rtol=1e-5)
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


def test_linear_model_is_its_formula(fitted):
    vectors, _ = blobs(10, seed=3)
    layer = fitted.parts["target"].variables["params"]["classifier"]
    mean, std = np.array(fitted.preprocessing.mean), np.array(fitted.preprocessing.std)
    expected = (vectors - mean) / std @ np.asarray(layer["kernel"], float) + layer["bias"]
    np.testing.assert_allclose(fitted.logits(vectors), expected, rtol=1e-4, atol=1e-4)


def test_features_are_standardised_over_the_training_set(data, fitted):
    np.testing.assert_allclose(fitted.preprocessing.mean, data[0].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.preprocessing.std, data[0].std(0), rtol=1e-5)


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


def test_saved_and_loaded_it_predicts_the_same(data, fitted, tmp_path):
    path = tmp_path / "model.npz"
    fitted.save(path)
    loaded = FittedDSink.load(path, devices=jax.devices()[:1])
    assert loaded.settings == fitted.settings
    for role in ("target", "noise_robust", "imbalance_robust"):
        assert (loaded.logits(data[0], role) == fitted.logits(data[0], role)).all()
    with np.load(path, allow_pickle=False) as archive:  # arrays and JSON, nothing that runs
        assert "target/params/classifier/kernel" in archive.files


def test_pickled_it_predicts_the_same(data, fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copied.logits(data[0]), fitted.logits(data[0]), rtol=1e-5, atol=1e-5)


class OwnNetwork(nn.Module):
    """A network with batch normalisation and a width of its own."""

    num_classes: int
    width: int
    classifier: str = "linear"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs, train):
        x = nn.Dense(self.width)(inputs.reshape(len(inputs), -1))
        axis = self.axis_name if train else None
        x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=axis)(x))
        return nn.Dense(self.num_classes, name="classifier")(x)


@pytest.mark.slow
def test_own_flax_module(data, tmp_path):
    make = functools.partial(OwnNetwork, width=6)
    fitted = fit(*data, **QUICK, model=make, devices=jax.devices()[:1])
    assert fitted.parts["target"].variables["params"]["Dense_0"]["kernel"].shape == (8, 6)
    fitted.save(tmp_path / "own.npz")
    with pytest.raises(InputError, match="give model="):
        FittedDSink.load(tmp_path / "own.npz")
    loaded = FittedDSink.load(tmp_path / "own.npz", model=make)
    assert (loaded.logits(data[0]) == fitted.logits(data[0])).all()


class OneLayer(nn.Module):
    """What a person writes who has vectors: nothing is said of shapes."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, train):
        return nn.Dense(self.num_classes)(inputs)


@pytest.mark.slow
def test_own_module_is_given_vectors_as_vectors(data):
    fitted = fit(
        *data,
        **(QUICK | {"epochs": 1}),
        model=lambda num_classes, classifier, axis_name: OneLayer(num_classes),
        devices=jax.devices()[:1],
    )
    params = fitted.parts["noise_robust"].variables["params"]["Dense_0"]
    mean, std = (np.array(part, np.float32) for part in fitted.preprocessing[1:3])
    expected = (data[0] - mean) / std @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(fitted.logits(data[0], "noise_robust"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"imbalance_method": "crt", "noise_method": "coteaching"},
        {"imbalance_method": "ldam_drw", "noise_method": "dividemix"},
        {"imbalance_method": "ot_reweighting", "base": "elr"},
    ],
    ids=str,
)
def test_other_methods_of_two_stages_networks_and_meta_sets(data, how, tmp_path):
    options = MethodOptions(
        coteaching_noise_rate="estimated",
        ot_reweighting_meta_per_class=2,
        ot_reweighting_meta_labels="observed",
    )
    fitted = fit(*data, **(QUICK | {"epochs": 2}), devices=jax.devices()[:1], options=options, **how)
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    for role in ("target", "noise_robust", "imbalance_robust"):
        probabilities = fitted.predict_proba(data[0], role)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(loaded.predict_proba(data[0], role), probabilities, atol=1e-6)


@pytest.mark.slow
def test_images(small_data):
    how = {**QUICK, "model": "small_cnn", "crop_padding": 1, "devices": jax.devices()[:1]}
    fitted = fit(small_data.images, small_data.labels, **how)
    assert fitted.predict_proba(small_data.images).shape == (60, 4)
    # Bytes are put on the scale 0..1; floats of that scale are another kind of input.
    with pytest.raises(InputError, match="must be uint8, as in training"):
        fitted.predict(small_data.images / 255)
    assert fitted.preprocessing.mean[0] == pytest.approx(small_data.images.mean() / 255)


def test_nothing_to_predict_for_is_no_error(fitted):
    assert fitted.predict_proba(np.zeros((0, 8))).shape == (0, 4)


def test_without_target_the_auxiliary_models_alone(data):
    fitted = fit(*data, **QUICK, target=False, devices=jax.devices()[:1])
    assert fitted.predict(data[0], "noise_robust").shape == data[1].shape
    with pytest.raises(InputError, match="target was not trained"):
        fitted.predict(data[0])


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="no list of memory maps here")
def test_fits_do_not_add_up():
    """What a fit compiled goes with it: a process may have 65,000 memory maps, and a search has many fits."""
    vectors, labels = blobs(40, seed=7)
    counts = []
    for seed in range(4):
        how = {"epochs": 1, "batch_size": 16, "target": False, "devices": jax.devices()[:1]}
        fitted = fit(vectors, labels, seed=seed, **how)
        fitted.predict(vectors, "noise_robust")
        gc.collect()
        counts.append(len(pathlib.Path("/proc/self/maps").read_text().splitlines()))
    assert counts[-1] - counts[1] < 60  # pmap's two programs of a model were a hundred each


def test_classes_without_examples_and_features_that_do_not_vary():
    vectors, labels = blobs(40, seed=6, num_classes=2)
    vectors[:, 3] = 7.0
    fitted = fit(vectors, labels, num_classes=4, **QUICK, devices=jax.devices()[:1])
    for role in ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted"):
        assert np.isfinite(fitted.logits(vectors, role)).all()
        assert (fitted.predict(vectors, role) == labels).mean() > 0.9
    assert fitted.surrogate_labels(vectors).converged


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
    "channels first": ((np.zeros((20, 3, 8, 8)), L), {}, "numpy.moveaxis(images, 1, -1)"),
    "names as labels": ((V, L.astype(str)), {}, "DSinkClassifier takes names"),
    "ragged labels": ((V[:2], [[1], [2, 3]]), {}, "labels are not one array"),
    "label too large": ((V, L), {"num_classes": 3}, "must be in [0, 3)"),
    "one class": ((V, L), {"num_classes": 1}, "at least 2"),
    "unknown setting": ((V, L), {"epoch": 3}, "Did you mean 'epochs'"),
    "unknown model": ((V, L), {"model": "resnet2"}, "Unknown model"),
    "no module": ((V, L), {"model": 3}, "a function that makes a Flax module"),
    "a module that is made": ((V, L), {"model": OwnNetwork(4, 6)}, "got a OwnNetwork itself"),
    "a maker of other arguments": ((V, L), {"model": lambda: OwnNetwork(4, 6)}, "must take num_classes"),
    "vectors for a network of images": ((V, L), {"model": "resnet20"}, "resnet20 is for images"),
    "unknown method": ((V, L), {"noise_method": "erl"}, "Did you mean 'elr'"),
    "negative alpha": ((V, L), {"alpha": -1.0}, "alpha must be at least 0"),
    "no epochs": ((V, L), {"epochs": 0}, "epochs must be an integer of at least 1"),
    "no batch": ((V, L), {"batch_size": 0}, "batch_size must be an integer of at least 1"),
    "learning rate": ((V, L), {"learning_rate": -1.0}, "learning rate must be positive"),
    "seed": ((V, L), {"seed": -1}, "seed must be an integer"),
    "cropped vectors": ((V, L), {"crop_padding": 1}, "are for images"),
    "options of another kind": ((V, L), {"options": "elr"}, "options must be a dictionary or"),
    "an option that is none": ((V, L), {"options": {"elr_momentun": 0.5}}, "option"),
    "co-teaching without a rate": ((V, L), {"noise_method": "coteaching"}, "must be told its noise rate"),
    "clean meta labels": (
        (V, L),
        {
            "imbalance_method": "ot_reweighting",
            "options": MethodOptions(ot_reweighting_meta_per_class=2, ot_reweighting_meta_labels="clean"),
        },
        "observed labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    (inputs, labels), how, said = BAD[case]
    with pytest.raises(InputError) as caught:
        fit(inputs, labels, **how)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_without_target_it_is_saved_so(data, tmp_path):
    fitted = fit(*data, **QUICK, target=False, devices=jax.devices()[:1])
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    np.testing.assert_allclose(
        loaded.logits(data[0], "noise_robust"), fitted.logits(data[0], "noise_robust"), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(InputError, match="target was not trained"):
        loaded.predict(data[0])


def test_bad_inputs_to_predict_for(fitted, data):
    with pytest.raises(InputError, match=r"must be \[8\] each, as in training, got \[7\]"):
        fitted.predict(data[0][:, :7])
    with pytest.raises(InputError, match="Unknown role"):
        fitted.predict(data[0], "teacher")


def test_files_that_are_not_it(fitted, tmp_path):
    with pytest.raises(InputError, match="no file"):
        FittedDSink.load(tmp_path / "nothing.npz")
    fitted.save(tmp_path / "model.npz")
    content = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("cut.npz", "other.npz"):
        with pytest.raises(InputError, match="is not a file that a fitted model was saved in, or is damaged"):
            FittedDSink.load(tmp_path / name)
    with pytest.raises(InputError, match="leave out model="):
        FittedDSink.load(tmp_path / "model.npz", model=OwnNetwork)
    with pytest.raises(StorageError, match="cannot be written"):
        fitted.save(tmp_path / "no folder" / "model.npz")


def test_settings_have_the_defaults_of_the_experiments():
    from experiments.config import DIGITS

    mine = Settings()
    for name in ("imbalance_method", "noise_method", "base", "alpha"):
        assert getattr(mine, name) == getattr(DIGITS, name)
