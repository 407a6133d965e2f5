"""One step: the same on one device and many, however it is mapped, and as it is written in the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsink_jax.data import Compose, RandomCrop, RandomFlip
from dsink_jax.losses import dsink_loss
from dsink_jax.methods import (
    CoTeaching,
    CrossEntropy,
    DivideMix,
    DSink,
    EarlyLearningRegularization,
    LogitAdjustment,
    Mixup,
    NaiveDistillation,
    Tabasco,
    TransportReweighting,
)
from dsink_jax.models import build_model
from dsink_jax.training import (
    Auxiliaries,
    TrainedModel,
    create_state,
    make_train_step,
    sharded_train_step,
)
from tiny_training import (
    STANDARDIZATION,
    assert_close_trees,
    assert_equal_trees,
    assert_same,
    facts_of,
    program_and_numbers,
    some_steps,
    some_variables,
    tiny_model,
    with_auxiliaries,
)

REWEIGHTING = TransportReweighting(2, "observed", meta_set="whole", trains="network", weight_rate=0.5)
METHODS = {
    "cross_entropy": (CrossEntropy(), None),
    "elr": (EarlyLearningRegularization(), None),
    "mixup": (Mixup(), None),
    "coteaching": (CoTeaching(0.3), None),
    "ot_reweighting": (REWEIGHTING, None),
    "dividemix": (DivideMix(lambda_u=25.0), None),
    "dsink on logit adjustment, which sets in": (LogitAdjustment(), DSink(3.0, 2.25, 0.5)),
    "dsink on elr": (EarlyLearningRegularization(), DSink(1.0)),
    "dsink on dividemix": (DivideMix(), DSink(3.0)),
    "dsink on tabasco": (Tabasco(), DSink(3.0)),
    "dsink on coteaching": (CoTeaching(0.3), DSink(3.0)),
    "naive on cross_entropy": (CrossEntropy(), NaiveDistillation(1.0)),
}
DRAWING = Compose((RandomCrop(2), RandomFlip()))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_train_like_one(name, small_data, cpus):
    """Parameters, statistics, per-example state and metrics, with augmentation and a padded step."""
    method, term = METHODS[name]
    data = with_auxiliaries(small_data)
    one, eight = (some_steps(method, data, on, term=term, preprocess=DRAWING) for on in (cpus[:1], cpus))
    assert_same(one, eight, 1e-5)
    # The comparison means something only if training moved what it trains by more than the tolerance.
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), some_variables(method, data.inputs, 0)["params"], one[0].params
    )
    assert max(jax.tree.leaves(moved)) > 1e-3
    assert all(np.isfinite(list(metrics.values())).all() for metrics in one[1])


def auxiliaries_of(model, data):
    """Two models that are run on the inputs of the batch, by methods that predict differently."""
    return Auxiliaries(
        *(
            TrainedModel(
                model, method, facts_of(data), model.init(jax.random.key(i), jnp.zeros((1, 8, 8, 1)))
            )
            for i, method in ((1, CrossEntropy()), (2, LogitAdjustment()))
        )
    )


@pytest.mark.slow
def test_mappings_of_a_step_of_convolutions_give_the_same_numbers(small_data, cpus):
    """`pmap` on eight devices and one; `shard_map`; five steps in one dispatch. Auxiliaries are run."""
    model = build_model("small_cnn", 4)
    parts = {"term": DSink(3.0), "model": model, "auxiliaries": auxiliaries_of(model, small_data)}
    one = some_steps(CrossEntropy(), small_data, cpus[:1], **parts)
    assert_same(one, some_steps(CrossEntropy(), small_data, cpus, **parts), 1e-5)
    sharded = some_steps(CrossEntropy(), small_data, cpus[:2], mapping=sharded_train_step, **parts)
    assert_same(one, sharded, 1e-5)
    assert_same(one, some_steps(CrossEntropy(), small_data, cpus[:2], together=True, **parts), 1e-5)


@pytest.mark.slow
def test_shard_map_is_pmap(small_data, cpus):
    pmapped, sharded = (
        some_steps(CoTeaching(0.3), small_data, cpus[:4], **how)
        for how in ({}, {"mapping": sharded_train_step})
    )
    assert_same(pmapped, sharded, 1e-6)


def first_state(program, numbers, data):
    return create_state(program, numbers, jax.random.key(0), data.inputs[:1], len(data.labels))


@pytest.mark.slow
def test_step_equals_a_plain_training_step_written_out(small_data):
    """One D-SINK step against jax.grad of the objective as the paper writes it, no padding, no mapping."""
    model = build_model("small_cnn", 4)
    pair = Auxiliaries(*(one._replace(method=CrossEntropy()) for one in auxiliaries_of(model, small_data)))
    program, numbers = program_and_numbers(
        *(CrossEntropy(), small_data), term=DSink(2.0, loss_scale="sum"), model=model, auxiliaries=pair
    )
    state = first_state(program, numbers, small_data)
    index = np.arange(16)
    stepped, metrics = jax.jit(make_train_step(program))(
        *(state, small_data, numbers, tuple(one.variables for one in pair), jax.random.key(7)),
        *(index, np.ones(16, bool)),
    )
    images = (small_data.inputs[index].astype(np.float32) / 255 - 0.3) / 0.25
    teachers = [model.apply(one.variables, images)[0] for one in pair]

    def objective(params):
        logits, _ = model.apply({"params": params, **state.collections}, images, train=True)
        base = optax.losses.softmax_cross_entropy_with_integer_labels(logits, small_data.labels[index])
        return base.mean() + 2.0 * dsink_loss(logits, *teachers).mean()

    value, gradient = jax.value_and_grad(objective)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, gradient)
    assert_close_trees(stepped.params, expected, 1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


def test_padding_changes_nothing_but_batch_statistics_of_the_padding(small_data):
    """Per-example state: valid rows are written, padded ones are not, though both are in the batch."""
    program, numbers = program_and_numbers(EarlyLearningRegularization(), small_data)
    index, where = np.array([5, 6, 7, 8]), np.array([True, True, False, False])
    stepped, metrics = jax.jit(make_train_step(program))(
        first_state(program, numbers, small_data),
        *(small_data, numbers, None, jax.random.key(7), index, where),
    )
    assert np.flatnonzero(np.abs(stepped.example_state).sum(1)).tolist() == [5, 6]
    assert metrics["examples"] == 2


def test_logits_that_are_looked_up_equal_auxiliaries_that_are_run_without_augmentation(small_data, cpus):
    pair = auxiliaries_of(tiny_model(CrossEntropy()), small_data)
    first, second = (one.logits(small_data.inputs, STANDARDIZATION, cpus[:2]) for one in pair)
    data = small_data._replace(noise_robust_logits=first, imbalance_robust_logits=second)
    run = some_steps(CrossEntropy(), small_data, cpus[:2], term=DSink(3.0), auxiliaries=pair)
    assert_same(run, some_steps(CrossEntropy(), data, cpus[:2], term=DSink(3.0)), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elr", "dividemix"])
def test_state_is_kept_in_its_type_and_close_to_the_exact_one(name, small_data, cpus):
    half, single = (
        some_steps(METHODS[name][0], small_data, cpus[:1], state_dtype=dtype)
        for dtype in ("float16", "float32")
    )
    leaves = jax.tree.leaves(half[0].example_state)
    assert leaves and all(leaf.dtype == np.float16 for leaf in leaves)
    for rough, exact in zip(leaves, jax.tree.leaves(single[0].example_state), strict=True):
        assert exact.dtype == np.float32 and rough.shape == exact.shape
        np.testing.assert_allclose(rough, exact, atol=5e-3)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half[0].params))


def test_second_stage_leaves_padding_meta_set_and_statistics_alone(small_data, cpus):
    """Four steps are an epoch of the 52 examples that the meta set leaves; the last is padded."""
    rng = np.random.default_rng(0)
    state, _ = some_steps(REWEIGHTING, small_data, cpus[:1], steps=4)
    start = {name: rng.uniform(size=60).astype(np.float32) for name in ("momentum", "shift")}
    for name, value in start.items():
        kept = state.example_state[name] == value
        assert kept.sum() == 8
        assert (np.bincount(small_data.labels[kept], minlength=4) == 2).all()
    initial = some_variables(REWEIGHTING, small_data.inputs, 0)
    assert_equal_trees(state.collections["batch_stats"], initial["batch_stats"])


def test_a_model_of_too_few_networks_is_refused(small_data):
    program, numbers = program_and_numbers(DivideMix(), small_data, model=tiny_model(CrossEntropy()))
    with pytest.raises(
        ValueError, match=r"trains 2 networks and the model is 1. Give it several\(model, 2\)"
    ):
        first_state(program, numbers, small_data)
