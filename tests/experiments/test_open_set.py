"""The study of examples of no class: what is held out, what is measured, what is written."""

import gzip

import numpy as np
import pandas as pd
import pytest

from dsink_jax.errors import InputError
from experiments.natural import files, open_set

DOMAINS = np.repeat(["bank", "car", "home", "play", "travel", "work"], 2)


def arrays(seed=0, rows=200):
    """Features around the intents' directions; the last test rows are out of scope."""
    rng = np.random.default_rng(seed)
    directions = 6 * rng.standard_normal((12, 12))
    intent, test_intent = rng.integers(0, 12, rows), np.append(rng.integers(0, 12, 90), np.full(10, -1))
    inputs = directions[intent] + rng.standard_normal((rows, 12))
    test = np.append(directions[test_intent[:90]], np.zeros((10, 12)), 0) + rng.standard_normal((100, 12))
    return inputs, intent, test, test_intent, DOMAINS


def test_four_domains_have_no_class_and_their_queries_the_nearest_intent():
    inputs, intent, _, test_intent, domains = arrays()
    data = open_set.hold_out(*arrays(), seed=3)
    out = np.unique(domains[intent[~data.known]])
    assert len(out) == open_set.HELD_OUT and data.num_classes == 4
    assert (np.isin(domains[intent], out) == ~data.known).all()
    left = np.flatnonzero(~np.isin(domains, out))
    assert (left[data.given[data.known]] == intent[data.known]).all()
    means = [inputs[intent == i].mean(0) for i in left]
    for i in np.flatnonzero(~data.known):
        cosines = [inputs[i] @ mean / np.linalg.norm(inputs[i]) / np.linalg.norm(mean) for mean in means]
        assert data.given[i] == np.argmax(cosines)
    assert (data.test_classes == -2).tolist() == (test_intent == -1).tolist()
    assert ((data.test_classes == -1) == np.isin(domains[test_intent], out))[:90].all()
    assert (open_set.hold_out(*arrays(), seed=4).known != data.known).any()


def test_measures_by_hand():
    data = open_set.OpenSet(*[np.zeros(0)] * 4, np.array([0, 1, 1, -1, -1, -2]), 2)
    logits = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0]])
    found = open_set.measures(data, logits, np.array([0.9, 0.7, 0.3, 0.8, 0.1, 0.2]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["auroc_held_out"] == pytest.approx(4 / 6)  # 0.9 above both, 0.7 and 0.3 above one
    assert found["auroc_out_of_scope"] == 1


def write_clinc(folder, **changes):
    folder.mkdir(parents=True)
    rows = {
        "split": ["train", "train", "train", "test", "oos_test"],
        "text": ["a, b", "nan", "c", "d", "e"],
        "label": [0, 1, 1, 0, -1],
        "in_imbalanced": [1, 1, 0, "", ""],
    }
    with gzip.open(folder / "clinc150.csv.gz", "wt") as file:
        pd.DataFrame(rows | changes).to_csv(file, index=False)
    (folder / "label_names.txt").write_text("pay\ndrive\n")
    (folder / "domain_names.txt").write_text("pay\tbank\ndrive\tcar\n")
    return folder


def test_queries_are_read_as_they_are(tmp_path):
    queries = files.read_queries(write_clinc(tmp_path / "clinc150_open"))
    assert queries.texts == ["a, b", "nan", "c", "d", "e"]
    assert queries.intent.tolist() == [0, 1, 1, 0, -1]
    assert queries.in_imbalanced.tolist() == [True, True, False, False, False]
    assert queries.domain.tolist() == ["bank", "car"]


def test_what_is_no_clinc_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read as CLINC150"):
        files.read_queries(write_clinc(tmp_path / "words", label=["x"] * 5))
    folder = write_clinc(tmp_path / "domains")
    (folder / "domain_names.txt").write_text("pay\tbank\n")
    with pytest.raises(InputError, match="drive"):
        files.read_queries(folder)
    with pytest.raises(InputError, match="clinc150_open was not found"):
        open_set.read_features(tmp_path, tmp_path)


@pytest.mark.slow
def test_all_models_are_compared_and_the_page_is_drawn_from_the_rows(tmp_path):
    found = list(open_set.compare(open_set.hold_out(*arrays(), seed=0), 0))
    assert tuple(row["model"] for row in found) == open_set.MODELS
    frame = pd.DataFrame(
        [{**row, "setting": "clinc150", "seed": seed, "environment": "x"} for seed in (0, 1) for row in found]
    )
    assert frame["known_share"].notna().tolist() == [True, True, *[False] * 6] * 2
    assert frame["accuracy"].between(0, 1).all()
    frame[list(open_set.FIELDS)].to_csv(tmp_path / "open-set.csv", index=False)
    (tmp_path / "environments.json").write_text(
        '{"x": {"device": "cpu", "versions": {}, "date": "2026-01-31"}}'
    )
    open_set.render(tmp_path)
    page = (tmp_path / "open-set.md").read_text()
    assert all(model in page for model in open_set.MODELS) and "200 queries" in page
