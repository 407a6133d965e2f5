"""The budget `paper` on a machine that has neither TensorFlow Datasets nor a network: CIFAR from one file."""

import dataclasses
import sys

import numpy as np
import pytest

from experiments.study import __main__ as study_command
from experiments.study import budgets, records


@pytest.mark.slow
def test_main_at_paper_from_one_file(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    rows = {"train": 50_000, "test": 10_000}
    images = {f"{part}_images": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in rows.items()}
    labels = {f"{part}_labels": np.arange(n) % 10 for part, n in rows.items()}
    np.savez(tmp_path / "cifar10.npz", **images, **labels)
    # What there is to do stays the protocol's; how much of it is cut down.
    paper = budgets.BUDGETS["paper"]
    preset = dataclasses.replace(
        paper.preset, model="small_cnn", epochs=1, limit_train=300, limit_test=100, devices=1
    )
    monkeypatch.setitem(budgets.BUDGETS, "paper", dataclasses.replace(paper, preset=preset))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # an import of it fails
    places = ("--data-dir", tmp_path, "--runs-dir", tmp_path / "runs", "--output", tmp_path / "results")
    asked = ("main", "--budget", "paper", "--settings", "cifar10-ratio-10-symmetric-0.4", "--seeds", 0)
    monkeypatch.setattr(sys, "argv", ["study", *map(str, (*asked, *places))])
    study_command.main()
    assert "9 of 9 models trained" in capsys.readouterr().out
    found = records.read(tmp_path / "results" / "main", "results.csv", "paper")
    assert found["model"].iloc[-1] == "dsink" and len(found) == 9
    assert set(found["dataset"]) == {"cifar10"} and found["last"].between(0, 1).all()
