"""The studies of the auxiliary methods: what they train, and what they conclude from given numbers."""

import csv
import dataclasses
import types
import xml.etree.ElementTree as ElementTree

import pytest

from dsink_jax.methods import SoftBootstrapping, TrainingFacts
from experiments import auxiliaries
from experiments.auxiliaries import STUDIES, Settings, draw_grid, run_seed, study_config, write_markdown
from experiments.config import DIGITS
from experiments.summary import write_csv


def entry(last, few=None, role="baseline"):
    return {
        "role": role,
        "method": "some",
        "definition": {"class": "Some", "epochs": 9, "start_share": 0.3},
        "accuracy": {"last": last, "mean_last_10": last, "best": last},
        "many": last,
        "medium": last,
        "few": last if few is None else few,
        "noisy_corrected": None,
        "calibration_error": 0.1,
        "seconds": 10.0,
    }


DATA = {
    "name": "digits",
    "train_images": 544,
    "test_images": 400,
    "imbalance_ratio": 10.0,
    "noise": "symmetric",
    "nominal_rate": 0.4,
}


@pytest.fixture
def two_by_two(monkeypatch):
    monkeypatch.setattr(auxiliaries, "GRID_IMBALANCE", ("crt", "ldam_drw"))
    monkeypatch.setattr(auxiliaries, "GRID_NOISE", ("elr", "gce"))


def grid_results():
    """Two seeds: D-SINK ahead of the better part by 10, 2, -4 and 0 points, by 2 more in the second."""
    results = {}
    for seed, more in ((0, 0.0), (1, 0.02)):
        parts = {"f_L_crt": 0.5, "f_L_ldam_drw": 0.8, "f_N_elr": 0.7, "f_N_gce": 0.6}
        cells = {
            "dsink_crt_elr": 0.8,
            "dsink_crt_gce": 0.62,
            "dsink_ldam_drw_elr": 0.76,
            "dsink_ldam_drw_gce": 0.8,
        }
        models = {name: entry(value, role="auxiliary") for name, value in parts.items()}
        models |= {name: entry(value + more, role="target") for name, value in cells.items()}
        results[seed] = {"data": DATA, "models": models}
    return results


def test_grid_counts_wins_over_the_better_part(two_by_two, tmp_path):
    write_markdown(tmp_path / "grid.md", Settings("grid"), grid_results())
    text = (tmp_path / "grid.md").read_text()
    # Means over the seeds: 11, 3, -3 and 1; runs ahead: 2, 2, 0 and 1.
    assert "in 3 of 4 pairs" in text and "in 5 of 8 single runs" in text
    assert "by 3.0 points on average over all pairs, -3.0 at worst, +11.0 at best" in text
    assert "Where it is not ahead: ldam_drw x elr (-3.0)." in text
    row = next(line for line in text.splitlines() if line.startswith("crt ") and " elr " in line)
    assert "50.0 ± 0.0" in row and "70.0 ± 0.0" in row and "11.0 ± 1.4" in row and "2 of 2" in row
    assert "python -m experiments.auxiliaries grid --seeds 0 1" in text


def test_heat_map_prints_every_cell(two_by_two, tmp_path):
    pytest.importorskip("matplotlib")
    draw_grid(tmp_path / "grid.svg", grid_results())
    root = ElementTree.parse(tmp_path / "grid.svg").getroot()
    comments = (tmp_path / "grid.svg").read_text()
    assert root.tag.endswith("svg")
    for shown in ("+11.0", "+3.0", "-3.0", "+1.0", "ldam_drw", "gce"):
        assert f"<!-- {shown} -->" in comments.replace("\N{MINUS SIGN}", "-")


def test_methods_behind_cross_entropy_are_named(tmp_path):
    models = {"cross_entropy": entry(0.9, few=0.5), "focal": entry(0.95, few=0.4), "crt": entry(0.8, few=0.7)}
    models["crt"]["definition"] = {"class": "ClassifierRetraining", "epochs": 9, "share": 0.1}
    results = {
        seed: {"data": DATA | {"noise": "none", "nominal_rate": None}, "models": models} for seed in (3, 4)
    }
    write_markdown(tmp_path / "imbalance.md", Settings("imbalance"), results)
    text = (tmp_path / "imbalance.md").read_text()
    assert "Not ahead of cross-entropy on average: focal." in text  # measured on the few-shot classes
    assert "-10.0 ± 0.0" in text and "20.0 ± 0.0" in text and "0 of 2" in text and "2 of 2" in text
    assert "Trained longer, by a second stage: crt." in text
    assert "noise none;" in text and "seeds 3 4" in text


def test_reweighting_is_held_against_its_own_start(tmp_path):
    models = {
        "cross_entropy": 0.8,
        "class_balanced": 0.86,
        "ot_reweighting": 0.85,
        "ot_reweighting_frozen": 0.85,
    }
    results = {0: {"data": DATA, "models": {name: entry(value) for name, value in models.items()}}}
    write_markdown(tmp_path / "reweighting.md", Settings("reweighting"), results)
    text = (tmp_path / "reweighting.md").read_text()
    assert (
        "ahead of cross-entropy by 5.0 points (1 of 1 seeds), of class_balanced by -1.0 points (0 of 1"
        in text
    )
    assert "frozen at their class-balanced start by 0.0 points (0 of 1 seeds)." in text


