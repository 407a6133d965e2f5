"""A short run with baselines of every kind: combinations of the auxiliaries, two stages, two networks."""

import json

import jax
import numpy as np
import pytest

from dsink_jax.data import load, load_corruption
from dsink_jax.models import make_model
from dsink_jax.training import load_variables
from experiments.config import DIGITS
from run_commands import run

ARGUMENTS = (
    *("--epochs", "3", "--checkpoint-every", "3", "--devices", "1"),
    *("--baselines", f"{DIGITS.baselines},naive_tuned,ensemble,crt"),
    *("--noise-method", "coteaching", "--coteaching-noise-rate", "estimated"),
)
MODELS = [
    *("imbalance_robust", "noise_robust", "cross_entropy", "naive_distillation"),
    *("noise_robust_adjusted", "naive_tuned", "ensemble", "crt", "target"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("baselines") / "run"
    done = run(*ARGUMENTS, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


@pytest.mark.slow
def test_results_are_complete(finished):
    directory, output = finished
    results = json.loads((directory / "results.json").read_text())
    assert list(results["models"]) == MODELS
    for name, entry in results["models"].items():
        assert {"role", "method", "accuracy", "per_class", "calibration_error", "seconds"} <= entry.keys()
        assert np.mean(entry["per_class"]) == pytest.approx(entry["accuracy"]["last"])
        assert name in output
    assert results["models"]["ensemble"]["method"] == "mean of f_L and f_N"
    assert results["models"]["noise_robust_adjusted"]["method"] == "f_N, predicted prior"
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    trained = [name for name in MODELS if name not in ("ensemble", "noise_robust_adjusted")]
    epochs = {name: [m["epoch"] for m in metrics if m["model"] == name] for name in trained}
    assert epochs == {name: [1] if name == "crt" else [1, 2, 3] for name in trained}
    assert [m["epoch"] for m in metrics if m["model"] == "crt_first_stage"] == [1, 2, 3]
    rates = [m["train"]["noise_rate"] for m in metrics if m["model"] == "noise_robust"]
    assert rates[0] == 0 < rates[1] == rates[2] < 1
    settings = json.loads((directory / "config.json").read_text())["settings"]
    assert settings["coteaching_noise_rate"] == "estimated"
    assert (directory / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_combinations_of_the_auxiliaries_recomputed(finished):
    """From the variables of their last checkpoints, by the definitions: accuracies are those written."""
    directory, _ = finished
    drawn, data = load_corruption(directory / "corruption.npz"), load("digits")
    training = data.train.images[drawn.index]

    def predicted(name, networks):
        model = make_model("small_cnn", 10, networks=networks)
        variables = load_variables(directory / "checkpoints" / name)
        for images in (data.test.images, training):
            inputs = (images / np.float32(255) - np.float32(data.mean)) / np.float32(data.std)
            logits, _ = model.apply(variables, inputs)
            logits = np.asarray(logits).mean(0) if networks > 1 else logits
            yield np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)

    of_f_l, _ = predicted("imbalance_robust", 1)
    of_f_n, on_training = predicted("noise_robust", 2)
    adjusted = of_f_n / on_training.mean(0)
    expected = {
        "ensemble": (of_f_l + of_f_n) / 2,
        "noise_robust_adjusted": adjusted / adjusted.sum(-1, keepdims=True),
        "noise_robust": of_f_n,
    }
    results = json.loads((directory / "results.json").read_text())["models"]
    labels = data.test.labels
    for name, shares in expected.items():
        accuracy = np.mean(shares.argmax(-1) == labels)
        assert results[name]["accuracy"]["last"] == pytest.approx(accuracy, abs=1.01 / len(labels)), name
        per_class = [np.mean(shares[labels == c].argmax(-1) == c) for c in range(10)]
        assert results[name]["per_class"] == pytest.approx(per_class, abs=0.026), name
    assert len({results[name]["calibration_error"] for name in expected}) == 3


@pytest.mark.slow
def test_the_second_stage_starts_where_the_first_ended(finished):
    """The frozen backbone is bit-identical in both checkpoints, the classifier is another."""
    directory, _ = finished
    first, second = (load_variables(directory / "checkpoints" / name) for name in ("crt_first_stage", "crt"))
    for name, tree in second["params"].items():
        for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(first["params"][name]), strict=True):
            assert np.array_equal(one, two) == (name != "classifier")
    for one, two in zip(
        jax.tree.leaves(second["batch_stats"]), jax.tree.leaves(first["batch_stats"]), strict=True
    ):
        np.testing.assert_array_equal(one, two)
