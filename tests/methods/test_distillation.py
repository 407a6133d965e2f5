"""Terms that distil two auxiliary models: their weight, their values, and their place in the train step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax import losses
from dsink_jax.allocation import class_marginal
from dsink_jax.methods import (
    METHODS,
    CrossEntropy,
    Distillation,
    DSink,
    EarlyLearningRegularization,
    LogitAdjustment,
    NaiveDistillation,
    OpenSetDSink,
    make_facts,
    numbers_of,
    static_part,
    with_numbers,
)
from dsink_jax.methods.hooks import TwoStages, UsesMetaSet
from dsink_jax.models import Model, several
from dsink_jax.training import (
    Auxiliaries,
    DeviceData,
    OptimizerSettings,
    StepNumbers,
    StepProgram,
    create_state,
    make_train_step,
)
from method_references import (
    CLASSES,
    EXAMPLES,
    FACTS,
    IMBALANCE_ROBUST,
    LABELS,
    LOGITS,
    NOISE_ROBUST,
    PRIOR,
    STANDARDIZATION,
    allocation,
    assert_equal_trees,
    build,
    divergence,
    full_batch,
    metrics_of,
    rows,
    softmax,
    some_state,
    tiny_data,
    tiny_training,
    with_auxiliaries,
)

# The weight.


def alpha_by_hand(alpha, warmup, ramp, epoch):
    if epoch < warmup:
        return 0.0
    if epoch >= warmup + ramp:
        return alpha
    return alpha * (epoch - warmup) / ramp


@pytest.mark.parametrize(
    ("warmup", "ramp", "epoch", "expected"),
    [
        *((5, 10, 0, 0), (5, 10, 4.999, 0), (5, 10, 5, 0), (5, 10, 6, 0.3), (5, 10, 7.5, 0.75)),
        *((5, 10, 10, 1.5), (5, 10, 14.9, 2.97), (5, 10, 15, 3), (5, 10, 100, 3)),
        *((0, 0, 0, 3), (0, 0, 9, 3), (5, 0, 0, 0), (5, 0, 4.99, 0), (5, 0, 5, 3), (5, 0, 6, 3)),
    ],
)
def test_warmup_and_ramp(warmup, ramp, epoch, expected):
    term = Distillation(3.0, warmup, ramp)
    assert alpha_by_hand(3.0, warmup, ramp, epoch) == pytest.approx(expected)
    assert float(term.alpha_at(jnp.float32(epoch))) == pytest.approx(expected, abs=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def combined(static, numbers, base, distillation, epoch):
    return with_numbers(static, numbers).combine(base, distillation, epoch)


@given(
    alpha=st.floats(0, 20),
    warmup=st.integers(0, 20),
    ramp=st.integers(0, 20),
    quarters=st.integers(0, 200),
    loss_scale=st.sampled_from(["sum", "bounded"]),
)
def test_weighted_sum_by_hand(alpha, warmup, ramp, quarters, loss_scale):
    """All numbers as arguments of a program, as the train step has them."""
    base, distillation = np.float32([1.0, -2.0, 0.5]), np.float32([0.25, 3.0, 0.0])
    term = Distillation(alpha, warmup, ramp, loss_scale)
    now = alpha_by_hand(alpha, warmup, ramp, quarters / 4)
    expected = base + now * distillation
    if loss_scale == "bounded":
        expected = expected / max(1, (1 + now) / 2)
    total = combined(static_part(term), numbers_of(term), base, distillation, jnp.float32(quarters / 4))
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 3.0, 1000.0])
def test_bounded_weights(alpha):
    """Those of the sum up to alpha 1; beyond, they sum to 2 in the proportion alpha."""
    one, zero = jnp.ones(1), jnp.zeros(1)
    of_base, of_distillation = (
        float(Distillation(alpha).combine(*pair, jnp.float32(0))[0]) for pair in ((one, zero), (zero, one))
    )
    if alpha <= 1:
        assert (of_base, of_distillation) == (1, pytest.approx(alpha))
    else:
        assert of_base + of_distillation == pytest.approx(2, rel=1e-5)
        assert of_distillation / of_base == pytest.approx(alpha, rel=1e-5)


# The values.


def test_dsink_is_the_divergence_to_q():
    values, metrics, _ = DSink().values(jnp.asarray(LOGITS), full_batch(), None)
    np.testing.assert_allclose(values, divergence(allocation(LOGITS), LOGITS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        values, losses.dsink_loss(LOGITS, NOISE_ROBUST, IMBALANCE_ROBUST), rtol=1e-5, atol=1e-6
    )
    assert {name: metric.shape for name, metric in metrics.items()} == {
        "marginal_error": (),
        "sinkhorn_iterations": (),
        "sinkhorn_converged": (),
    }
    assert metrics["sinkhorn_converged"] == 1 and metrics["marginal_error"] < 1e-5


def test_gradient_of_dsink_by_hand():
    def total(logits):
        return DSink().values(logits, full_batch(), None)[0].sum()

    expected = softmax(LOGITS) - allocation(LOGITS)  # Q being constant
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(LOGITS)), expected, rtol=1e-3, atol=1e-4)


def test_padding_has_no_part_in_dsink():
    where = np.array([True] * 5 + [False] * 3)
    values, *_ = DSink().values(jnp.asarray(LOGITS), full_batch(where), None)
    labels = allocation(LOGITS[where], NOISE_ROBUST[where], IMBALANCE_ROBUST[where])
    np.testing.assert_allclose(values[where], divergence(labels, LOGITS[where]), rtol=1e-4, atol=1e-5)
    assert not values[~where].any()
    assert not np.allclose(labels, allocation(LOGITS)[where], rtol=0.01)


def test_solver_limits_are_passed_on():
    strict, loose = (
        DSink(threshold=threshold, max_iterations=limit).values(jnp.asarray(LOGITS), full_batch(), None)[1]
        for threshold, limit in ((1e-6, 500), (1e-12, 10))
    )
    assert strict["sinkhorn_converged"] == 1
    assert (loose["sinkhorn_converged"], loose["sinkhorn_iterations"]) == (0, 10)


def test_open_set_dsink_weighs_both_losses_by_what_is_known():
    values, metrics, weights = OpenSetDSink(known_share=0.6).values(jnp.asarray(LOGITS), full_batch(), None)
    expected = losses.open_set_dsink_loss(LOGITS, NOISE_ROBUST, IMBALANCE_ROBUST, known_share=0.6)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights, metrics["known"])
    assert weights.mean() == pytest.approx(0.6, abs=1e-5) and np.ptp(weights) > 0.1


def test_open_set_dsink_is_dsink_where_all_are_known():
    values, _, weights = OpenSetDSink().values(jnp.asarray(LOGITS), full_batch(), None)
    np.testing.assert_allclose(
        values, DSink().values(jnp.asarray(LOGITS), full_batch(), None).values, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(weights, 1)


def naive_by_hand(noise_weight, logits):
    term = noise_weight * divergence(softmax(NOISE_ROBUST), logits)
    return term + (1 - noise_weight) * divergence(softmax(IMBALANCE_ROBUST), logits)


@pytest.mark.parametrize("noise_weight", [0.0, 0.3, 0.5, 1.0])
def test_naive_distillation_by_hand(noise_weight):
    values, metrics, _ = NaiveDistillation(noise_weight=noise_weight).values(LOGITS, full_batch(), None)
    np.testing.assert_allclose(values, naive_by_hand(noise_weight, LOGITS), rtol=1e-4, atol=1e-5)
    assert metrics == {}


def test_the_weight_of_a_teacher_is_static():
    """So that one without weight is left out of the program, whatever it predicts."""
    one, other = NaiveDistillation(2.0, noise_weight=0.0), NaiveDistillation(3.0, noise_weight=0.5)
    assert numbers_of(one).keys() == numbers_of(other).keys() == {"alpha", "warmup_epochs", "ramp_epochs"}
    assert static_part(one) != static_part(other)
    assert static_part(one) == static_part(dataclasses.replace(one, alpha=7.0))
    bad = full_batch()._replace(noise_robust_logits=jnp.full((EXAMPLES, CLASSES), jnp.nan))
    values = jax.jit(lambda logits: one.values(logits, bad, None)[0])(LOGITS)
    np.testing.assert_allclose(values, naive_by_hand(0.0, LOGITS), rtol=1e-4, atol=1e-5)


# The step.

SMALL_STEPS = OptimizerSettings(learning_rate=1e-3, schedule="constant", momentum=0.0, weight_decay=0.0)


def linear_model(networks, scale):
    """Logits are pixels times a matrix; no more than cosines are, if the scale says so."""

    def init(key, inputs):
        shape = (inputs[0].size, CLASSES)
        return {"params": {"classifier": {"kernel": scale * jax.random.normal(key, shape)}}}

    def features(variables, inputs):
        return inputs.reshape(len(inputs), -1)

    def apply(variables, inputs, *, train=False, key=None, axis_name=None):
        return features(variables, inputs) @ variables["params"]["classifier"]["kernel"], {}

    return several(Model(init, apply, features), networks)


def one_step(method, term, model):
    """State before and after a step in the middle of a training, and the metrics."""
    batch = full_batch()
    inputs = np.asarray(jnp.concatenate([batch.inputs, batch.meta_inputs]))
    more = inputs.shape[0] - EXAMPLES
    data = DeviceData(
        inputs,
        np.concatenate([LABELS, batch.meta_labels]),
        np.concatenate([NOISE_ROBUST, np.zeros((more, CLASSES), np.float32)]),
        np.concatenate([IMBALANCE_ROBUST, np.zeros((more, CLASSES), np.float32)]),
    )
    if isinstance(method, UsesMetaSet):
        data = data._replace(meta_index=np.arange(EXAMPLES, len(inputs)), meta_labels=batch.meta_labels)
    program = StepProgram(
        model,
        static_part(method),
        static_part(term),
        SMALL_STEPS.kind("classifier" if isinstance(method, TwoStages) else None),
        is_second_stage=isinstance(method, TwoStages),
    )
    numbers = StepNumbers(
        numbers_of(method), numbers_of(term), SMALL_STEPS.numbers(100), FACTS, np.float32(4)
    )
    state = create_state(program, numbers, jax.random.key(0), inputs[:1], len(inputs))
    state = state._replace(step=jnp.int32(20), example_state=some_state(method, len(inputs)))
    order = jnp.arange(EXAMPLES), jnp.ones(EXAMPLES, bool)
    step = make_train_step(program)  # not compiled, which would take ten times as long
    return state, *step(state, data, numbers, None, jax.random.key(7), *order)


def predictions(name, logits):
    """The logits of each network's prediction, by the papers."""
    if name == "ldam_drw":
        return 30 * logits
    return logits - np.log(PRIOR) if name == "posthoc_logit_adjustment" else logits


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_terms_join_the_loss_of_every_method(name):
    """Loss, term and accuracy of the step, each network being drawn to a Q of its own."""
    method = build(name)
    # As large as cosines, or the softmax of 30 times that is too sharp for the reference.
    model = linear_model(method.networks, 0.02 if name == "ldam_drw" else 1.0)
    state, alone, of_base = one_step(method, None, model)
    flat = np.asarray(full_batch().inputs, np.float64).reshape(EXAMPLES, -1)
    each = [predictions(name, flat @ np.asarray(k)) for k in jax.tree.leaves(state.params)]
    for term, expected in (
        (DSink(3.0), sum(divergence(allocation(one), one).mean() for one in each)),
        (NaiveDistillation(3.0, noise_weight=0.9), sum(naive_by_hand(0.9, one).mean() for one in each)),
    ):
        _, after, metrics = one_step(method, term, model)
        np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-3)
        np.testing.assert_allclose(metrics["base"], of_base["loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], (metrics["base"] + 3 * expected) / 2, rtol=1e-3)
        # Its accuracy is that of the inputs as they are, and the state the method's own.
        right = (np.mean(each, 0).argmax(-1) == LABELS).mean()
        np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)
        assert of_base.keys() < metrics.keys()
        for new, old in zip(*map(jax.tree.leaves, (after.example_state, alone.example_state)), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)
        changed = zip(*map(jax.tree.leaves, (after.params, alone.params)), strict=True)
        assert all(np.abs(new - old).max() > 1e-6 for new, old in changed)


@pytest.mark.parametrize("name", ["cross_entropy", "coteaching"])
def test_unknown_examples_count_less_in_the_base_too(name):
    method = build(name)
    model = linear_model(method.networks, 1.0)
    state, _, _ = one_step(method, None, model)
    flat = np.asarray(full_batch().inputs, np.float64).reshape(EXAMPLES, -1)
    each = [(flat @ np.asarray(kernel)).astype(np.float32) for kernel in jax.tree.leaves(state.params)]
    _, _, metrics = one_step(method, OpenSetDSink(3.0, known_share=0.7), model)
    found = [OpenSetDSink(known_share=0.7).values(one, full_batch(), None) for one in each]
    weights = np.mean([one.base_weights for one in found], 0)
    np.testing.assert_allclose(metrics["known"], 0.7, rtol=1e-4)
    np.testing.assert_allclose(metrics["distillation"], sum(one.values.mean() for one in found), rtol=1e-3)
    np.testing.assert_allclose(
        metrics["loss"], (metrics["base"] + 3 * metrics["distillation"]) / 2, rtol=1e-3
    )
    if name == "cross_entropy":
        losses_of_base = -np.log(softmax(each[0].astype(np.float64))[np.arange(EXAMPLES), LABELS])
        np.testing.assert_allclose(metrics["base"], (weights * losses_of_base).mean(), rtol=1e-3)


# Trainings.


@pytest.mark.slow
def test_the_term_sets_in_once_with_two_stages(cpus):
    """A first stage warms up; the second goes on with the full weight."""
    term, method = DSink(2.0, warmup_epochs=5, ramp_epochs=10), build("crt")
    data = with_auxiliaries(tiny_data())
    first = tiny_training(method.first_stage, cpus, 1, data, term=term)
    second = tiny_training(method, cpus, 1, data, term=term, start_from=first.variables)
    for trained, alpha in ((first, 0.0), (second, 2.0)):
        (metrics,) = metrics_of(trained)
        assert metrics["distillation"] > 0.01
        expected = (metrics["base"] + alpha * metrics["distillation"]) / max(1, (1 + alpha) / 2)
        assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert_equal_trees(second.variables["batch_stats"], first.variables["batch_stats"])
    assert_equal_trees(second.variables["params"]["Dense_0"], first.variables["params"]["Dense_0"])


@pytest.mark.parametrize("name", ["logit_adjustment", "balanced_softmax"])
def test_a_class_without_examples_is_never_predicted(name):
    facts = make_facts((50, 0, 20), 20)
    predicted = build(name).predict(jnp.asarray(rows(4, scale=20.0)), facts)
    assert np.isfinite(predicted).all()
    assert not (np.asarray(predicted).argmax(-1) == 1).any()
    marginal = class_marginal(predicted)
    assert marginal[1] == 0
    np.testing.assert_allclose(marginal.sum(), 1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("base", [LogitAdjustment(), CrossEntropy()])
def test_training_with_a_term_is_finite_without_examples_of_a_class(base, cpus):
    """By f_L the class has no mass, so Q gives it none."""
    data = tiny_data()
    labels = np.where(data.labels == 2, 3, data.labels).astype(np.int32)
    data = data._replace(labels=labels)
    facts = make_facts(np.bincount(labels, minlength=4), 2)
    auxiliaries = Auxiliaries(
        tiny_training(EarlyLearningRegularization(), cpus, 2, data, facts),
        tiny_training(LogitAdjustment(), cpus, 2, data, facts),
    )
    target = tiny_training(base, cpus, 2, data, facts, term=DSink(), auxiliaries=auxiliaries)
    assert all(np.isfinite(list(metrics.values())).all() for metrics in metrics_of(target))
    assert metrics_of(target)[-1]["sinkhorn_converged"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(target.variables))
    logits = target.logits(data.inputs, STANDARDIZATION, cpus[:1])
    if isinstance(base, LogitAdjustment):
        assert not (logits.argmax(-1) == 2).any()
    assert np.isfinite(logits).all()
