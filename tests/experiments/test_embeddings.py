"""Heads on embeddings: the numbers of a small set, the table by hand, and going on where it stopped."""

import csv
import functools

import jax
import numpy as np
import pandas as pd
import pytest

from dsink_jax import fit
from experiments import embeddings
from experiments.embedded import Task
from experiments.environments import environment_here, identify, remember

OTHERS = ["logistic regression", "logistic regression, balanced"]
MODELS = [
    *("f_L", "f_N", "D-SINK"),
    *("f_L, weight decay 5e-4", "ELR", "ELR, adjusted", "D-SINK as published"),
]


def easy_task():
    """Three classes of 240, 120 and 40 vectors that a line parts, labels right."""
    rng = np.random.default_rng(0)
    true, tested = np.repeat([0, 1, 2], [240, 120, 40]), np.repeat([0, 1, 2], 20)

    def around(labels):
        return (5 * np.eye(3)[labels] + 0.1 * rng.normal(size=(len(labels), 3))).astype(np.float32)

    return Task(around(true), true, true, around(tested), tested)


@pytest.mark.slow
def test_every_model_learns_an_easy_set_and_the_file_is_gone_on_with(tmp_path, monkeypatch):
    # On one device: a thousand steps on eight virtual ones take minutes.
    monkeypatch.setattr(embeddings, "fit", functools.partial(fit, epochs=30, devices=jax.devices()[:1]))
    monkeypatch.setattr(embeddings, "_DIGITS", embeddings._DIGITS[:1])
    monkeypatch.setattr(embeddings, "make_task", lambda *_, **__: easy_task())
    monkeypatch.setattr("sys.argv", ["embeddings", "--seeds", "7", "--output", str(tmp_path)])
    embeddings.main()
    with open(tmp_path / "embeddings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == OTHERS + MODELS
    for row in rows:
        assert (float(row["accuracy"]), float(row["few"]), row["wrong"]) == (1, 1, "0")
        assert (row["shares_off"] != "") == row["model"].startswith("D-SINK")
    (file,) = (tmp_path / "predictions").iterdir()
    with np.load(file) as kept:
        named = [f"linear, {model}" for model in MODELS]
        assert set(kept) == {"gold", "images", "few", *OTHERS, *named}
        assert all((kept[name] == kept["gold"]).all() for name in (*OTHERS, *named))
    before = (tmp_path / "embeddings.csv").read_bytes()
    monkeypatch.setattr(embeddings, "compare", None)  # not to be called again
    embeddings.main()
    assert (tmp_path / "embeddings.csv").read_bytes() == before


def test_table_says_where_dsink_is_behind(tmp_path):
    def rows(seed, accuracy):
        for head in embeddings.HEADS:
            for model in MODELS:
                found = accuracy if model == "D-SINK" else 0.75
                off = 0.5 if model.startswith("D-SINK") else None
                yield {"head": head, "model": model, "accuracy": found, "shares_off": off}
        for model in OTHERS:
            yield {"head": None, "model": model, "accuracy": 0.5, "shares_off": None}

    environment = environment_here()
    remember(tmp_path, [environment])
    common = {"setting": "s", "examples": 9, "wrong": 0.4, "few": 0.25}
    common["environment"] = identify(environment)
    written = [
        {**common, "seed": seed, **row}
        for seed, accuracy in ((0, 0.8), (1, 0.6))
        for row in rows(seed, accuracy)
    ]
    embeddings.write_table(tmp_path, pd.DataFrame(written))
    text = (tmp_path / "embeddings.md").read_text()
    first = next(line for line in text.splitlines() if line.startswith("s ") and "linear" in line)
    # 30 and 10 points before logistic regression, 5 before and 15 behind the others.
    assert first.count("+20.0 ± 127.1 (2 of 2)") == 2
    assert first.count("-5.0 ± 127.1 (1 of 2)") == 6
    assert "70.0 ± 14.1" in text
    assert text.count("0.50") == 2


@pytest.mark.parametrize("seeds", [["-1"], []])
def test_seeds_out_of_range_are_named(seeds, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["embeddings", "--seeds", *seeds])
    with pytest.raises(SystemExit) as ended:
        embeddings.main()
    assert ended.value.code == 2
    assert "--seeds" in capsys.readouterr().err
