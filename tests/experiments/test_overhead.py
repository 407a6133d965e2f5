"""What D-SINK adds to an epoch: the numbers of a tiny case, and the table."""

import csv

import pytest

from experiments import overhead
from experiments.benchmark.workload import Workload
from experiments.study import __main__ as study


@pytest.fixture(scope="module")
def rows():
    workload = Workload("linear", "tiny", 8, 16, num_classes=6, shape=(5,))
    return overhead.measure(workload, examples=100, seconds=0.0, rounds=2)


def test_numbers_of_a_tiny_case(rows):
    assert [row["training"] for row in rows] == list(overhead.TRAININGS)
    base = rows[0]
    assert base["of_base"] == 1
    for row in rows:
        assert row["rounds"] == 2
        assert row["seconds_per_epoch"] > 0  # of 13 steps, the last not full
        assert row["step_megabytes"] > 0
        assert row["of_base_low"] <= row["of_base"] <= row["of_base_high"]
    # A linear layer of 5 x 6 and 6 with momentum, one step counter or so; two more of them; logits of 100.
    alone, cached, online = (1e6 * row["kept_megabytes"] for row in rows)
    assert 2 * 4 * 36 <= alone < 2 * 4 * 36 + 40
    assert cached == pytest.approx(alone + 2 * 4 * 100 * 6)
    assert online == pytest.approx(alone + 2 * 4 * 36)


def test_table_and_file(rows, tmp_path):
    pytest.importorskip("matplotlib")
    overhead.write(tmp_path, rows)
    overhead.render(tmp_path)
    with open(tmp_path / "overhead.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["training"] for row in read] == list(overhead.TRAININGS)
    for one, other in zip(read, rows, strict=True):
        assert float(one["seconds_per_epoch"]) == pytest.approx(other["seconds_per_epoch"], rel=1e-4)
    text = (tmp_path / "overhead.md").read_text()
    assert text.count("tiny; M 100, C 6, batch 8") == 1
    assert "jax" in text and "cores)" in text


def test_dry_run_lists_the_cases_and_makes_nothing(tmp_path, capsys):
    overhead.main(["--dry-run", "--output", str(tmp_path / "none")])
    said = capsys.readouterr().out
    assert said.count("examples, 30 s or 8 rounds") == len(overhead.CASES["cpu"]) == said.count("\n")
    overhead.main(["--budget", "small", "--dry-run"])
    assert capsys.readouterr().out == "digits, small CNN, batch 64: 544 examples, 30 s or 8 rounds\n"
    assert not list(tmp_path.iterdir())


def test_figure_is_drawn_from_the_file_alone(rows, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    overhead.write(tmp_path, rows)
    monkeypatch.setattr("sys.argv", ["study", "overhead", "--steps", "render", "--output", str(tmp_path)])
    study.main()  # by the name of a study
    drawn = (tmp_path / "overhead.svg").read_text()
    for text in ("tiny", "batch 8", *overhead.TRAININGS):
        assert f"<!-- {text} -->" in drawn, text
    (tmp_path / "overhead.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        overhead.main(["--steps", "render", "--output", str(tmp_path)])
    assert ended.value.code == 2 and "There is no overhead.csv" in capsys.readouterr().err


def test_another_budget_adds_its_cases(rows, tmp_path):
    pytest.importorskip("matplotlib")
    overhead.write(tmp_path, rows)
    overhead.write(tmp_path, [{**row, "case": "another"} for row in rows])
    overhead.write(tmp_path, [{**row, "seconds_per_epoch": 7.0} for row in rows])  # the first, anew
    overhead.render(tmp_path)
    with open(tmp_path / "overhead.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["case"] for row in read] == ["tiny"] * 3 + ["another"] * 3
    assert [row["seconds_per_epoch"] for row in read[:3]] == ["7"] * 3
    text = (tmp_path / "overhead.md").read_text()
    assert text.count("tiny; M 100") == text.count("another; M 100") == 1


def test_shapes_go_from_small_to_imagenet_lt():
    cases = [case for budget in overhead.CASES.values() for case in budget]
    assert {workload.num_classes for workload, _ in cases} == {10, 100, 1000}
    assert all(examples >= workload.batch_size for workload, examples in cases)
    for budget in overhead.CASES.values():
        named = [(workload.title, workload.batch_size) for workload, _ in budget]
        assert len(set(named)) == len(named)
