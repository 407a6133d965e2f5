"""Bad input ends in exit code 2 and at most two lines that name it, without a traceback."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from dsink_jax.methods import METHODS
from experiments import command_line
from experiments.config import CIFAR, DIGITS

META_TOO_LARGE = ["--ot-reweighting-meta-per-class", "500"]
CASES = {
    "unknown data set": (["--dataset", "cifer10"], "Did you mean 'cifar10'"),
    "unknown model": (["--model", "resnet2"], "Known models"),
    "unknown f_L": (["--imbalance-method", "ldma"], "Known methods"),
    "unknown f_N": (["--noise-method", "erl"], "Did you mean 'elr'"),
    "unknown base": (["--base", "dsink"], "Known methods"),
    "naive as a base": (["--base", "naive_distillation"], "Known methods"),
    "learning rate infinite": (["--learning-rate", "inf"], "positive"),
    "threshold infinite": (["--threshold", "inf"], "positive"),
    "unknown baseline": (["--baselines", "cross_entropy,nave"], "Unknown method 'nave'"),
    "unknown noise": (["--noise", "pink"], "pink"),
    "unknown flag": (["--alpah", "3"], "--alpha"),
    "not a number": (["--epochs", "many"], "--epochs"),
    "missing value": (["--epochs"], "--epochs"),
    "rate above 1": (["--noise-rate", "1.5"], "[0, 1]"),
    "rate below 0": (["--noise-rate", "-0.1"], "[0, 1]"),
    "rate not a number": (["--noise-rate", "nan"], "[0, 1]"),
    "ratio below 1": (["--imbalance-ratio", "0.5"], "at least 1"),
    "ratio infinite": (["--imbalance-ratio", "inf"], "at least 1"),
    "class left empty": (["--imbalance-ratio", "1000"], "empty"),
    "batch not divisible": (["--batch-size", "63", "--devices", "8"], "8 devices"),
    "batch zero": (["--batch-size", "0"], "at least 1"),
    "too many devices": (["--devices", "99"], "99"),
    "epochs zero": (["--epochs", "0"], "at least 1"),
    "negative alpha": (["--alpha", "-1"], "at least 0"),
    "alpha not a number": (["--alpha", "nan"], "at least 0"),
    "learning rate zero": (["--learning-rate", "0"], "positive"),
    "momentum one": (["--momentum", "1"], "[0, 1)"),
    "negative weight decay": (["--weight-decay", "-1"], "at least 0"),
    "threshold zero": (["--threshold", "0"], "positive"),
    "no iterations": (["--max-iterations", "0"], "at least 1"),
    "q out of range": (["--noise-method", "gce", "--gce-q", "2"], "gce: q must be in (0.0, 1.0]"),
    "option of a method that is not trained": (["--gce-q", "0.5"], "--gce-q is an option of gce"),
    "co-teaching without a rate": (["--noise-method", "coteaching"], "--coteaching-noise-rate estimated"),
    "co-teaching's rate in words": (
        ["--noise-method", "coteaching", "--coteaching-noise-rate", "much"],
        "--coteaching-noise-rate",
    ),
    "no meta set": (["--imbalance-method", "ot_reweighting"], "--ot-reweighting-meta-per-class 5"),
    "no meta labels": (
        ["--imbalance-method", "ot_reweighting", "--ot-reweighting-meta-per-class", "2"],
        "--ot-reweighting-meta-labels observed",
    ),
    "meta set larger than a class": (
        [*("--baselines", "ot_reweighting", "--ot-reweighting-meta-labels", "clean"), *META_TOO_LARGE],
        "images a class is too large",
    ),
    "known matrix of human noise": (
        [
            *("--noise", "human_worse", "--dataset", "cifar10", "--noise-method", "forward_correction"),
            *("--forward-correction-matrix", "known"),
        ],
        "forward_correction: the transition matrix of this noise is not known",
    ),
    "unknown cost": (
        ["--imbalance-method", "ot_reweighting", "--ot-reweighting-cost", "both"],
        "--ot-reweighting-cost",
    ),
    "unknown penalty": (
        ["--noise-method", "dividemix", "--dividemix-penalty", "some"],
        "--dividemix-penalty",
    ),
    "unknown prior": (["--prior", "true"], "--prior"),
    "unknown type of state": (["--state-dtype", "int8"], "--state-dtype"),
    "combination as a base": (["--base", "ensemble"], "Known methods"),
    "misspelt combination": (["--baselines", "ensembel"], "Did you mean 'ensemble'"),
    "naive weight": (["--naive-noise-weight", "1.2"], "[0, 1]"),
    "negative seed": (["--seed", "-1"], "--seed"),
    "human noise elsewhere": (["--noise", "human_worse"], "--dataset cifar10"),
    "human noise with rate": (["--noise", "human_worse", "--noise-rate", "0.2"], "--noise-rate"),
    "limit below classes": (["--limit-train", "5"], "no image"),
    "data folder without data": (["--dataset", "cifar10", "--no-download", "--data-dir", "."], "cifar10"),
    "missing arrays": (["--dataset", "nothing.npz"], "nothing.npz"),
    "missing corruption": (["--corruption-file", "nothing.npz"], "nothing.npz"),
}


def fails(capsys, arguments, preset=DIGITS):
    """Runs the command in this process and returns the error it ends with."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr("sys.argv", ["experiments", *arguments])
        command_line.main(preset)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error.strip().splitlines()
    assert 1 <= len(lines) <= 2, error
    assert lines[0].startswith("error: ")
    return error


