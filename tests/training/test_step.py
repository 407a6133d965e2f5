import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsink_jax.data import Augmentation, training_order
from dsink_jax.losses import dsink_loss
from dsink_jax.methods import (
    CrossEntropy,
    DSink,
    EarlyLearningRegularization,
    LogitAdjustment,
    NaiveDistillation,
    Weighting,
)
from dsink_jax.models import build_model
from dsink_jax.training import (
    AXIS,
    Auxiliary,
    AuxiliaryPair,
    Preprocessing,
    create_state,
    make_predict_step,
    make_train_step,
    parallel_predict_step,
    parallel_train_step,
    repeat_step,
    replicate,
    sharded_train_step,
)
from tiny_training import assert_same

PRIOR = (0.4, 0.3, 0.2, 0.1)
STEPS = 5
BATCH = 16  # 60 examples: the fourth batch of an epoch has 12 and is padded

METHODS = {
    "cross_entropy": CrossEntropy(),
    "elr": EarlyLearningRegularization(),
    "dsink": DSink(LogitAdjustment(PRIOR), Weighting(3.0, 0.25, 0.5)),
    "dsink_on_elr": DSink(EarlyLearningRegularization(), Weighting(1.0)),
    "naive": NaiveDistillation(CrossEntropy(), Weighting(1.0)),
}


