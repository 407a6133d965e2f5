"""Steps of methods with state, meta sets, two networks, mixed inputs: a tiny network on many devices."""

import jax
import numpy as np
import pytest

from dsink_jax.methods import (
    CoTeaching,
    CrossEntropy,
    DivideMix,
    DSink,
    EarlyLearningRegularization,
    Mixup,
    TransportReweighting,
    Weighting,
)
from dsink_jax.training import build_optimizer, create_state, sharded_train_step
from tiny_training import SGD, assert_equal_trees, assert_same, some_steps, tiny_model, with_auxiliaries

PRIOR = (0.4, 0.3, 0.2, 0.1)
COUNTS = (24, 18, 12, 6)

METHODS = {
    "elr": EarlyLearningRegularization(),
    "mixup": Mixup(),
    "coteaching": CoTeaching(20, 0.3),
    "ot_reweighting": TransportReweighting(
        COUNTS, 20, 2, "observed", meta_set="whole", trains="network", weight_rate=0.5
    ),
    "dividemix": DivideMix(PRIOR, 20, lambda_u=25.0),
    "dsink_on_dividemix": DSink(DivideMix(PRIOR, 20), Weighting(3.0)),
    "dsink_with_queue": DSink(CrossEntropy(), Weighting(3.0), queue=20),
    "dsink_with_queue_on_two_networks": DSink(CoTeaching(20, 0.3), Weighting(3.0), queue=24),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_train_like_one(name, small_data, plain, cpus):
    data = with_auxiliaries(small_data)
    one = some_steps(METHODS[name], data, plain, cpus[:1])
    eight = some_steps(METHODS[name], data, plain, cpus)
    assert_same(one, eight, 1e-5)
    # The comparison means something only if training moved what it trains by more than the tolerance.
    start = tiny_model(METHODS[name]).init(jax.random.key(0), data.images[:1].astype(np.float32))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start["params"], one[0].params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    assert all(np.isfinite(list(metrics.values())).all() for metrics in one[1])


@pytest.mark.slow
def test_shard_map_twin_gives_the_same_numbers(small_data, plain, cpus):
    data = with_auxiliaries(small_data)
    pmapped = some_steps(METHODS["coteaching"], data, plain, cpus[:4])
    sharded = some_steps(METHODS["coteaching"], data, plain, cpus[:4], mapping=sharded_train_step)
    assert_same(pmapped, sharded, 1e-5)


@pytest.mark.parametrize("name", ["elr", "dividemix"])
def test_state_is_kept_in_its_type_and_close_to_the_exact_one(name, small_data, plain, cpus):
    half, single = (
        some_steps(METHODS[name], small_data, plain, cpus[:1], state_dtype=dtype)
        for dtype in ("float16", "float32")
    )
    leaves = jax.tree.leaves(half[0].example_state)
    assert leaves and all(leaf.dtype == np.float16 for leaf in leaves)
    for rough, exact in zip(leaves, jax.tree.leaves(single[0].example_state), strict=True):
        assert exact.dtype == np.float32 and rough.shape == exact.shape
        np.testing.assert_allclose(rough, exact, atol=5e-3)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half[0].params))


def test_second_stage_leaves_padding_meta_set_and_statistics_alone(small_data, plain, cpus):
    """Four steps are an epoch of the 52 examples that the meta set leaves; the last is padded."""
    rng = np.random.default_rng(0)
    method = METHODS["ot_reweighting"]
    state, _ = some_steps(method, small_data, plain, cpus[:1], steps=4)
    start = {name: rng.uniform(size=60).astype(np.float32) for name in ("momentum", "shift")}
    for name, value in start.items():
        kept = state.example_state[name] == value
        assert kept.sum() == 8
        assert (np.bincount(small_data.labels[kept], minlength=4) == 2).all()
    initial = tiny_model(method).init(jax.random.key(0), small_data.images[:1].astype(np.float32))
    assert_equal_trees(state.batch_stats, jax.device_get(initial["batch_stats"]))


def test_a_model_of_too_few_networks_is_refused(small_data):
    model = tiny_model(CrossEntropy())
    optimizer = build_optimizer(SGD, 10)
    with pytest.raises(
        ValueError, match=r"trains 2 networks and the model is 1. Give it several\(model, 2\)"
    ):
        create_state(model, METHODS["dividemix"], optimizer, jax.random.key(0), small_data.images[:1], 60, 4)
