"""Trainings that are stopped and go on end as if they had not been, whatever their method keeps."""

import types

import jax
import numpy as np
import pytest

from dsink_jax.methods import (
    CoTeaching,
    CrossEntropy,
    DivideMix,
    DSink,
    EarlyLearningRegularization,
    Tabasco,
    TransportReweighting,
)
from dsink_jax.training import Checkpointer, TrainingStoppedError, loop
from tiny_training import Steps, assert_equal_trees, some_variables, stop_at, train, with_auxiliaries

EPOCHS = 4
CASES = {
    "elr": (EarlyLearningRegularization(), {}),
    "dsink": (CrossEntropy(), {"term": DSink(3.0, 1.0, 1.0)}),
    "dividemix": (DivideMix(), {}),
    "tabasco": (Tabasco(), {}),
    "coteaching": (CoTeaching("estimated"), {}),  # after the first epoch
    "ot_reweighting": (TransportReweighting(2, "observed", share=1.0), {"state_dtype": "float16"}),
}


class KilledError(Exception):
    pass


def kill_at(epoch):
    """For `on_record`: after an epoch was trained, and before it is saved."""

    def on_record(record):
        if record["epoch"] == epoch:
            raise KilledError

    return on_record


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_training_stopped_and_killed_ends_bit_identical(case, small_data, cpus, tmp_path):
    method, options = CASES[case]
    # Labels in part wrong, so that there is something to estimate and divide.
    labels = np.where(np.arange(60) % 4 == 0, (small_data.labels + 1) % 4, small_data.labels)
    data = with_auxiliaries(small_data._replace(labels=labels.astype(np.int32)))
    if case == "ot_reweighting":
        options = options | {"start_from": some_variables(method, data.inputs)}
    whole = train(method, data, cpus[:1], EPOCHS, **options)

    def go_on(**more):
        return train(
            *(method, data, cpus[:1], EPOCHS), checkpointer=Checkpointer(tmp_path), **options, **more
        )

    for step in (2, 3):  # in one epoch
        with pytest.raises(TrainingStoppedError, match=f"epoch 1, step {step} of 4"):
            go_on(should_stop=stop_at(step))
    with pytest.raises(KilledError):
        go_on(on_record=kill_at(1))
    with pytest.raises(TrainingStoppedError, match=r"epoch 1$"):
        go_on(should_stop=stop_at(4))
    with pytest.raises(KilledError):
        go_on(on_record=kill_at(2))
    assert Checkpointer(tmp_path).newest() == "epoch 1"
    with pytest.raises(TrainingStoppedError, match="epoch 4, step 1 of 4"):
        go_on(should_stop=stop_at(13))
    assert Checkpointer(tmp_path).newest() == "epoch 3 and 1 steps"
    seen = []
    resumed = go_on(on_record=lambda record: seen.append(record["epoch"]))
    assert seen == [4]
    done = go_on(on_record=kill_at(4))  # nothing is left to do
    for ours in (resumed, done):
        assert ours.history == whole.history
        assert_equal_trees(ours.variables, whole.variables)


@pytest.mark.parametrize("together", [1, 4])
def test_means_are_those_of_the_steps_and_the_same_after_a_stop(together, small_data, cpus, tmp_path):
    """Six steps an epoch, the last dispatch of several not full."""
    method, settings = EarlyLearningRegularization(), {"batch_size": 11, "steps_per_dispatch": together}
    progress = Steps()
    whole = train(method, small_data, cpus[:1], 2, progress=progress, **settings)
    steps = jax.device_get(progress.metrics)
    for record, half in zip(whole.history, (steps[: len(steps) // 2], steps[len(steps) // 2 :]), strict=True):
        examples = np.concatenate([np.atleast_1d(now["examples"]) for now in half]).astype(float)
        assert examples.sum() == 60 and np.count_nonzero(examples) == 6
        for name in ("loss", "accuracy"):
            values = np.concatenate([np.atleast_1d(now[name]) for now in half]).astype(float)
            mean = (values * examples).sum() / 60
            assert record["train"][name] == pytest.approx(mean, rel=1e-6)
    for step in (4, 10):
        with pytest.raises(TrainingStoppedError):
            train(
                *(method, small_data, cpus[:1], 2),
                **{"checkpointer": Checkpointer(tmp_path), "should_stop": stop_at(step), **settings},
            )
    resumed = train(method, small_data, cpus[:1], 2, checkpointer=Checkpointer(tmp_path), **settings)
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)


def test_long_epochs_are_saved_in_between(small_data, cpus, tmp_path, monkeypatch):
    """Every step takes a minute, by the clock of the loop."""
    now = [0.0]
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    method, kinds = EarlyLearningRegularization(), {"checkpoint_minutes": 1.5, "checkpoint_every": 100}
    whole = train(method, small_data, cpus[:1], 3)

    def wait(count):
        now[0] += 60
        if count == 7:
            raise KilledError

    with pytest.raises(KilledError):
        train(
            *(method, small_data, cpus[:1], 3),
            **{"checkpointer": Checkpointer(tmp_path), "progress": Steps(wait), **kinds},
        )
    # After steps 2, 4 and 6 of four an epoch.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    assert Checkpointer(tmp_path).newest() == "epoch 1 and 2 steps"
    resumed = train(method, small_data, cpus[:1], 3, checkpointer=Checkpointer(tmp_path), **kinds)
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)
    assert resumed.seconds == 6 * 60
