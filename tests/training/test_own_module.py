"""A person's own module with dropout and batch normalisation, inputs [M, T, D], AdamW, an average."""

import jax
import numpy as np
import pytest

from dsink_jax.methods import CrossEntropy
from dsink_jax.models import from_linen
from dsink_jax.training import Checkpointer, OptimizerSettings, TrainingStoppedError
from own_networks import Linen
from tiny_training import assert_close_trees, assert_equal_trees, sequences, stop_at, streamed, train


def jitter(key, batch):
    return batch + 0.1 * jax.random.normal(key, batch.shape)


OPTIONS = {
    **{"model": from_linen(Linen(4)), "standardization": None, "preprocess": jitter},
    **{"optimizer": OptimizerSettings("adamw", 0.01), "average_decay": 0.9},
}


def run(devices, data=None, **options):
    return train(CrossEntropy(), sequences() if data is None else data, devices, 3, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def one(cpus):
    return run(cpus[:1])


def without_shift(variables):
    """A bias before batch normalisation has no gradient but rounding, which Adam makes as large as any."""
    params, statistics = variables["params"], variables["batch_stats"]["BatchNorm_0"]
    return params | {"Dense_0": params["Dense_0"]["kernel"]}, statistics["var"]


@pytest.mark.slow
def test_eight_devices_train_like_one(one, cpus):
    eight = run(cpus)
    for ours, theirs in zip(one.history, eight.history, strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], abs=1e-5)
    assert_close_trees(*map(without_shift, (one.variables, eight.variables)), 1e-5)


def test_stopped_and_streamed_it_is_bit_identical(one, cpus, tmp_path):
    with pytest.raises(TrainingStoppedError):
        run(cpus[:1], checkpointer=Checkpointer(tmp_path), should_stop=stop_at(6))
    for other in (
        run(cpus[:1], checkpointer=Checkpointer(tmp_path)),
        run(cpus[:1], streamed(sequences())),
    ):
        assert other.history == one.history
        assert_equal_trees(other.variables, one.variables)


@pytest.mark.parametrize("shape", ["vectors", "sequences"])
def test_draws_of_a_preprocessing_of_ones_own_do_not_depend_on_devices(shape, cpus):
    """Without dropout; the same draws, and draws there are."""
    data = sequences()
    if shape == "vectors":
        data = data._replace(inputs=data.inputs.reshape(60, -1))
    options = {"model": from_linen(Linen(4, 0.0)), "optimizer": OptimizerSettings("sgd", momentum=0.0)}
    on_one, on_four = (run(cpus[:count], data, steps_per_dispatch=1, **options) for count in (1, 4))
    assert_close_trees(on_one.variables, on_four.variables, 1e-5)
    without = run(cpus[:1], data, steps_per_dispatch=1, preprocess=None, **options)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), without.variables, on_one.variables)
    assert max(jax.tree.leaves(moved)) > 1e-3
