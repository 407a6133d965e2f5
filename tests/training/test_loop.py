"""The loop: what it trains, when it evaluates, what it shows."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from dsink_jax.methods import CrossEntropy, EarlyLearningRegularization
from dsink_jax.models import build_model
from dsink_jax.training import BarProgress, LineProgress
from dsink_jax.training.parallel import must_read
from tiny_training import STANDARDIZATION, assert_close_trees, assert_equal_trees, train


def test_training_learns_and_predicts(small_data, cpus):
    trained = train(CrossEntropy(), small_data, cpus[:2], epochs=8, model=build_model("small_cnn", 4))
    predictions = trained.logits(small_data.inputs, STANDARDIZATION, cpus[:2]).argmax(-1)
    assert np.mean(predictions == small_data.labels) > 0.9  # chance is 0.25


@pytest.mark.slow
def test_long_epoch_on_many_cpu_devices_survives(small_data, cpus):
    """More unread collective steps than JAX on CPU bears would abort the whole process."""
    inputs, labels = np.tile(small_data.inputs, (14, 1, 1, 1)), np.tile(small_data.labels, 14)
    trained = train(CrossEntropy(), small_data._replace(inputs=inputs, labels=labels), cpus, epochs=1)
    assert len(labels) / 16 > 50
    assert np.isfinite(trained.history[-1]["train"]["loss"])
    assert must_read(16, cpus) and not must_read(15, cpus) and not must_read(16, cpus[:1])


def test_ending_early_is_the_longer_training_cut_off(small_data, cpus):
    """With the learning rate as it is then: not annealed over fewer epochs. And evaluated when asked."""
    cut = train(CrossEntropy(), small_data, cpus[:1], 5, end_after=2)
    seen = []

    def evaluate(trained):
        seen.append(jax.device_get(trained.variables))
        return {"marker": len(seen)}

    whole = train(CrossEntropy(), small_data, cpus[:1], 5, evaluate=evaluate, evaluate_every=2)
    assert [record["epoch"] for record in cut.history] == [1, 2]
    assert [(record["epoch"], record["marker"]) for record in whole.history] == [(2, 1), (4, 2), (5, 3)]
    assert_equal_trees(cut.variables, seen[0])
    assert_equal_trees(whole.variables, seen[2])


@pytest.mark.usefixtures("optimized")
def test_several_steps_in_a_dispatch_train_the_same(small_data, cpus):
    """4 steps: a dispatch of 3 and one of 1."""
    single, several = (
        train(EarlyLearningRegularization(), small_data, cpus[:1], 1, steps_per_dispatch=count)
        for count in (1, 3)
    )
    assert several.history[-1]["train"] == pytest.approx(single.history[-1]["train"], abs=1e-4)
    assert_close_trees(several.variables, single.variables, 1e-4)


def test_progress_off_a_terminal_is_a_rare_plain_line(small_data, cpus):
    quiet, chatty = io.StringIO(), io.StringIO()
    train(CrossEntropy(), small_data, cpus[:1], 2, progress=LineProgress("f_N", quiet))
    train(CrossEntropy(), small_data, cpus[:1], 2, progress=LineProgress("f_N", chatty, seconds_between=0.0))
    assert quiet.getvalue() == ""
    assert [line.split(",")[0] for line in chatty.getvalue().splitlines()] == [
        "  f_N: epoch 1/2",
        "  f_N: epoch 2/2",
    ]
    assert "\x1b" not in chatty.getvalue() and "images/s" in chatty.getvalue()


def test_progress_on_a_terminal_shows_loss_accuracy_speed_and_time(small_data, cpus):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    train(CrossEntropy(), small_data, cpus[:1], 3, progress=BarProgress("target", console))
    for word in ("target", "loss", "accuracy", "images/s", "epoch"):
        assert word in screen.getvalue()
