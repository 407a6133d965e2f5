"""Studies some of whose cells fail: what can be done is done, shown, and the command says what failed."""

import dataclasses
import pathlib
import shutil
import sys

import pytest

from dsink_jax.errors import InputError
from dsink_jax.training import TrainingDivergedError
from experiments.study import __main__ as study_command
from experiments.study import budgets, records

_SETTING = "digits-ratio-10-symmetric-0.4"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder for runs and results, with the budget `small` of one epoch."""
    preset = dataclasses.replace(budgets.BUDGETS["small"].preset, epochs=1, evaluate_every=1, devices=1)
    small = dataclasses.replace(budgets.BUDGETS["small"], preset=preset)
    monkeypatch.setitem(budgets.BUDGETS, "small", small)
    return tmp_path


def call(monkeypatch, capsys, folder, *more):
    """Runs a study of three seeds in this process: its exit code and what it printed on standard error."""
    places = ("--runs-dir", folder / "runs", "--output", folder / "results", "--settings", _SETTING)
    arguments = ("correction", "--seeds", 1, 2, 3, *places, *more)
    monkeypatch.setattr(sys, "argv", ["study", *map(str, arguments)])
    try:
        study_command.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err


def seeds(folder):
    return set(records.read(folder / "results" / "correction", "results.csv")["seed"])


@pytest.mark.slow
def test_a_damaged_cell_keeps_none_of_the_others(folder, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    damaged = folder / "runs" / "small" / _SETTING / "seed-2" / "config.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    code, said = call(monkeypatch, capsys, folder)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"error: 1 of 3 cells failed, the others are done. {_SETTING} seed 2: ")
    assert "config.json" in last
    assert seeds(folder) == {1, 3}
    assert (folder / "results" / "correction" / "README.md").exists()
    # Mended, the same command does what is left.
    damaged.unlink()
    assert call(monkeypatch, capsys, folder)[0] == 0
    assert seeds(folder) == {1, 2, 3}


@pytest.mark.slow
def test_a_training_that_diverges_keeps_none_of_the_others(folder, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    train = study_command.train

    def diverging(cell, should_stop):
        if cell.seed < 3:
            raise TrainingDivergedError("f_N-elr: the loss is nan")
        return train(cell, should_stop)

    monkeypatch.setattr(study_command, "train", diverging)
    code, said = call(monkeypatch, capsys, folder)
    assert code == 1
    assert said.strip().splitlines()[-1] == (
        f"error: 2 of 3 cells failed, the others are done. {_SETTING} seed 1: f_N-elr: the loss is nan"
    )
    assert seeds(folder) == {3}


def test_data_that_cannot_be_had_is_said_once_and_nothing_is_shown(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("dsink_jax.data.cifar_download.download_cifar", no_network)
    results = tmp_path / "results" / "early-stopping"
    results.mkdir(parents=True)
    (results / "results.csv").write_text("numbers of another run")
    asked = ["early-stopping", "--budget", "cpu", "--data-dir", str(tmp_path / "nowhere")]
    places = ["--runs-dir", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["study", *asked, *places, "--dry-run"])
    study_command.main()
    plan = capsys.readouterr().out
    assert plan.endswith(f"cifar10 is not in {tmp_path / 'nowhere'}: it would be downloaded.\n")
    monkeypatch.setattr(sys, "argv", ["study", *asked, *places])
    with pytest.raises(SystemExit) as ended:
        study_command.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == "failed: cifar10 is nowhere.\n"
    assert said.err.startswith(
        "error: 9 of 9 cells failed. cifar10-ratio-10-symmetric-0.4 seed 0: cifar10 is nowhere."
    )
    assert (results / "results.csv").read_text() == "numbers of another run"


def no_network(dataset, data_dir):
    raise InputError(f"{dataset} is nowhere.")


def test_human_labels_that_are_missing_are_said_before_any_training(monkeypatch, capsys, tmp_path):
    (tmp_path / "cifar10.npz").touch()  # whatever is in it: it is not read
    asked = ["main", "--budget", "cpu", "--settings", "cifar10-ratio-10-human-worse", "--seeds", "1"]
    places = ["--runs-dir", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    command = ["study", *asked, "--data-dir", str(tmp_path), *places]
    monkeypatch.setattr(sys, "argv", [*command, "--dry-run"])
    study_command.main()
    missing = f"Human labels for cifar10 were not found in {tmp_path}."
    assert capsys.readouterr().out.endswith(f"{missing}\n")
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        study_command.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out.startswith(f"failed: {missing}\n")
    assert "1 of 1 cells failed. cifar10-ratio-10-human-worse seed 1: Human labels" in said.err
    assert not (tmp_path / "runs" / "cpu").exists()


@pytest.mark.parametrize("flags", [["--settings", _SETTING], ["--dry-run"]])
def test_drawing_is_of_all_there_is(flags, monkeypatch, capsys, tmp_path):
    command = ["study", "main", "--steps", "render", "--output", str(tmp_path), *flags]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        study_command.main()
    assert ended.value.code == 2
    assert f"error: {flags[0]} does not go with --steps render" in capsys.readouterr().err


def test_rows_without_their_environment_are_named(monkeypatch, capsys, tmp_path):
    folder = shutil.copytree(pathlib.Path(__file__).parents[2] / "results" / "choices", tmp_path / "choices")
    (folder / "environments.json").unlink()
    monkeypatch.setattr(sys, "argv", ["study", "choices", "--steps", "render", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        study_command.main()
    assert ended.value.code == 2
    assert "environments.json does not tell where the rows beside it were computed" in capsys.readouterr().err
