"""The file of a fitted model, and its pickle."""

import dataclasses
import errno
import pickle

import jax
import numpy as np
import optax
import pytest

from blobs import WithDropout, corrupted_blobs
from dsink_jax import FittedDSink, InputError, fit
from dsink_jax.data import RandomFlip
from dsink_jax.errors import StorageError
from dsink_jax.methods import CoTeaching, EarlyLearningRegularization, LogitAdjustment, Method

QUICK = {"epochs": 2, "batch_size": 16}
ROLES = ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted")


@dataclasses.dataclass(frozen=True)
class Halved(LogitAdjustment):
    """A method of one's own, which predicts in its own way."""

    share: float = 0.5

    def predict(self, logits, facts):
        return self.share * super().predict(logits, facts)


@pytest.fixture(scope="module")
def data():
    return corrupted_blobs()


@pytest.fixture(scope="module")
def fitted(data):
    """Methods with options of their own, and one of two networks."""
    how = {"noise_method": CoTeaching(0.3), "imbalance_method": LogitAdjustment(tau=0.5), "selection": False}
    return fit(*data, **QUICK, **how, devices=jax.devices()[:1])


def assert_same(one, other, data):
    for role in ROLES:
        assert (one.logits(data[0], role) == other.logits(data[0], role)).all(), role


def test_saved_and_loaded_it_predicts_the_same(data, fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz", devices=jax.devices()[:1])
    assert loaded.settings == fitted.settings
    assert loaded.parts["imbalance_robust"].method == LogitAdjustment(tau=0.5)
    assert_same(loaded, fitted, data)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as archive:  # arrays and JSON, nothing that runs
        assert "target/params/classifier/kernel" in archive.files
    with open(tmp_path / "model.npz", "rb") as file:
        assert FittedDSink.load(file).settings == fitted.settings


def test_pickled_it_predicts_the_same(data, fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    for role in ROLES:
        np.testing.assert_allclose(copied.logits(data[0], role), fitted.logits(data[0], role), atol=1e-5)


@pytest.mark.slow
def test_objects_of_ones_own_are_asked_for_by_name(data, tmp_path):
    """Those that predictions need: network and method. What trained alone is not missed."""
    own = {"model": WithDropout(4), "noise_method": Halved(share=0.25)}
    how = {"optimizer": optax.sgd(0.05), "preprocess": lambda key, batch: batch}
    fitted = fit(*data, **QUICK, **own, **how, devices=jax.devices()[:1])
    path = tmp_path / "own.npz"
    fitted.save(path)
    for missing in own:
        rest = {name: value for name, value in own.items() if name != missing}
        with pytest.raises(InputError, match=f"give {missing}=, which was an object of your own"):
            FittedDSink.load(path, **rest)
    with pytest.raises(InputError, match=r"was trained with base .*: leave out base="):
        FittedDSink.load(path, **own, base="elr")
    with pytest.raises(InputError, match="Did you mean 'noise_method'"):
        FittedDSink.load(path, **own, noise_methods="elr")
    assert_same(FittedDSink.load(path, **own, devices=jax.devices()[:1]), fitted, data)
    settings = dataclasses.replace(fitted.settings, preprocess=RandomFlip())  # pickle takes no lambda
    fitted.settings = settings
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copied.logits(data[0]), fitted.logits(data[0]), atol=1e-5)
    assert isinstance(copied.parts["noise_robust"].method, Halved)


def test_without_target_it_is_saved_so(data, tmp_path):
    fitted = fit(*data, **QUICK, target=False, devices=jax.devices()[:1])
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    np.testing.assert_allclose(
        loaded.logits(data[0], "noise_robust"), fitted.logits(data[0], "noise_robust"), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(InputError, match="target was not trained"):
        loaded.predict(data[0])


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
        FittedDSink.load(tmp_path / "model.npz", model=WithDropout)
    with pytest.raises(StorageError, match="cannot be written"):
        fitted.save(tmp_path / "no folder" / "model.npz")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_a_save_leaves_the_old_file(fitted, tmp_path, monkeypatch, error):
    path = tmp_path / "model.npz"
    fitted.save(path)
    before = path.read_bytes()

    def stops(file, **arrays):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", stops)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StorageError) as caught:
        fitted.save(path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path} cannot be written: No space left on device."
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_addresses_are_no_files(fitted):
    with pytest.raises(InputError, match=r"gs://bucket/model\.npz: only places on this machine"):
        FittedDSink.load("gs://bucket/model.npz")
    with pytest.raises(InputError, match=r"s3://bucket/model\.npz: only places on this machine"):
        fitted.save("s3://bucket/model.npz")


def test_an_own_class_is_never_taken_for_a_known_one(fitted, data, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class EarlyLearning(EarlyLearningRegularization):
        pass

    assert isinstance(EarlyLearning(), Method)
    part = fitted.parts["noise_robust"]._replace(method=EarlyLearning())
    own = FittedDSink(
        {**fitted.parts, "noise_robust": part},
        fitted.standardization,
        fitted.kind,
        dataclasses.replace(fitted.settings, noise_method=EarlyLearning()),
        fitted.class_prior,
        fitted.class_shares,
    )
    own.save(tmp_path / "own.npz")
    with pytest.raises(InputError, match="give noise_method="):
        FittedDSink.load(tmp_path / "own.npz")
