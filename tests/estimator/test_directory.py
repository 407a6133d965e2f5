"""`fit(directory=...)`: it goes on where it was killed, and lets no other fit in."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from blobs import WithDropout, blobs
from dsink_jax import InputError, fit, recipe
from dsink_jax.data import RandomCrop
from dsink_jax.methods import LogitAdjustment
from dsink_jax.training import loop
from dsink_jax.training.lock import DirectoryLock
from run_commands import ROOT

SCRIPT = pathlib.Path(__file__).with_name("interrupted_fit.py")


def run(*arguments):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_killed_twice_it_ends_as_if_nothing_had_been(kind, tmp_path):
    undisturbed, output, directory = tmp_path / "one.npz", tmp_path / "two.npz", tmp_path / "fit"
    done = run(kind, undisturbed)
    assert done.returncode == 0, done.stderr
    stages = ["imbalance_robust", "noise_robust", "target"]
    lines = done.stdout.split("\n")[:-1]
    if kind == "vectors":
        assert [line.partition(": ")[0] for line in lines[:3]] == [
            "choosing by labels held out",
            "f_L",
            "f_N",
        ]
        choice, lines = lines[:3], lines[3:]
    assert lines == [line for s in stages for line in (s, f"{s} from 0")]
    killed = run(kind, output, directory, "noise_robust", 13)
    assert killed.returncode == -signal.SIGKILL
    killed = run(kind, output, directory, "target", 18)
    assert killed.returncode == -signal.SIGKILL
    started = [line for line in killed.stdout.splitlines() if " from " in line]
    assert started == ["noise_robust from 10", "target from 0"]
    assert not output.exists()
    done = run(kind, output, directory)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if " from " in line] == ["target from 10"]
    assert kind == "images" or done.stdout.split("\n")[:3] == choice
    with np.load(undisturbed) as one, np.load(output) as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    done = run(kind, tmp_path / "three.npz", directory)
    assert done.returncode == 0 and " from " not in done.stdout


@pytest.fixture(scope="module")
def data():
    return blobs(40, seed=0)


HOW = {"epochs": 1, "batch_size": 16, "devices": jax.devices()[:1]}


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A directory with a finished fit, and the fit."""
    directory = tmp_path_factory.mktemp("finished") / "fit"
    how = {"noise_method": LogitAdjustment(tau=0.5), "preprocess": lambda key, batch: batch}
    return directory, fit(*data, **HOW, **how, directory=directory), how


def test_a_finished_directory_trains_nothing_again(data, finished, monkeypatch):
    directory, fitted, how = finished
    monkeypatch.setattr(loop, "compiled_step", None)
    again = fit(*data, **HOW, **how, directory=directory)
    for role in ("target", "noise_robust", "imbalance_robust", "noise_robust_adjusted"):
        assert (again.logits(data[0], role) == fitted.logits(data[0], role)).all()
    assert again.parts["target"].history == fitted.parts["target"].history


OTHER = {
    "inputs": lambda v, y: ((v + 1e-3, y), {}),
    "labels": lambda v, y: ((v, np.roll(y, 1)), {}),
    "num_classes": lambda v, y: ((v, y), {"num_classes": 5}),
    "setting alpha": lambda v, y: ((v, y), {"alpha": 3.0}),
    "setting epochs": lambda v, y: ((v, y), {"epochs": 2}),
    "setting noise_method": lambda v, y: ((v, y), {"noise_method": LogitAdjustment(tau=0.25)}),
    "setting preprocess": lambda v, y: ((v, y), {"preprocess": None}),
    "target": lambda v, y: ((v, y), {"target": False}),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_fit_is_refused_by_what_differs(data, finished, name):
    directory, _, how = finished
    arguments, changed = OTHER[name](*data)
    with pytest.raises(InputError) as caught:
        fit(*arguments, **(HOW | how | changed), directory=directory)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{directory} holds a fit that differs in {name}."
    assert len(lines) == 2 and lines[1].startswith("Give another directory")


@pytest.mark.slow
def test_objects_differ_by_what_they_hold(tmp_path):
    images = np.zeros((8, 4, 4, 1), np.uint8)
    labels = np.arange(8) % 2
    how = HOW | {"target": False, "directory": tmp_path / "fit"}
    fit(images, labels, **how, model=WithDropout(2, width=3), preprocess=RandomCrop(1))
    for changed, said in (
        ({"preprocess": RandomCrop(2)}, "setting preprocess"),
        ({"model": WithDropout(2, width=4)}, "setting model"),
    ):
        own = {"model": WithDropout(2, width=3), "preprocess": RandomCrop(1)} | changed
        with pytest.raises(InputError, match=f"differs in {said}"):
            fit(images, labels, **how, **own)


def test_a_directory_in_use_is_refused(data, tmp_path):
    lock = DirectoryLock(tmp_path / "fit", "")  # held by the open file, as another process would
    try:
        with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .*\nWait for it"):
            fit(*data, **HOW, directory=tmp_path / "fit")
    finally:
        lock.release()


def test_what_cannot_be_fitted_leaves_no_directory(data, tmp_path, monkeypatch):
    """So that the call, once it is right, is not refused as another fit."""
    monkeypatch.setattr(recipe, "train", None)
    with pytest.raises(InputError, match="name that layer classifier"):
        fit(*data, **HOW, model=WithDropout(4), imbalance_method="crt", directory=tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def test_a_damaged_description_is_named(data, tmp_path):
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(InputError, match=r"fit\.json is damaged"):
        fit(*data, **HOW, directory=tmp_path)
