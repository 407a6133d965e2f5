"""Sums of the steps' metrics: worked by hand, and the same wherever an epoch was cut in two."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.training.epoch_metrics import EpochMetrics, TrainingDivergedError

PARAMS = {"w": jnp.ones(2)}


def never_saved():
    return "none"


def collected(losses, examples, *, sums=(), done=0, steps=4):
    made = EpochMetrics(1, steps, dict(sums), done)
    for loss, count in zip(losses, examples, strict=True):
        made.add({"loss": jnp.float32(loss), "examples": jnp.float32(count)}, np.size(loss), never_saved)
    made.check(PARAMS, never_saved)
    return made


def test_means_are_over_examples():
    one_by_one = collected([1.0, 2.0, 4.0, 7.0], [2, 2, 4, 0])  # a step without examples does not count
    assert one_by_one.means() == {"loss": (2 + 4 + 16) / 8}
    together = collected([[1.0, 2.0], [4.0, 7.0]], [[2, 2], [4, 0]])
    assert together.sums() == one_by_one.sums() == {"loss": 22.0, "examples": 8.0}


def test_sums_go_on_bit_for_bit():
    losses = np.random.default_rng(0).exponential(size=200).astype(np.float32)
    whole = collected(losses, np.full(200, 7), steps=200)
    half = collected(losses[:90], np.full(90, 7), steps=200)
    resumed = collected(losses[90:], np.full(110, 7), sums=half.sums(), done=90, steps=200)
    assert resumed.sums() == whole.sums()
    assert whole.means()["loss"] == pytest.approx(losses.mean(dtype=np.float64), rel=1e-12)


def test_the_step_that_diverged_is_told_when_the_next_is_under_way():
    made = EpochMetrics(2, 4, {}, 0)
    made.add({"loss": jnp.float32([1, np.nan]), "examples": jnp.float32([2, 2])}, 2, never_saved)
    with pytest.raises(
        TrainingDivergedError, match=r"the loss was not finite in epoch 2, step 6 \(loss nan\)"
    ):
        made.add({"loss": jnp.float32([1, 1]), "examples": jnp.float32([2, 2])}, 2, never_saved)


def test_an_epoch_without_examples_or_with_a_bad_parameter_diverged():
    with pytest.raises(TrainingDivergedError, match="every step's loss or gradient"):
        collected([0.0] * 4, [0] * 4)
    made = EpochMetrics(1, 4, {}, 0)
    made.add({"loss": jnp.float32(1), "examples": jnp.float32(1)}, 1, never_saved)
    with pytest.raises(TrainingDivergedError, match="a parameter was not finite"):
        made.check({"w": jnp.float32([1, np.inf])}, never_saved)