@pytest.mark.parametrize("case", CASES)
def test_command_line(case, capsys, tmp_path, monkeypatch):
    arguments, fragment = CASES[case]
    monkeypatch.chdir(tmp_path)
    assert fragment in fails(capsys, arguments)
    assert not list(tmp_path.rglob("results.json"))


BAD_ARRAYS = {
    "images of rank 3": ({"train_images": np.zeros((20, 8, 8), np.uint8)}, "[..., None]"),
    "labels with gaps": ({"test_labels": np.full(20, 7)}, "gaps"),
    "negative labels": ({"test_labels": np.full(20, -1)}, "-1"),
    "labels not integers": ({"train_labels": np.zeros(20)}, "integer"),
    "different lengths": ({"train_labels": np.zeros(19, int)}, "19"),
    "text images": ({"train_images": np.full((20, 8, 8, 1), "a")}, "uint8"),
    "nan images": ({"train_images": np.full((20, 8, 8, 1), np.nan)}, "NaN"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed, fragment = BAD_ARRAYS[case]
    labels = np.arange(20) % 2
    images = np.zeros((20, 8, 8, 1), np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez("mine.npz", **(arrays | changed))
    assert fragment in fails(capsys, ["--dataset", "mine.npz"])


def test_run_directory_that_is_a_file(capsys, tmp_path):
    (tmp_path / "run").write_text("not a directory")
    assert "--run-dir" in fails(capsys, ["--run-dir", str(tmp_path / "run")])


def test_corrupted_set_of_other_data_is_refused(capsys, tmp_path, monkeypatch):
    from dsink_jax.data import corrupt, save_corruption

    monkeypatch.chdir(tmp_path)
    other = corrupt(
        np.arange(100) % 10, 10, imbalance_ratio=1, noise="symmetric", noise_rate=0.4, data_seed=0
    )
    save_corruption(tmp_path / "other.npz", other)
    same = ["--corruption-file", "other.npz", "--imbalance-ratio", "1"]
    assert "not drawn from digits" in fails(capsys, same)
    assert "--imbalance-ratio 1.0" in fails(capsys, ["--corruption-file", "other.npz"])


def test_a_refused_command_does_not_block_the_corrected_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no image" in fails(capsys, ["--limit-train", "5", "--run-dir", "run"])
    assert "empty" in fails(capsys, ["--imbalance-ratio", "1000", "--run-dir", "run"])
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_refused_meta_set_does_not_block_the_corrected_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--baselines", "ot_reweighting", "--ot-reweighting-meta-labels", "observed", *META_TOO_LARGE]
    assert "too large" in fails(capsys, [*asked, "--run-dir", "run"])
    assert not (tmp_path / "run" / "config.json").exists()


def test_every_setting_has_a_run_directory_of_its_own():
    changed = [
        dataclasses.replace(DIGITS, **c) for c in ({}, {"alpha": 1.0}, {"data_seed": 1}, {"base": "elr"})
    ]
    assert len({config.directory for config in changed}) == 4
    assert dataclasses.replace(DIGITS, devices=1).directory == DIGITS.directory


@pytest.mark.parametrize("preset", [DIGITS, CIFAR])
def test_help_explains_every_flag(preset):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as stopped:
        command_line.parse(preset, ["--help"])
    assert stopped.value.code == 0
    names = {field.name for kind in (preset, preset.options) for field in dataclasses.fields(kind)}
    for name in names - {"options"}:
        assert "--" + name.replace("_", "-") in output.getvalue()


@pytest.mark.parametrize("preset", [DIGITS, CIFAR])
def test_list_of_methods(preset, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiments", "--list-methods"])
    assert command_line.main(preset) is None  # so the process ends with code 0
    lines = capsys.readouterr().out.splitlines()
    header, _, *rows = lines[: 2 + len(METHODS)]
    assert [row.split()[0] for row in rows] == list(METHODS)
    assert header.split()[:2] == ["method", "for"]
    of = dict(zip(METHODS, rows, strict=True))
    assert all(entry.source in of[name] for name, entry in METHODS.items())
    # Networks, forward passes, bytes, epochs, and what must be told.
    assert of["elr"].split()[-5:] == ["1", "1", "40", "1", "-"]
    assert of["dividemix"].split()[-5:] == ["2", "10", "8", "1", "-"]
    assert of["crt"].split()[-2:] == ["1.1", "-"]
    assert of["coteaching"].split()[-1] == "--coteaching-noise-rate"
    for word in ("naive_tuned", "noise_robust_adjusted", "ensemble", "--help"):
        assert word in "\n".join(lines)
