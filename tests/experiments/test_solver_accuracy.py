"""The table of the solver's error: written from its file, by hand and for a small problem."""

import csv

import pandas as pd
import pytest

from experiments import solver_accuracy
from experiments.environments import environment_here, identify, remember
from experiments.kept_rows import write_rows
from experiments.study import __main__ as study


def test_table_has_the_worst_of_the_seeds(tmp_path, monkeypatch):
    environment = environment_here("POT")
    place = {"examples": 4, "classes": 3, "scale": 2.0, "environment": identify(environment)}
    found = {
        (0, solver_accuracy.UNLIMITED): (20, 1e-7),
        (0, solver_accuracy.DEFAULT_MAX_ITERATIONS): (20, 3e-7),
        (1, solver_accuracy.UNLIMITED): (700, 2e-7),
        (1, solver_accuracy.DEFAULT_MAX_ITERATIONS): (500, 2e-7),
    }
    rows = [
        {**place, "seed": seed, "limit": limit, "iterations": iterations, "error": error}
        for (seed, limit), (iterations, error) in found.items()
    ]
    folder = tmp_path / "solver-accuracy"
    folder.mkdir()
    remember(folder, [environment])
    write_rows(folder / "accuracy.csv", pd.DataFrame(rows, columns=solver_accuracy.FIELDS))
    monkeypatch.setattr("sys.argv", ["study", "all", "--steps", "render", "--output", str(tmp_path)])
    study.main()  # with the tables of all studies
    text = (folder / "accuracy.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("4 x 3"))
    assert line.split() == ["4", "x", "3", "2", "700", "2.0e-07", "500", "3.0e-07"]
    assert "worst of 2 seeds" in text and environment["device"] in text


def test_small_problem_is_solved_as_pot_does(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ot")
    monkeypatch.setattr(solver_accuracy, "SHAPES", ((6, 3),))
    monkeypatch.setattr(solver_accuracy, "SCALES", (1.0,))
    folder = tmp_path / "made"
    solver_accuracy.main(["--output", str(folder)])
    with open(folder / "accuracy.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * solver_accuracy.SEEDS
    assert all(float(row["error"]) < 1e-5 and int(row["iterations"]) > 0 for row in rows)
    before = (folder / "accuracy.md").read_bytes()
    (folder / "accuracy.md").unlink()
    solver_accuracy.main(["--steps", "render", "--output", str(folder)])
    assert (folder / "accuracy.md").read_bytes() == before
    (folder / "accuracy.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        solver_accuracy.main(["--steps", "render", "--output", str(folder)])
    assert ended.value.code == 2 and "There is no accuracy.csv" in capsys.readouterr().err
