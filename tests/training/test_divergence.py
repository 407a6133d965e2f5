"""Losses that are not numbers: noticed a dispatch later, with the right step; or skipped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.methods import CrossEntropy
from dsink_jax.training import Checkpointer, TrainingDivergedError, TrainingStoppedError
from tiny_training import Kept, Steps, assert_equal_trees, stop_at, train


@dataclasses.dataclass(frozen=True)
class Diverging(CrossEntropy):
    """Not a number in one step: when so many epochs are done. In all steps if that is negative."""

    at: float = 1.5

    def loss(self, logits, batch, example_state, context):
        result = super().loss(logits, batch, example_state, context)
        bad = (jnp.abs(context.epoch - self.at) < 1e-3) | (self.at < 0)
        values = jnp.where(bad, jnp.nan, result.values)
        return result._replace(values=values, metrics={"base": values})


@pytest.mark.parametrize("together", [1, 3])
def test_divergence_is_noticed_a_dispatch_later_and_nothing_is_saved_after_it(
    together, small_data, cpus, tmp_path
):
    """8 steps an epoch, in one dispatch each or in dispatches of 3, 3 and 2."""
    cases = {  # epochs done before the bad step: its number, the dispatches that are sent, the epoch saved
        1.5: (13, {1: 13, 3: 5}, "epoch 1"),
        1.125: (10, {1: 10, 3: 4}, "epoch 1"),
        0.875: (8, {1: 8, 3: 3}, "no epoch"),  # the last of an epoch
    }
    for at, (step, sent, saved) in cases.items():
        place, progress, records = tmp_path / str(at), Steps(), []
        with pytest.raises(TrainingDivergedError) as caught:
            train(
                *(Diverging(at), small_data, cpus[:1], 3),
                **{"batch_size": 8, "steps_per_dispatch": together, "progress": progress},
                **{"checkpointer": Checkpointer(place), "on_record": records.append},
            )
        message = str(caught.value)
        assert f"the loss was not finite in epoch {int(at) + 1}, step {step} (loss nan, base nan)" in message
        assert f"Last good checkpoint: {saved}" in message
        assert len(progress.metrics) == sent[together] and len(records) == int(at)
        assert Checkpointer(place).newest().startswith(saved)
    assert len(message.splitlines()) == 2 and 'on_nan="skip"' in message
    assert "alpha" not in message, "it is no D-SINK"
    with pytest.raises(TrainingDivergedError, match="step 13 "):  # asked to stop just after it
        train(
            *(Diverging(1.5), small_data, cpus[:1], 3),
            **{"batch_size": 8, "steps_per_dispatch": together, "should_stop": stop_at(13)},
            checkpointer=Checkpointer(tmp_path / "stopped"),
        )
    assert Checkpointer(tmp_path / "stopped").newest() == "epoch 1"


def test_parameters_that_are_no_numbers_are_noticed_at_the_end_of_the_epoch(small_data, cpus):
    """As after a step whose loss was a number and whose gradient was not, the last of the epoch."""

    class Steep(CrossEntropy):
        def loss(self, logits, batch, example_state, context):
            result = super().loss(logits, batch, example_state, context)
            last = jnp.abs(context.epoch - 0.75) < 1e-3
            # Of the last the value is 0 and the slope not a number; of the others 1 and 0.
            steep = jnp.sqrt(jnp.where(last, 0.0 * logits.sum(-1), 1.0))
            return result._replace(values=result.values + steep)

    with pytest.raises(TrainingDivergedError, match="a parameter was not finite in epoch 1, step 4"):
        train(Steep(), small_data, cpus[:1], 2)


@pytest.mark.parametrize("devices", [1, 4])
def test_skipped_step_changes_nothing(devices, small_data, cpus):
    """Stopped before the bad step, and after it: the same parameters."""
    trained = train(Diverging(), small_data, cpus[:devices], 2, on_nan="skip")
    assert [record["train"]["skipped"] for record in trained.history] == [0.0, 1.0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.variables))
    saved = []
    for step in (6, 7):
        kept = Kept()
        with pytest.raises(TrainingStoppedError):
            train(
                *(Diverging(), small_data, cpus[:devices], 2),
                **{"on_nan": "skip", "checkpointer": kept, "should_stop": stop_at(step)},
            )
        saved.append(kept.checkpoints[-1])
    before, after = (checkpoint.state for checkpoint in saved)
    assert (int(before.step), int(after.step)) == (6, 7)
    assert_equal_trees(before._replace(step=after.step), after)
    assert saved[1].sums["examples"] == 16 + 16 + 0


def test_stop_after_a_skipped_first_step_of_an_epoch_is_no_divergence(small_data, cpus, tmp_path):
    with pytest.raises(TrainingStoppedError, match="epoch 2, step 1 of 4"):
        train(
            *(Diverging(1.0), small_data, cpus[:1], 2),
            **{"on_nan": "skip", "checkpointer": Checkpointer(tmp_path), "should_stop": stop_at(5)},
        )
    assert Checkpointer(tmp_path).newest() == "epoch 1 and 1 steps"


def test_every_step_skipped_is_a_divergence(small_data, cpus):
    with pytest.raises(TrainingDivergedError, match="every step's loss or gradient was not finite"):
        train(Diverging(-1.0), small_data, cpus[:1], 1, on_nan="skip")