def test_csv_leaves_unknown_shares_empty(tmp_path):
    write_csv(tmp_path / "all.csv", {7: {"data": DATA, "models": {"crt": entry(0.5)}}})
    (row,) = csv.DictReader((tmp_path / "all.csv").read_text().splitlines())
    assert row["seed"] == "7" and row["last"] == "0.5000" and row["noisy_corrected"] == ""


@pytest.mark.slow
def test_grid_trains_each_auxiliary_once_and_every_pair(monkeypatch, tmp_path):
    monkeypatch.setattr(auxiliaries, "GRID_IMBALANCE", ("class_balanced",))
    monkeypatch.setattr(auxiliaries, "GRID_NOISE", ("gce", "sce"))
    preset = dataclasses.replace(DIGITS, epochs=1, devices=1)
    result = run_seed(Settings("grid", runs_dir=tmp_path), 0, preset)
    auxiliary = ["f_L_class_balanced", "f_N_gce", "f_N_sce"]
    assert list(result["models"]) == [*auxiliary, "dsink_class_balanced_gce", "dsink_class_balanced_sce"]
    one, other = (result["models"][f"dsink_class_balanced_{name}"] for name in ("gce", "sce"))
    assert one["role"] == "target"
    assert one["calibration_error"] != other["calibration_error"]  # they had other teachers


@pytest.mark.parametrize("name", STUDIES)
def test_every_method_of_a_study_is_told_what_it_must_be(name):
    """Settings refuse a method that is not, and options of a method that is not trained."""
    config = study_config(Settings(name), 5)
    assert config.method_names >= set(STUDIES[name].methods)
    assert (config.seed, config.data_seed) == (5, 5)


def planned(study):
    """The models of a study by name, on three classes."""
    facts = TrainingFacts(3, (5, 4, 3), (5, 4, 3), 10, transition_matrix=tuple(map(tuple, 3 * [[1 / 3] * 3])))
    problem = types.SimpleNamespace(config=study_config(Settings(study), 0), facts=facts)
    specs = STUDIES[study].plan(problem)
    assert len({spec.name for spec in specs}) == len(specs)
    return {spec.name: spec for spec in specs}


@pytest.mark.parametrize(
    ("study", "variant", "method", "changes"),
    [
        (study, variant, method, changes)
        for study, entry in STUDIES.items()
        for variant, (method, changes) in entry.variants.items()
    ],
)
def test_variant_is_its_method_with_other_options(study, variant, method, changes):
    specs = planned(study)
    assert specs[variant].method == dataclasses.replace(specs[method].method, **changes)
    assert specs[variant].method != specs[method].method
    # Trained from the same start as the method itself, after all methods.
    assert specs[variant] == specs[method]._replace(name=variant, label=variant, method=specs[variant].method)
    assert list(specs).index(variant) > max(map(list(specs).index, STUDIES[study].methods))


def test_variants_by_name():
    noise = planned("noise")
    assert noise["soft_bootstrapping"].method == SoftBootstrapping(0.95)
    assert noise["soft_bootstrapping_0.8"].method == SoftBootstrapping(0.8)
    assert noise["soft_bootstrapping_0.5"].method == SoftBootstrapping(0.5)
    reweighting = planned("reweighting")
    assert reweighting["ot_reweighting_fast"].method.weight_rate == 10.0
    assert [name for name in reweighting if name.startswith("ot_reweighting_")] == [
        f"ot_reweighting_{last}"
        for last in ("feature", "label", "whole", "network", "frozen", "fast", "early")
    ]


def test_table_says_what_the_variants_are(tmp_path):
    models = {name: entry(0.9) for name in ("cross_entropy", *STUDIES["noise"].methods)}
    models |= {name: entry(0.95) for name in STUDIES["noise"].variants}
    write_markdown(tmp_path / "noise.md", Settings("noise"), {0: {"data": DATA, "models": models}})
    text = (tmp_path / "noise.md").read_text()
    assert "Variants: soft_bootstrapping_0.8: soft_bootstrapping with beta 0.8; " in text
    row = next(line for line in text.splitlines() if line.startswith("soft_bootstrapping_0.5 "))
    assert "95.0" in row and "5.0" in row and "1 of 1" in row


@pytest.mark.slow
def test_variants_are_added_to_a_run_that_is_there(monkeypatch, tmp_path):
    few = dataclasses.replace(
        STUDIES["noise"],
        methods=("soft_bootstrapping",),
        make_plan=auxiliaries._alone(("soft_bootstrapping",)),
    )
    preset = dataclasses.replace(DIGITS, epochs=1, devices=1, limit_train=100, limit_test=100)
    without = dataclasses.replace(few, variants={})
    trained = {}
    for study in (without, few):
        monkeypatch.setitem(STUDIES, "noise", study)
        trained[study.variants != {}] = run_seed(Settings("noise", runs_dir=tmp_path), 0, preset)["models"]
    assert list(trained[False]) == ["cross_entropy", "soft_bootstrapping"]
    assert list(trained[True]) == [*trained[False], "soft_bootstrapping_0.8", "soft_bootstrapping_0.5"]
    assert trained[True] | trained[False] == trained[True]  # not trained again: not even the seconds differ
    definition = trained[True]["soft_bootstrapping_0.8"]["definition"]
    assert definition == {"class": "SoftBootstrapping", "beta": 0.8}
