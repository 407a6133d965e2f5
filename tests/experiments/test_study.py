"""Studies: what they train, share, gather and go on with; and what they say about given numbers."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study_rows import rows_of

from dsink_jax.flags import read_flags
from experiments.dataset import load_dataset
from experiments.hyperparameters import hyperparameters
from experiments.run_directory import RunDirectory
from experiments.study import __main__ as study_command
from experiments.study import budgets, records, render, runs
from experiments.study.catalogue import STUDIES
from experiments.study.models import alone, dsink, imbalance_robust, naive, noise_robust, with_needs
from experiments.study.paired import paired


@pytest.fixture
def quick(monkeypatch):
    """The budget `small` with two epochs."""
    preset = dataclasses.replace(budgets.BUDGETS["small"].preset, epochs=2, evaluate_every=1, devices=1)
    small = dataclasses.replace(budgets.BUDGETS["small"], preset=preset)
    monkeypatch.setitem(budgets.BUDGETS, "small", small)


def call(monkeypatch, capsys, folder, *arguments):
    """Runs the command in this process and returns what it printed."""
    places = ("--runs-dir", folder / "runs", "--output", folder / "results")
    monkeypatch.setattr(sys, "argv", ["study", *map(str, (*arguments, *places))])
    study_command.main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_study_from_nothing_to_its_page(quick, monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    setting = ("--settings", "digits-ratio-10-symmetric-0.4")
    before = call(monkeypatch, capsys, tmp_path, "correction", *setting, "--seeds", 7, "--dry-run")
    assert "digits-ratio-10-symmetric-0.4 seed 7: 0 of 4 models trained" in before
    assert not list(tmp_path.iterdir())  # nothing is begun

    said = call(monkeypatch, capsys, tmp_path, "correction", *setting, "--seeds", 7)
    assert "4 of 4 models trained; about 0 min left" in said
    folder = tmp_path / "results" / "correction"
    rows = records.read(folder, "results.csv")
    names = ["cross_entropy", "f_L-logit_adjustment", "f_N-elr", "dsink"]
    assert rows["model"].tolist() == names and set(rows["seed"]) == {7}
    run = tmp_path / "runs" / "small" / "digits-ratio-10-symmetric-0.4" / "seed-7"
    entries = json.loads((run / "results.json").read_text())["models"]
    for row in rows.to_dict("records"):
        entry = entries[row["model"]]
        assert row["last"] == pytest.approx(entry["accuracy"]["last"], abs=1e-4)
        assert row["noisy_memorised"] == pytest.approx(entry["noisy_memorised"], abs=1e-4)
    # The page of the run shows the study's target as that of any run.
    assert [name for name, entry in entries.items() if "confusion_matrix" in entry] == ["dsink"]
    assert "The most suspicious labels" in (run / "report.html").read_text()
    with np.load(folder / "predictions" / f"small-{setting[1]}-seed-7.npz") as kept:
        assert set(kept) == {"gold", "images", "few", *names} and len(kept["images"]) == 400
        for row in rows.to_dict("records"):
            right = kept[row["model"]] == kept["gold"]
            assert right.mean() == pytest.approx(row["last"], abs=1e-4)
            assert right[np.isin(kept["gold"], kept["few"])].mean() == pytest.approx(row["few"], abs=1e-4)
    points = records.read(folder, "curves.csv")
    assert set(zip(points["model"], points["epoch"], strict=True)) == {
        (name, epoch) for name in names for epoch in (1, 2)
    }
    assert points["noisy_corrected"].between(0, 1).all()

    # Another seed and another study add to what is there; nothing is trained twice.
    call(monkeypatch, capsys, tmp_path, "correction", *setting, "--seeds", 8)
    rows = records.read(folder, "results.csv")
    assert len(rows) == 8 and set(rows["seed"]) == {7, 8}
    page = (folder / "README.md").read_text()
    assert re.search(r"ahead by [-+]\d+\.\d \[[-+]\d+\.\d, [-+]\d+\.\d\] \(\d of 2\)", page)
    assert render.SEEDS_ALONE not in page
    plan = call(monkeypatch, capsys, tmp_path, "main", *setting, "--seeds", 7, "--dry-run")
    assert "4 of 9 models trained" in plan and "min: naive-noise_weight=0.7, ensemble" in plan
    call(monkeypatch, capsys, tmp_path, "correction", *setting, "--seeds", 7, 8)
    assert json.loads((run / "results.json").read_text())["models"] == entries
    pd.testing.assert_frame_equal(records.read(folder, "results.csv"), rows)

    # The page needs no run.
    page = (folder / "README.md").read_text()
    figures = {figure.name for figure in folder.glob("*.svg")}
    assert figures == {f"noisy-{kind}-over-epochs-small.svg" for kind in ("corrected", "memorised")}
    for name in figures:
        assert f"({name})" in page
        (folder / name).unlink()
    call(monkeypatch, capsys, tmp_path, "correction", "--steps", "render")
    assert (folder / "README.md").read_text() == page
    assert all(ElementTree.parse(folder / name) for name in figures)
    environment = json.loads((folder / "environments.json").read_text())
    assert set(rows["environment"]) == environment.keys()
    assert all("jax" in one["versions"] and one["device"] for one in environment.values())


def test_all_studies_at_once(monkeypatch, capsys, tmp_path):
    said = call(monkeypatch, capsys, tmp_path, "all", "--budget", "cpu", "--seeds", 7, "--dry-run")
    assert re.findall("^=== (.*)$", said, re.M) == [
        name for name, study in STUDIES.items() if "cpu" in study.settings
    ]
    assert said.count("nothing is trained here yet") == said.count("===")
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, capsys, tmp_path, "all", "--settings", "digits-ratio-10-symmetric-0.4")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --settings goes with one study: name it instead of all.\n"


def test_every_study_can_be_declared():
    for study in STUDIES.values():
        for budget in study.settings:
            settings = study.settings[budget]
            assert len({setting.name for setting in settings}) == len(settings) > 0
            made = runs.make_cells(study, budget, (), (0, 1), pathlib.Path("nowhere"))
            assert len(made) == 2 * len(settings)
            for cell in made:
                names = [model.name for model in cell.models]
                assert len(set(names)) == len(names)
                for i, model in enumerate(cell.models):
                    assert {one.name for one in model.needs} <= set(names[:i])
        assert study.target in {model.name for model in with_needs(study.models)}


def test_one_name_is_one_model(tmp_path):
    """Studies share runs, so a model must not be declared in two ways under one name."""
    specs = {}
    cell = runs.make_cells(STUDIES["main"], "small", (), (0,), tmp_path)[0]
    with RunDirectory(cell.config) as directory:
        dataset = load_dataset(cell.config, directory, cell.config.local_devices())
    for study in STUDIES.values():
        for model in with_needs(study.models):
            spec = model.make(dataset, cell.budget.required_options)
            assert spec.name == model.name
            known = {**hyperparameters(spec), "auxiliaries": spec.auxiliaries, "stream": spec.stream}
            assert specs.setdefault(model.name, known) == known
    # And one model has one name.
    assert len(set(map(repr, specs.values()))) == len(specs) > 60


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (dsink(), "dsink"),
        (dsink(alpha=3.0, base="elr"), "dsink-base=elr-alpha=3"),
        (dsink(f_L=imbalance_robust("crt")), "dsink-f_L=crt"),
        (naive(noise_weight=0.7), "naive-noise_weight=0.7"),
        (naive(), "naive"),
        (alone("soft_bootstrapping", beta=0.8), "soft_bootstrapping-beta=0.8"),
        (noise_robust(), "f_N-elr"),
    ],
)
def test_names_say_what_is_not_default(model, name):
    assert model.name == name


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_paired_difference_against_scipy(seeds):
    rng = np.random.default_rng(seeds)
    ones, others = rng.uniform(size=(2, seeds))
    found = paired(ones, others)
    low, high = stats.ttest_rel(100 * ones, 100 * others).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)
    assert (found.ahead, found.seeds) == (sum(ones > others), seeds)


def test_one_seed_has_no_interval():
    assert str(paired([0.5], [0.4])) == "+10.0 (1 of 1)"


def test_page_tells_what_is_not_ahead_of_a_reference(tmp_path):
    rows = [
        *rows_of("cross_entropy", {0: 0.5, 1: 0.6}),
        *rows_of("crt", {0: 0.6, 1: 0.65}),
        *rows_of("focal", {0: 0.45, 1: 0.6}),
    ]
    write(tmp_path, rows)
    study = dataclasses.replace(STUDIES["imbalance"], figures=())
    text = render.render(tmp_path, study, "imbalance")
    # Differences of -5 and 0: mean -2.5, standard deviation 3.536, interval 12.706 * 2.5.
    assert "- a (small): not ahead of `cross_entropy`: `focal` -2.5 ± 31.8 (0 of 2)" in text
    assert "points of `few` by which a model is ahead of `cross_entropy`" in text
    assert "+7.5" in next(line for line in text.splitlines() if line.startswith("crt"))


def test_page_tells_the_best_rival_of_each_setting(tmp_path):
    rows = [
        *rows_of("dsink", {0: 0.9, 1: 0.8}, "target"),
        *rows_of("cross_entropy", {0: 0.5, 1: 0.5}),
        *rows_of("f_N-elr", {0: 0.8, 1: 0.82}, "auxiliary"),
        *rows_of("dsink-alpha=3", {0: 0.95, 1: 0.95}, "target"),  # no rival: it is D-SINK too
        *rows_of("half_done", {0: 0.99}),  # nor is what lacks a seed
    ]
    write(tmp_path, rows)
    study = dataclasses.replace(
        STUDIES["main"],
        figures=(),
        models=(*map(alone, ("cross_entropy", "half_done")), noise_robust(), dsink()),
    )
    text = render.render(tmp_path, study, "main")
    # Differences of 10 and -2: mean 4, standard deviation 8.485, interval 12.706 * 6.
    verdict = (
        "`dsink` 85.0 ± 7.1, the best that is no D-SINK, `f_N-elr`, 81.0 ± 1.4: ahead by +4.0 ± 76.2 (1 of 2)"
    )
    verdict += "; of whichever is best in each seed by +4.0 ± 76.2 (1 of 2); not run in every seed yet: "
    assert f"{verdict}`half_done`, `f_L-logit_adjustment`\n" in text
    assert render.SEEDS_ALONE in text
    line = next(line for line in text.splitlines() if line.startswith("cross_entropy"))
    assert line.split()[:10] == ["cross_entropy", "2", "50.0", "±", "0.0", "50.0", "±", "0.0", "-", "-"]
    assert "+35.0" in line and "2 of 2" in line
    assert "10.0 hours" not in text and "9.0 hours of training" in text


def write(folder, rows):
    records.merge(folder / "results.csv", records._KEY, pd.DataFrame(rows))
    (folder / "environments.json").write_text(
        json.dumps({"e": {"device": "1 x cpu", "versions": {"jax": "0"}, "date": "2026-01-01"}})
    )


def test_rows_survive_the_file(tmp_path):
    rows = rows_of("dsink", {0: 0.123456, 1: 1.0})
    write(tmp_path, rows)
    read = records.read(tmp_path, "results.csv")
    assert read["last"].tolist() == [0.1235, 1.0]
    assert read["seed"][0] == 0 and pd.isna(read["noisy_corrected"][0]) and read["model"][0] == "dsink"
    write(tmp_path, rows_of("dsink", {1: 0.5, 2: 0.25}))
    read = records.read(tmp_path, "results.csv")
    assert read[["seed", "last"]].to_numpy().tolist() == [[0, 0.1235], [1, 0.5], [2, 0.25]]


def grid_rows():
    """Two seeds: D-SINK ahead of the better part by 10, 2, -4 and 0 points, by 2 more in the second."""
    parts = {"f_L-crt": 0.5, "f_L-ldam_drw": 0.8, "f_N-elr": 0.7, "f_N-gce": 0.6}
    targets = {
        "dsink-f_L=crt": 0.8,
        "dsink-f_L=crt-f_N=gce": 0.62,
        "dsink-f_L=ldam_drw": 0.76,
        "dsink-f_L=ldam_drw-f_N=gce": 0.8,
    }
    rows = [row for name, share in parts.items() for row in rows_of(name, {0: share, 1: share}, "auxiliary")]
    for name, share in targets.items():
        rows += rows_of(name, {0: share, 1: share + 0.02, 2: 0.99}, "target")  # the parts lack the third seed
    return rows


def test_page_tells_how_often_and_by_how_much_pairs_are_ahead_of_their_parts(tmp_path):
    pytest.importorskip("matplotlib")
    write(tmp_path, grid_rows())
    text = render.render(tmp_path, STUDIES["auxiliaries"], "auxiliaries")
    # Means over the seeds: 11, 3, -3 and 1; seeds ahead: 2, 2, 0 and 1.
    assert (
        "- a (small): ahead of the better of the two in 3 of 4 cases on average over seeds and in 5 of 8 "
        "single runs, by 3.0 points on average over the cases (-3.0 to +11.0); not ahead: "
        "`dsink-f_L=ldam_drw` (-3.0)"
    ) in text
    # Differences of 10 and 12: interval 12.706 * 1.
    line = "dsink-f_L=crt 81.0 ± 1.4 f_L-crt 50.0 ± 0.0 f_N-elr 70.0 ± 0.0 +11.0 ± 12.7 (2 of 2)"
    assert line in re.sub(" +", " ", text)
    drawn = (tmp_path / "pairs-a.svg").read_text().replace("\N{MINUS SIGN}", "-")
    for shown in ("+11.0", "+3.0", "-3.0", "+1.0", "ldam_drw", "gce"):
        assert f"<!-- {shown} -->" in drawn


def test_bases_are_held_against_themselves_without_d_sink(tmp_path):
    rows = [*rows_of("elr", {0: 0.7, 1: 0.6}), *rows_of("dsink-base=elr", {0: 0.8, 1: 0.6}, "target")]
    write(tmp_path, rows)
    text = render.render(tmp_path, dataclasses.replace(STUDIES["bases"], figures=()), "bases")
    assert "- a (small): ahead of it in 1 of 1 cases on average over seeds and in 1 of 2 single runs" in text
    assert "dsink-base=elr 70.0 ± 14.1 elr 65.0 ± 7.1 +5.0 ± 63.5 (1 of 2)" in re.sub(" +", " ", text)


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.beside])
def test_what_is_held_against_others_is_in_the_study(name):
    names = {model.name for model in with_needs(STUDIES[name].models)}
    for model, others in STUDIES[name].beside.items():
        assert {model, *others} <= names and others


def test_time_left_from_what_is_done(quick, tmp_path):
    made = runs.make_cells(STUDIES["correction"], "small", (), (0,), tmp_path)[:2]
    first = runs.progress(made)
    assert (first.done, first.total) == (0, 8) and first.seconds_left > 0
    folder = made[0].config.run_dir
    folder.mkdir(parents=True)
    names = [model.name for model in made[0].models]
    results = {
        "data": {"train_images": runs._images(made[0], None)},
        "models": {
            name: {"seconds": 100.0 * model.effort} for name, model in zip(names, made[0].models, strict=True)
        },
    }
    (folder / "results.json").write_text(json.dumps(results))
    efforts = sum(model.effort for model in made[0].models)
    then = runs.progress(made)
    assert (then.done, then.total) == (4, 8)
    assert then.seconds_left == pytest.approx(100.0 * efforts)  # as slow as the first
    assert runs.progress(made[1:], made) == runs.Progress(0, 4, then.seconds_left)
    assert runs.progress(made[1:]).seconds_left == pytest.approx(first.seconds_left / 2)


def test_a_job_is_its_cell(tmp_path):
    flags = study_command.Flags("main", jobs=2, runs_dir=tmp_path, data_dir=tmp_path / "data")
    made = runs.make_cells(STUDIES["main"], "small", (), (0, 1), tmp_path, flags.data_dir)
    log, command = study_command._command(flags, made[3])
    assert command[:3] == [sys.executable, "-m", "experiments.study"]
    read = read_flags(study_command.Flags, command[3:])
    (cell,) = runs.make_cells(
        STUDIES[read.study], read.budget, read.settings, read.all_seeds, read.runs_dir, read.data_dir
    )
    assert cell.config == made[3].config and read.jobs == 1 and read.steps == "train"
    assert log.parent == cell.config.run_dir.parent


@pytest.mark.slow
def test_interrupted_study_ends_with_its_command(tmp_path):
    """Real processes, really asked to stop: two jobs save and the command ends with 0."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.study", "correction", "--jobs", "2", "--seeds", "0"),
            *("--runs-dir", str(tmp_path / "runs"), "--output", str(tmp_path / "results")),
        ],
        cwd=pathlib.Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        metrics = tmp_path / "runs/small/digits-ratio-10-symmetric-0.2/seed-0/metrics.jsonl"
        for _ in range(240):
            if metrics.exists() or process.poll() is not None:
                break
            time.sleep(0.5)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert metrics.exists() and process.returncode == 0, errors
    assert "The same command goes on from there" in errors
    checkpoints = list((tmp_path / "runs").glob("*/*/*/checkpoints/*/*"))
    assert checkpoints  # the training that ran was saved
