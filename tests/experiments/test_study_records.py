"""What a study gathers from runs: rows of one training in each cell."""

import json

import pandas as pd

from experiments import environments
from experiments.study import records
from experiments.study.catalogue import STUDIES
from experiments.study.runs import make_cells


def stored_run(cell, **models):
    """A run of a cell as it lies on disk: accuracy by model, and how long each training took."""
    cell.config.run_dir.mkdir(parents=True, exist_ok=True)
    entries = {
        name.replace("f_N", "f_N-elr").replace("f_L", "f_L-logit_adjustment"): {
            **{"role": "baseline", "method": "m", "seconds": seconds},
            "accuracy": {"last": share, "mean_last_10": share, "best": share},
        }
        for name, (share, seconds) in models.items()
    }
    data = {"name": "digits", "train_images": 9, "imbalance_ratio": 10.0, "noise": "symmetric"}
    data |= {"nominal_rate": 0.4, "realised_rate": 0.4}
    written = {
        "results.json": json.dumps({"models": entries, "data": data}),
        "config.json": json.dumps({"device": "a device", "versions": {"jax": "0"}}),
        "metrics.jsonl": "\n".join(
            json.dumps({"model": name, "epoch": 1, "accuracy": entry["accuracy"]["last"]})
            for name, entry in entries.items()
        ),
    }
    for name, text in written.items():
        (cell.config.run_dir / name).write_text(text)


def test_rows_of_a_cell_are_never_of_two_trainings(tmp_path):
    (old,), (new,) = (
        make_cells(STUDIES["features"], "small", (), (0,), tmp_path / name) for name in ("old", "new")
    )
    folder = tmp_path / "results"
    folder.mkdir()

    def shares():
        last = records.read(folder, "results.csv")["last"].tolist()
        assert set(records.read(folder, "curves.csv")["accuracy"]) == set(last)
        return last

    stored_run(old, cross_entropy=(0.5, 1.0))
    assert records.gather(folder, "small", [old]) == []
    stored_run(old, cross_entropy=(0.5, 1.0), f_N=(0.7, 2.0), f_L=(0.6, 3.0), dsink=(0.8, 4.0))
    assert records.gather(folder, "small", [old]) == []  # gone on with: the same training, and more
    assert shares() == [0.5, 0.7, 0.6, 0.8]
    key = {"budget": "small", "setting": old.setting.name}
    measured = pd.DataFrame([{**key, "seed": seed, "model": "dsink", "x": 0.5} for seed in (0, 1)])
    records.merge(folder / "features.csv", records._KEY, measured)
    # Another study has trained part of the cell on another machine.
    stored_run(new, cross_entropy=(0.55, 1.5), f_N=(0.75, 2.5))
    assert records.gather(folder, "small", [new]) == [new.name]
    assert shares() == [0.5, 0.7, 0.6, 0.8]
    # All of it: then it takes the place of the old one, and what was measured on that goes.
    stored_run(new, cross_entropy=(0.55, 1.5), f_N=(0.75, 2.5), f_L=(0.65, 3.5), dsink=(0.85, 4.5))
    assert records.gather(folder, "small", [new]) == []
    assert shares() == [0.55, 0.75, 0.65, 0.85]
    assert records.read(folder, "features.csv")["seed"].tolist() == [1]


def test_a_run_that_was_gone_on_with_elsewhere_says_so(tmp_path):
    (cell,) = make_cells(STUDIES["features"], "small", (), (0,), tmp_path)
    folder = tmp_path / "results"
    folder.mkdir()
    stored_run(cell, cross_entropy=(0.5, 1.0))
    records.gather(folder, "small", [cell])
    path = cell.config.run_dir / "config.json"
    later = {"device": "another device", "versions": {"jax": "1"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "continued": [later]}))
    config = path.read_text()
    stored_run(cell, cross_entropy=(0.5, 1.0), f_N=(0.7, 2.0))
    path.write_text(config)
    records.gather(folder, "small", [cell])
    rows = records.read(folder, "results.csv")
    (place,) = environments.recall(folder, rows["environment"])
    assert (place["device"], place["versions"]) == ("a device and another device", {"jax": "0 and 1"})
    # Another budget is another place: its dates are its own.
    assert place["budget"] == "small"
