"""What studies measure on trained models."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from dsink_jax.errors import InputError
from dsink_jax.training import load_variables
from experiments.study import budgets, measurements, records, runs
from experiments.study.catalogue import STUDIES
from experiments.study.measurements import opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """The study of features on digits, trained for four epochs on one device."""
    folder = tmp_path_factory.mktemp("runs")
    preset = dataclasses.replace(budgets.BUDGETS["small"].preset, epochs=4, evaluate_every=4, devices=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(budgets.BUDGETS, "small", dataclasses.replace(budgets.BUDGETS["small"], preset=preset))
        (made,) = runs.make_cells(STUDIES["features"], "small", (), (3,), folder)
    runs.train(made)
    return made


@pytest.fixture(scope="module")
def measured(cell):
    """The rows of every measurement."""
    with opened(cell) as run:
        return {name: one.measure(run) for name, one in measurements.MEASUREMENTS.items()}


def test_features_are_what_the_last_layer_is_given(cell):
    with opened(cell) as run:
        images = run.dataset.data.test.images[:50]
        features, logits = run.features("dsink", images), run.logits("dsink", images)
    last = load_variables(cell.config.run_dir / "checkpoints" / "dsink")["params"]["classifier"]
    np.testing.assert_allclose(features @ last["kernel"] + last["bias"], logits, rtol=1e-4, atol=1e-4)


def test_rows_of_features(cell, measured):
    rows = measured["features"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    accuracy = {name: entry["accuracy"]["last"] for name, entry in runs.stored(cell)["models"].items()}
    rivals = [name for name in accuracy if name != "dsink"]
    assert set(rivals) > {"f_N-mixup", "naive-noise_weight=0.7"}
    assert models == ["cross_entropy", max(rivals, key=accuracy.get), "dsink"]
    labels = [row["label"] for row in rows if row["model"] == "dsink"]
    with opened(cell) as run:
        assert labels == run.dataset.data.test.labels.tolist()
        features = run.features("dsink", run.dataset.data.test.images)
    # The share of neighbours of the same class of one image, by all distances.
    distances = np.linalg.norm(features - features[7], axis=1)
    nearest = np.argsort(distances)[1:11]
    share = np.mean(np.asarray(labels)[nearest] == labels[7])
    assert rows[2 * len(labels) + 7]["same_class"] == pytest.approx(share)


def test_rows_of_the_allocation(measured):
    rows = measured["allocation"]
    assert {row["marginal"] for row in rows} == {"batch", "dataset", "queue"}
    error = {(row["marginal"], row["batch_size"]): row["error"] for row in rows}
    assert all(0 <= value <= 1 for value in error.values())
    for kind in ("batch", "dataset", "queue"):
        assert error[kind, 256] < error[kind, 8]  # what is nearer to the whole set errs less
    assert error["queue", 8] < error["batch", 8]


def test_rows_of_the_exactness(cell, measured):
    rows = {row["solver"]: row for row in measured["exactness"]}
    assert all(0 <= row["error"] <= row["worst"] <= 1 for row in rows.values())
    # The default has converged; less of it errs more, and another epsilon most.
    assert rows["default"]["error"] < 1e-4 and rows["default"]["marginal_error"] < 1e-6
    errors = [rows[f"max_iterations={limit}"]["error"] for limit in (50, 20, 10)]
    assert errors == sorted(errors) and errors[-1] < rows["epsilon=0.5"]["error"]
    assert rows["threshold=0.1"]["iterations"] == 10
    assert rows["threshold=0.1"] | {"solver": ""} == rows["max_iterations=10"] | {"solver": ""}


def test_rows_of_the_class_shares(cell, measured):
    rows = measured["class-shares"]
    shares = {
        kind: [row["share"] for row in rows if row["kind"] == kind] for kind in {r["kind"] for r in rows}
    }
    assert all(sum(values) == pytest.approx(1) for values in shares.values())
    data = runs.stored(cell)["data"]
    for kind, counts in (("true labels", "clean_counts"), ("observed labels", "noisy_counts")):
        np.testing.assert_allclose(shares[kind], np.divide(data[counts], data["train_images"]))
    with opened(cell) as run:
        logits = run.logits("f_L-logit_adjustment", run.dataset.images)
    np.testing.assert_allclose(shares["f_L-logit_adjustment"], softmax(logits, axis=1).mean(0), atol=1e-5)


def test_models_that_other_studies_trained_there_are_passed_over(cell):
    one = cell._replace(models=[model for model in cell.models if model.name == "cross_entropy"])
    with opened(one) as run:
        assert list(run.results["models"]) == list(run.specs) == ["cross_entropy"]


def test_run_that_is_not_trained(cell, tmp_path):
    other = cell._replace(config=dataclasses.replace(cell.config, run_dir=tmp_path / "none"))
    with pytest.raises(InputError, match="dsink is not trained yet"), opened(other):
        pass


def test_rows_survive_their_files(measured, tmp_path):
    for name, (file, key, _) in measurements.MEASUREMENTS.items():
        row = {"budget": "small", "setting": "a", "seed": 3, **measured[name][0]}
        records.merge(tmp_path / file, ("seed", *key), pd.DataFrame([row]))
        (read,) = records.read(tmp_path, file).to_dict("records")
        assert read == {name: pytest.approx(value, abs=1e-3) for name, value in row.items()}