def _run(method, data, preprocessing, devices, mapping=parallel_train_step, repeat=1):
    """State and metrics after STEPS steps over the given devices."""
    model = build_model("small_cnn", 4, axis_name=AXIS)
    # Without momentum: rounding differences are not amplified beyond what the step itself does.
    optimizer = optax.sgd(0.05)
    state = create_state(model, method, optimizer, jax.random.key(0), data.images[:1], 60, 4)
    auxiliaries, variables = None, None
    if method.needs_auxiliaries:
        auxiliaries = AuxiliaryPair(
            Auxiliary(model, CrossEntropy()), Auxiliary(model, LogitAdjustment(PRIOR))
        )
        variables = AuxiliaryPair(*(model.init(jax.random.key(i), jnp.zeros((1, 8, 8, 1))) for i in (1, 2)))
    step = make_train_step(
        model, method, optimizer, preprocessing, 4, auxiliaries=auxiliaries, axis_name=AXIS
    )
    step = mapping(repeat_step(step) if repeat > 1 else step, devices)
    orders = [training_order(60, BATCH, len(devices), seed=3, epoch=epoch) for epoch in (0, 1)]
    index = np.concatenate([order.index for order in orders])[:STEPS]
    where = np.concatenate([order.where for order in orders])[:STEPS]
    state, data, variables, key = replicate((state, data, variables, jax.random.key(7)), devices)
    metrics = []
    if repeat > 1:
        state, stacked = step(state, data, variables, key, index.swapaxes(0, 1), where.swapaxes(0, 1))
        stacked = jax.device_get(stacked)
        metrics = [{name: value[i] for name, value in stacked.items()} for i in range(STEPS)]
    else:
        for i in range(STEPS):
            state, values = step(state, data, variables, key, index[i], where[i])
            metrics.append(jax.device_get(values))
    return jax.device_get(state), metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_train_like_one(name, small_data, plain, cpus):
    """Parameters, batch statistics, per-example state and metrics after five steps, a padded one included."""
    one = _run(METHODS[name], small_data, plain, cpus[:1])
    eight = _run(METHODS[name], small_data, plain, cpus)
    assert_same(one, eight, 1e-5)
    # The comparison means something only if training moved the parameters by more than the tolerance.
    start = jax.tree.leaves(build_model("small_cnn", 4).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
    assert (
        max(np.abs(a - b).max() for a, b in zip(start, jax.tree.leaves(one[0].variables), strict=True)) > 1e-2
    )


def test_augmented_training_does_not_depend_on_the_number_of_devices(small_data, cpus):
    augmented = Preprocessing(Augmentation(2, True), (0.3,), (0.25,))
    one = _run(METHODS["cross_entropy"], small_data, augmented, cpus[:1])
    assert_same(one, _run(METHODS["cross_entropy"], small_data, augmented, cpus[:4]), 1e-5)


@pytest.mark.slow
def test_shard_map_twin_gives_the_same_numbers(small_data, plain, cpus):
    pmapped = _run(METHODS["dsink"], small_data, plain, cpus[:4])
    sharded = _run(METHODS["dsink"], small_data, plain, cpus[:4], sharded_train_step)
    assert_same(pmapped, sharded, 1e-6)


@pytest.mark.slow
def test_several_steps_in_one_dispatch_give_the_same_numbers(small_data, plain, cpus):
    single = _run(METHODS["dsink"], small_data, plain, cpus[:2])
    together = _run(METHODS["dsink"], small_data, plain, cpus[:2], repeat=STEPS)
    assert_same(single, together, 1e-5)


def test_step_equals_a_plain_training_step_written_out(small_data, plain, cpus):
    """One D-SINK step against jax.grad of the objective as the paper writes it, no padding, no mapping."""
    method = DSink(CrossEntropy(), Weighting(2.0, loss_scale="sum"))
    model = build_model("small_cnn", 4)
    optimizer = optax.sgd(0.05)
    state = create_state(model, method, optimizer, jax.random.key(0), small_data.images[:1], 60, 4)
    weights = AuxiliaryPair(*(model.init(jax.random.key(i), jnp.zeros((1, 8, 8, 1))) for i in (1, 2)))
    pair = AuxiliaryPair(Auxiliary(model, CrossEntropy()), Auxiliary(model, CrossEntropy()))
    step = make_train_step(model, method, optimizer, plain, 4, auxiliaries=pair)
    index = np.arange(16)
    stepped, metrics = jax.jit(step)(state, small_data, weights, jax.random.key(7), index, np.ones(16, bool))

    images = (small_data.images[index].astype(np.float32) / 255 - 0.3) / 0.25
    teachers = [model.apply(w, images, False)[0] for w in weights]

    def objective(params):
        logits, _ = model.apply({"params": params, "batch_stats": state.batch_stats}, images, True)
        base = optax.losses.softmax_cross_entropy_with_integer_labels(logits, small_data.labels[index])
        return base.mean() + 2.0 * dsink_loss(logits, *teachers).mean()

    value, gradient = jax.value_and_grad(objective)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, gradient)
    for ours, theirs in zip(jax.tree.leaves(stepped.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


def test_padding_changes_nothing_but_batch_statistics_of_the_padding(small_data, plain):
    """Per-example state: valid rows are written, padded ones are not, though both are in the batch."""
    method = EarlyLearningRegularization()
    model = build_model("small_cnn", 4)
    optimizer = optax.sgd(0.05)
    state = create_state(model, method, optimizer, jax.random.key(0), small_data.images[:1], 60, 4)
    step = jax.jit(make_train_step(model, method, optimizer, plain, 4))
    index, where = np.array([5, 6, 7, 8]), np.array([True, True, False, False])
    stepped, metrics = step(state, small_data, None, jax.random.key(7), index, where)
    rows = np.flatnonzero(np.abs(stepped.example_state).sum(1))
    assert rows.tolist() == [5, 6]
    assert metrics["examples"] == 2


def test_cached_auxiliary_logits_equal_online_ones_without_augmentation(small_data, plain, cpus):
    method = METHODS["dsink"]
    model = build_model("small_cnn", 4, axis_name=AXIS)
    weights = AuxiliaryPair(*(model.init(jax.random.key(i), jnp.zeros((1, 8, 8, 1))) for i in (1, 2)))
    predict = parallel_predict_step(make_predict_step(model, CrossEntropy(), plain), cpus[:2])
    index = np.arange(60).reshape(2, 30)
    cached = [
        np.asarray(predict(*replicate((w, small_data.images), cpus[:2]), index)).reshape(60, 4)
        for w in weights
    ]
    optimizer = optax.sgd(0.05)
    results = []
    for auxiliaries, variables, data in (
        (AuxiliaryPair(*[Auxiliary(model, CrossEntropy())] * 2), weights, small_data),
        (None, None, small_data._replace(noise_robust_logits=cached[0], imbalance_robust_logits=cached[1])),
    ):
        state = create_state(model, method, optimizer, jax.random.key(0), small_data.images[:1], 60, 4)
        step = parallel_train_step(
            make_train_step(model, method, optimizer, plain, 4, auxiliaries=auxiliaries, axis_name=AXIS),
            cpus[:2],
        )
        order = training_order(60, BATCH, 2, seed=0, epoch=0)
        arguments = replicate((state, data, variables, jax.random.key(0)), cpus[:2])
        results.append(jax.device_get(step(*arguments, order.index[0], order.where[0])[0].params))
    for online, looked_up in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(online, looked_up, atol=1e-6)
