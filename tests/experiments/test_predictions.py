"""Predictions that studies keep: gathered from runs, and what tables make of them."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
from study_rows import rows_of

from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError
from experiments.kept_rows import read_rows
from experiments.study import paired, predictions, records, render
from experiments.study.catalogue import STUDIES
from experiments.study.intervals import Accuracy, accuracy, bootstrap_difference
from experiments.study.predictions import Predictions
from experiments.study.runs import make_cells

GOLD = np.tile(np.arange(10, dtype=np.uint8), 40)


def predicted(share, seed):
    """Predictions of which such a share is right, in expectation."""
    rng = np.random.default_rng((seed, int(1000 * share)))
    return np.where(rng.random(400) < share, GOLD, (GOLD + 1) % 10).astype(np.uint8)


def kept(folder, models, seeds=(0, 1, 2), setting="a"):
    for seed in seeds:
        found = {name: predicted(share, seed) for name, share in models.items()}
        told = {"gold": GOLD, "images": np.arange(400), "few": np.array([7, 8, 9])}
        predictions.keep(predictions.file_of(folder, "small", setting, seed), told | found, anew=False)
    return Predictions(folder, "small", setting)


def test_difference_is_over_seeds_and_the_images_they_share(tmp_path):
    of = kept(tmp_path, {"one": 0.8, "other": 0.6, "third": 0.7})
    ours = [predicted(0.8, seed) for seed in range(3)]
    others = [predicted(share, seed) for seed, share in enumerate((0.6, 0.7, 0.6))]
    best = {0: "other", 1: "third", 2: "other"}
    assert of.difference("one", best) == bootstrap_difference(accuracy, [GOLD] * 3, ours, others)
    assert of.difference("one", best, "few") == bootstrap_difference(
        Accuracy([7, 8, 9]), [GOLD] * 3, ours, others
    )
    assert of.difference("one", {0: "other", 3: "other"}) is None  # there is no seed 3
    assert of.difference("absent", best) is None
    assert of.has(0, "one") and not of.has(0, "absent") and not of.has(3, "one")


def test_other_images_of_the_same_classes_are_not_shared(tmp_path):
    of = kept(tmp_path, {"one": 0.8, "other": 0.6})
    file = predictions.file_of(tmp_path, "small", "a", 2)
    with np.load(file) as there:
        np.savez(file, **{**there, "images": np.arange(400, 800)})
    arrays = [[predicted(share, seed) for seed in range(3)] for share in (0.8, 0.6)]
    assert of.difference("one", dict.fromkeys(range(3), "other")) == bootstrap_difference(
        accuracy, [GOLD] * 3, *arrays, same_images=False
    )


def test_what_is_kept_is_added_to_and_replaced_by_another_run(tmp_path):
    file = predictions.file_of(tmp_path, "small", "a", 0)
    told = {"gold": np.array([0, 1]), "images": np.array([3, 4])}

    def names():
        with np.load(file) as there:
            return set(there) - {"gold", "images"}

    predictions.keep(file, {}, anew=False)
    assert not file.exists()
    predictions.keep(file, {**told, "one": np.array([0, 0])}, anew=False)
    predictions.keep(file, {**told, "other": np.array([0, 0])}, anew=False)
    assert names() == {"one", "other"}
    before = file.stat().st_mtime_ns
    predictions.keep(file, {**told, "one": np.array([0, 0])}, anew=False)
    assert file.stat().st_mtime_ns == before
    predictions.keep(file, {**told, "other": np.array([1, 0])}, anew=True)
    assert names() == {"other"}
    predictions.keep(file, {**told, "images": np.array([5, 6]), "one": np.array([1, 0])}, anew=False)
    assert names() == {"one"}  # never beside others of other images
    predictions.keep(file, {}, anew=True)
    assert not file.exists()


def test_gathered_from_runs_that_have_them(tmp_path):
    (cell,) = make_cells(STUDIES["features"], "small", (), (0,), tmp_path)
    folder, run = tmp_path / "results", cell.config.run_dir
    folder.mkdir()
    run.mkdir(parents=True)
    data = {"name": "digits", "train_images": 9, "imbalance_ratio": 10.0, "noise": "symmetric"}
    data |= {"nominal_rate": 0.4, "realised_rate": 0.4, "clean_counts": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]}
    entry = {"role": "baseline", "method": "m", "seconds": 1.0}
    entry["accuracy"] = {"last": 0.5, "mean_last_10": 0.5, "best": 0.5}
    results = {"models": {"cross_entropy": entry}, "data": data}
    (run / "config.json").write_text(json.dumps({"device": "a", "versions": {"jax": "0"}}))
    file = predictions.file_of(folder, "small", cell.setting.name, 0)
    assert file.name == f"small-{cell.setting.name}-seed-0.npz"

    def gather():
        (run / "results.json").write_text(json.dumps(results))
        assert records.gather(folder, "small", [cell]) == []

    gather()
    assert not file.exists()  # an older run has none
    images = np.arange(400, dtype=np.uint32)
    arrays = {"gold": GOLD, "images": images, "cross_entropy": GOLD, "dsink": GOLD, "another": GOLD}
    np.savez(run / "predictions.npz", **arrays)
    gather()
    with np.load(file) as there:
        assert set(there) == {"gold", "images", "few", "cross_entropy"}  # dsink is not finished
        assert there["few"].tolist() == [7, 8, 9] and there["cross_entropy"].dtype == np.uint8
    results["models"]["dsink"] = {**entry, "role": "target"}
    gather()
    with np.load(file) as there:
        assert set(there) == {"gold", "images", "few", "cross_entropy", "dsink"}


def test_tables_show_both_intervals_and_say_which(tmp_path):
    shares = {"dsink": 0.8, "f_N-elr": 0.7, "cross_entropy": 0.6}
    rows = [
        row
        for name, share in shares.items()
        for row in rows_of(name, {seed: np.mean(predicted(share, seed) == GOLD) for seed in range(3)})
    ]
    for row in rows:
        row["role"] = "target" if row["model"] == "dsink" else "baseline"
    of = kept(tmp_path, {name: shares[name] for name in ("dsink", "f_N-elr")})
    frame = pd.DataFrame(rows)
    lines = {line.split()[0]: line for line in render.table(STUDIES["main"], frame, of).splitlines()}
    interval = of.difference("dsink", dict.fromkeys(range(3), "f_N-elr"))
    assert lines["f_N-elr"].endswith(f"{interval} (3 of 3)")
    assert " ± " in lines["cross_entropy"][-20:]
    found = paired.ahead(paired.by_seed(frame), "dsink", ["f_N-elr", "cross_entropy"], of)
    assert str(found) == f"{interval} (3 of 3)" and found.mean == pytest.approx(interval.mean)

    records.merge(tmp_path / "results.csv", records._KEY, frame)
    place = {"device": "1 x cpu", "versions": {"jax": "0"}, "date": "2026-01-01"}
    (tmp_path / "environments.json").write_text(json.dumps({"e": place}))
    study = STUDIES["correction"]
    assert render.SEEDS_ALONE in render.render(tmp_path, study, "correction")
    kept(tmp_path, shares)
    text = render.render(tmp_path, study, "correction")
    assert render.SEEDS_ALONE not in text
    assert f"ahead by {interval} (3 of 3); of whichever is best" in text


def test_a_damaged_file_is_named(tmp_path):
    file = predictions.file_of(tmp_path, "small", "a", 0)
    file.parent.mkdir()
    file.write_bytes(b"no")
    with pytest.raises(InputError, match=r"small-a-seed-0.npz cannot be read"):
        Predictions(tmp_path, "small", "a").has(0, "dsink")


def test_kept_predictions_are_those_of_the_rows():
    """The share of the test images that are right is the accuracy of the row, to its rounding."""
    for folder in sorted((pathlib.Path(__file__).parents[2] / "results").glob("*/predictions")):
        rows = read_rows(folder.parent / "results.csv") if (folder.parent / "results.csv").exists() else None
        for row in () if rows is None else rows.to_dict("records"):
            place = predictions.file_of(folder.parent, row["budget"], row["setting"], row["seed"])
            found = read_npz(place) if place.exists() else {}
            if row["model"] in found:
                right = np.mean(found[row["model"]] == found["gold"])
                assert right == pytest.approx(row["last"], abs=6e-5), (place, row["model"])
