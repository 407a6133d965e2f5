"""What a run keeps of single images, against a plain Sinkhorn iteration in float64."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from allocation_references import log_softmax, reference_labels
from dsink_jax.data import load, load_corruption
from dsink_jax.data.streaming import Selected
from dsink_jax.methods import DSink
from dsink_jax.report.gallery import displayable
from experiments.examples import TrainingLogits, collect_examples, solve_in_batches
from run_commands import run

NUM_CLASSES = 4
TERM = DSink(threshold=1e-6, max_iterations=2000)


def some_logits(count, seed=0):
    rng = np.random.default_rng(seed)
    return TrainingLogits(*(2 * rng.standard_normal((3, count, NUM_CLASSES))).astype(np.float32))


def some_dataset(count, batch_size, images=None):
    """As much of a data set as is looked at."""
    rng = np.random.default_rng(1)
    clean = rng.integers(0, NUM_CLASSES, count).astype(np.int32)
    noisy = np.where(rng.random(count) < 0.4, rng.integers(0, NUM_CLASSES, count), clean).astype(np.int32)
    if images is None:
        images = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return SimpleNamespace(
        config=SimpleNamespace(batch_size=batch_size, data_seed=3),
        corruption=SimpleNamespace(
            clean_labels=clean, noisy_labels=noisy, index=1000 + 2 * np.arange(count, dtype=np.int32)
        ),
        data=SimpleNamespace(class_names=tuple("abcd")),
        images=images,
    )


def reference(logits, batch_size):
    """Q batch by batch in index order; the last batch has what is left."""
    solved = []
    for start in range(0, len(logits.target), batch_size):
        target, robust, balanced = (part[start : start + batch_size] for part in logits)
        solved.append(reference_labels(target, robust, np.exp(log_softmax(balanced)).mean(0)))
    return np.concatenate(solved)


@pytest.mark.parametrize(("count", "batch_size"), [(150, 64), (150, 75), (40, 64), (65, 64)])
def test_q_of_the_whole_set(count, batch_size):
    logits = some_logits(count)
    found = solve_in_batches(logits, batch_size, TERM)
    np.testing.assert_allclose(found, reference(logits, batch_size), atol=2e-5)


@functools.cache
def collected():
    logits, dataset = some_logits(150), some_dataset(150, 64)
    return logits, dataset, collect_examples(dataset, TERM, logits)


def test_suspects_are_those_with_the_least_q_of_their_label():
    logits, dataset, examples = collected()
    labels, drawn = reference(logits, 64), dataset.corruption
    share = [row[given] for row, given in zip(labels, drawn.noisy_labels, strict=True)]
    order = sorted(range(150), key=share.__getitem__)[:40]
    assert examples["suspect_index"].tolist() == [1000 + 2 * i for i in order]
    assert examples["suspect_true"].tolist() == drawn.clean_labels[order].tolist()
    assert examples["suspect_given"].tolist() == drawn.noisy_labels[order].tolist()
    assert examples["suspect_proposed"].tolist() == [int(labels[i].argmax()) for i in order]
    np.testing.assert_allclose(examples["suspect_confidence"], labels[order].max(1), atol=2e-5)
    np.testing.assert_allclose(examples["suspect_given_share"], [share[i] for i in order], atol=2e-5)
    np.testing.assert_array_equal(examples["suspect_images"], dataset.images[order])


def test_the_batch_is_a_problem_of_its_own():
    logits, dataset, examples = collected()
    batch = (examples["batch_index"] - 1000) // 2
    assert len(set(batch.tolist())) == 64
    for name in ("target", "noise_robust", "imbalance_robust"):
        expected = np.exp(log_softmax(getattr(logits, name)[batch]))
        np.testing.assert_allclose(examples[f"batch_{name}"], expected, atol=1e-6)
    of_batch = TrainingLogits(*(part[batch] for part in logits))
    np.testing.assert_allclose(examples["batch_surrogate"], reference(of_batch, 64), atol=2e-5)
    assert examples["batch_true"].tolist() == dataset.corruption.clean_labels[batch].tolist()
    assert examples["batch_given"].tolist() == dataset.corruption.noisy_labels[batch].tolist()


def test_half_of_those_shown_are_labelled_wrong():
    _, dataset, examples = collected()
    rows = examples["shown_rows"]
    wrong = examples["batch_true"][rows] != examples["batch_given"][rows]
    assert wrong.tolist() == [True] * 6 + [False] * 6
    assert examples["shown_index"].tolist() == examples["batch_index"][rows].tolist()
    positions = (examples["shown_index"] - 1000) // 2
    np.testing.assert_array_equal(examples["shown_images"], dataset.images[positions])


def test_the_data_seed_draws_the_batch():
    logits, dataset, examples = collected()
    same = collect_examples(dataset, TERM, logits)
    other = SimpleNamespace(**vars(dataset) | {"config": SimpleNamespace(batch_size=64, data_seed=4)})
    other = collect_examples(other, TERM, logits)
    assert same["batch_index"].tolist() == examples["batch_index"].tolist() != other["batch_index"].tolist()


def test_epsilon_is_the_methods():
    logits = some_logits(64)
    sharp = solve_in_batches(logits, 64, dataclasses.replace(TERM, epsilon=1.0))
    # Half the entropy is twice the cost.
    doubled = logits._replace(target=2 * logits.target, noise_robust=2 * logits.noise_robust)
    np.testing.assert_allclose(sharp, solve_in_batches(doubled, 64, TERM), atol=1e-4)


def test_streamed_images_give_the_same():
    logits, dataset, examples = collected()
    streamed = SimpleNamespace(**vars(dataset) | {"images": Selected(dataset.images, np.arange(150))})
    for name, values in collect_examples(streamed, TERM, logits).items():
        np.testing.assert_array_equal(values, examples[name])


@pytest.mark.parametrize("batch_size", [4, 512])
def test_batches_of_any_size(batch_size):
    examples = collect_examples(some_dataset(150, batch_size), TERM, some_logits(150))
    assert len(examples["batch_index"]) == {4: 64, 512: 128}[batch_size]


def test_a_set_of_ten_images():
    examples = collect_examples(some_dataset(10, 64), TERM, some_logits(10))
    assert len(examples["batch_index"]) == len(examples["shown_rows"]) == len(examples["suspect_index"]) == 10


def test_floats_are_scaled_each_from_least_to_largest():
    images = np.array([[-1.0, 0.0, 3.0], [0.2, 0.3, 0.4], [7.0, 7.0, 7.0]], np.float32).reshape(3, 1, 3, 1)
    assert displayable(images).reshape(3, 3).tolist() == [[0, 64, 255], [0, 128, 255], [0, 0, 0]]


@pytest.mark.parametrize(("side", "kept"), [(8, 8), (64, 64), (65, 33), (224, 56)])
def test_large_images_are_thinned(side, kept):
    images = np.zeros((2, side, side // 2, 3), np.uint8)
    assert displayable(images).shape == (2, kept, -(-(side // 2) // -(-side // 64)), 3)


def test_options_of_the_solver_are_the_methods():
    logits = TrainingLogits(*(5 * part for part in some_logits(64)))
    exact = reference(logits, 64)
    np.testing.assert_allclose(solve_in_batches(logits, 64, TERM), exact, atol=1e-4)
    stopped = dataclasses.replace(TERM, max_iterations=1)
    assert np.abs(solve_in_batches(logits, 64, stopped) - exact).max() > 1e-3


@pytest.mark.slow
def test_a_whole_run_of_two_networks_streamed_and_cached(tmp_path):
    flags = ("--base", "dividemix", "--auxiliary-predictions", "cached", "--streaming", "on")
    tiny = ("--epochs", "1", "--limit-train", "300", "--limit-test", "50", "--baselines", "none")
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = run(*tiny, *flags, "--devices", "2", "--run-dir", tmp_path / "run", **two)
    assert done.returncode == 0, done.stderr
    drawn = load_corruption(tmp_path / "run" / "corruption.npz")
    images = load("digits").train.images
    with np.load(tmp_path / "run" / "examples.npz") as examples:
        position = {index: i for i, index in enumerate(drawn.index.tolist())}
        suspects = [position[index] for index in examples["suspect_index"].tolist()]
        assert examples["suspect_given"].tolist() == drawn.noisy_labels[suspects].tolist()
        assert examples["suspect_true"].tolist() == drawn.clean_labels[suspects].tolist()
        np.testing.assert_array_equal(examples["suspect_images"], images[examples["suspect_index"]])
        assert (np.diff(examples["suspect_given_share"]) >= 0).all()
        for name in ("target", "noise_robust", "imbalance_robust", "surrogate"):
            np.testing.assert_allclose(examples[f"batch_{name}"].sum(1), 1, atol=1e-5)
        # Q keeps the class marginal of f_L.
        means = [examples[f"batch_{name}"].mean(0) for name in ("surrogate", "imbalance_robust")]
        np.testing.assert_allclose(*means, atol=1e-5)
        log_f, log_f_n = (np.log(examples[f"batch_{name}"]) for name in ("target", "noise_robust"))
        expected = reference_labels(log_f, log_f_n, means[1])
        np.testing.assert_allclose(examples["batch_surrogate"], expected, atol=1e-4)
    assert "The most suspicious labels" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
