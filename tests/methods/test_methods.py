import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax import losses
from dsink_jax.errors import InputError
from dsink_jax.methods import (
    METHODS,
    CrossEntropy,
    DSink,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    MethodOptions,
    NaiveDistillation,
    TrainingFacts,
    Weighting,
    build_method,
    check_method_name,
    class_prior,
)
from method_references import (
    BASES,
    CLASSES,
    EXAMPLES,
    FACTS,
    IMBALANCE_ROBUST,
    LABELS,
    LOGITS,
    NOISE_ROBUST,
    base_values,
    batch,
    cross_entropy,
    divergence,
    dsink,
    dsink_values,
    elr,
    evaluate,
    loss_of,
    rows,
    softmax,
    surrogate_labels,
)

# By name.


def test_names():
    assert list(METHODS) == ["cross_entropy", "logit_adjustment", "gce", "elr"]
    robust_to = {name: entry.robust_to for name, entry in METHODS.items()}
    assert robust_to == {
        "cross_entropy": "nothing",
        "logit_adjustment": "imbalance",
        "gce": "noise",
        "elr": "noise",
    }


def test_built_from_the_options():
    options = MethodOptions(prior="clean", tau=0.5, gce_q=0.3, elr_weight=7.0, elr_momentum=0.9)
    built = {name: build_method(name, FACTS, options) for name in METHODS}
    assert built == {
        "cross_entropy": CrossEntropy(),
        "logit_adjustment": LogitAdjustment((0.7, 0.2, 0.1), 0.5),
        "gce": GeneralizedCrossEntropy(0.3),
        "elr": EarlyLearningRegularization(7.0, 0.9),
    }


def test_defaults_are_the_published_ones():
    assert build_method("logit_adjustment", FACTS) == LogitAdjustment((0.5, 0.3, 0.2), tau=1.0)
    assert build_method("gce", FACTS) == GeneralizedCrossEntropy(q=0.7)
    assert build_method("elr", FACTS) == EarlyLearningRegularization(weight=3.0, momentum=0.7)


def distilled(base, **options):
    weighting = Weighting(2.0, **options)
    return [DSink(base, weighting), NaiveDistillation(base, weighting)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_hashable_and_predicts_logits(name):
    base = build_method(name, FACTS)
    twin = build_method(name, FACTS)
    for method, same in zip([base, *distilled(base)], [twin, *distilled(twin)], strict=True):
        assert method == same
        assert hash(method) == hash(same)
        # As a static argument: traced once for equal methods.
        traces = []

        @functools.partial(jax.jit, static_argnums=0)
        def predict(method, logits, traces=traces):
            traces.append(method)
            return method.predict(logits)

        for one in (method, same):
            result = predict(one, jnp.asarray(LOGITS))
            np.testing.assert_array_equal(result, LOGITS)
        assert traces == [method]
    assert len({base, *distilled(base)}) == 3


@pytest.mark.parametrize("name", METHODS)
def test_only_distillation_needs_auxiliaries(name):
    base = build_method(name, FACTS)
    assert not base.needs_auxiliaries
    assert all(method.needs_auxiliaries for method in distilled(base))
    # So a base does without their logits.
    alone = batch()._replace(noise_robust_logits=None, imbalance_robust_logits=None)
    output = base.loss(
        jnp.asarray(LOGITS), alone, base.init(EXAMPLES, CLASSES), epoch=jnp.float32(0), axis_name=None
    )
    np.testing.assert_allclose(output.values, base_values(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cross-entropy", "Unknown method 'cross-entropy'. Did you mean 'cross_entropy'\\?"),
        ("logit_adjusted", "Did you mean 'logit_adjustment'\\?"),
        ("ELR", "Unknown method 'ELR'. Known methods: cross_entropy, logit_adjustment, gce, elr."),
        ("elr+", "Did you mean 'elr'\\?"),
        ("", "Unknown method ''"),
    ],
)
def test_unknown_names_are_refused(name, words):
    for refuse in (check_method_name, lambda name: build_method(name, FACTS)):
        with pytest.raises(InputError, match=words):
            refuse(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": -0.1}, "tau must be at least 0.*got -0.1"),
        ({"tau": float("nan")}, "tau must be at least 0.*got nan"),
        ({"gce_q": 0.0}, r"gce_q must be in \(0.0, 1.0\], got 0.0"),
        ({"gce_q": 1.1}, "gce_q .*got 1.1"),
        ({"gce_q": float("nan")}, "gce_q .*got nan"),
        ({"elr_weight": -1}, "elr_weight .*got -1"),
        ({"elr_momentum": -0.1}, r"elr_momentum must be in \[0.0, 1.0\], got -0.1"),
        ({"elr_momentum": 1.5}, "elr_momentum .*got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        MethodOptions(**options)


@pytest.mark.parametrize("name", ["tau", "elr_weight"])
def test_infinite_options_are_refused(name):
    with pytest.raises(InputError):
        MethodOptions(**{name: float("inf")})


def test_options_at_the_ends_of_their_ranges():
    assert MethodOptions(tau=0, gce_q=1, elr_weight=0, elr_momentum=0).gce_q == 1
    assert MethodOptions(elr_momentum=1).elr_momentum == 1


def test_class_priors_by_hand():
    assert class_prior("observed", FACTS) == (0.5, 0.3, 0.2)
    assert class_prior("clean", FACTS) == (0.7, 0.2, 0.1)
    assert class_prior("uniform", FACTS) == (1 / 3,) * 3


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=100))
def test_class_priors_are_distributions(counts):
    facts = TrainingFacts(len(counts), tuple(counts), tuple(counts[::-1]))
    for prior in ("observed", "clean", "uniform"):
        values = class_prior(prior, facts)
        assert len(values) == len(counts)
        assert sum(values) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(class_prior("observed", facts), np.array(counts) / sum(counts), rtol=1e-12)


# One model.


@pytest.mark.parametrize("name", METHODS)
def test_base_losses_by_their_definitions(name):
    output = evaluate(BASES[name])
    assert output.values.shape == (EXAMPLES,)
    assert output.values.dtype == jnp.float32
    assert output.metrics == {}
    np.testing.assert_allclose(output.values, base_values(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_is_the_loss_function(tau):
    prior = (0.6, 0.3, 0.1)
    values = loss_of(LogitAdjustment(prior, tau)).values
    expected = losses.logit_adjusted_cross_entropy(
        jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.array(prior), tau
    )
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(values, cross_entropy(LOGITS + tau * np.log(prior)), rtol=1e-5, atol=1e-6)


def test_uniform_prior_makes_logit_adjustment_cross_entropy():
    method = build_method("logit_adjustment", FACTS, MethodOptions(prior="uniform"))
    np.testing.assert_allclose(evaluate(method).values, cross_entropy(LOGITS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "logit_adjustment", "gce"])
def test_methods_without_state(name):
    assert BASES[name].init(EXAMPLES, CLASSES) == ()
    assert evaluate(BASES[name]).example_state == ()


def test_elr_keeps_a_target_for_each_example():
    method = EarlyLearningRegularization(weight=2.0, momentum=0.9)
    state = method.init(EXAMPLES, CLASSES)
    assert (state.shape, state.dtype) == ((EXAMPLES, CLASSES), jnp.float32)
    np.testing.assert_array_equal(state, np.zeros((EXAMPLES, CLASSES)))
    expected = np.zeros((EXAMPLES, CLASSES))
    for seed in range(3):  # three visits with other predictions
        output = evaluate(method, rows(seed), state)
        expected, values = elr(rows(seed), expected, momentum=0.9, weight=2.0)
        state = output.example_state
        np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(output.values, values, rtol=1e-4, atol=1e-5)
    # Of a running mean from 0 with momentum 0.9, 1 - 0.9^3 is there after three visits.
    np.testing.assert_allclose(state.sum(-1), 1 - 0.9**3, rtol=1e-5)


def test_elr_rows_do_not_depend_on_each_other():
    method = BASES["elr"]
    state = jnp.asarray(softmax(rows(7)), jnp.float32)
    together = loss_of(method, state=state)
    changed = loss_of(method, np.concatenate([LOGITS[:4], rows(9)[4:]]), state)
    np.testing.assert_array_equal(changed.example_state[:4], together.example_state[:4])
    np.testing.assert_array_equal(changed.values[:4], together.values[:4])
    assert (np.asarray(changed.example_state[4:]) != np.asarray(together.example_state[4:])).all()


# Distillation.


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_dsink_adds_alpha_times_its_loss(alpha):
    output = dsink(alpha)
    assert output.values.shape == (EXAMPLES,)
    expected = cross_entropy(LOGITS) + alpha * dsink_values()
    np.testing.assert_allclose(output.values, expected, rtol=1e-4, atol=1e-5)


def test_dsink_is_the_loss_function():
    function = jax.jit(losses.dsink_loss)(LOGITS, NOISE_ROBUST, IMBALANCE_ROBUST)
    # Compiled apart: a few roundings of terms of size 4, 2.4e-7 each.
    np.testing.assert_allclose(dsink(1.0).metrics["distillation"], function, atol=1e-6)
    np.testing.assert_allclose(function, dsink_values(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("alpha", "divisor"), [(0.5, 1.0), (1.0, 1.0), (3.0, 2.0), (10.0, 5.5)])
def test_bounded_dsink_is_divided(alpha, divisor):
    expected = (cross_entropy(LOGITS) + alpha * dsink_values()) / divisor
    values = dsink(alpha, loss_scale="bounded").values
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_dsink_before_its_warmup_is_its_base():
    for epoch, alpha in ((0.0, 0.0), (1.9, 0.0), (4.0, 1.5), (6.0, 3.0)):
        expected = (cross_entropy(LOGITS) + alpha * dsink_values()) / max(1, (1 + alpha) / 2)
        values = dsink(3.0, epoch, loss_scale="bounded", warmup=2, ramp=4).values
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BASES)
def test_dsink_over_every_base(name):
    output = dsink(2.0, base=BASES[name])
    expected = base_values(name) + 2 * dsink_values()
    np.testing.assert_allclose(output.values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.metrics["base"], base_values(name), rtol=1e-5, atol=1e-6)
    # The state is the base's own.
    own = evaluate(BASES[name]).example_state
    assert jax.tree.structure(output.example_state) == jax.tree.structure(own)
    for one, two in zip(jax.tree.leaves(output.example_state), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    shapes = {metric: value.shape for metric, value in output.metrics.items()}
    assert shapes == {
        "base": (EXAMPLES,),
        "distillation": (EXAMPLES,),
        "marginal_error": (),
        "sinkhorn_iterations": (),
        "sinkhorn_converged": (),
    }
    assert output.metrics["sinkhorn_converged"] == 1
    assert output.metrics["marginal_error"] < 1e-5


def test_dsink_over_a_base_with_a_prediction_of_its_own():
    # A base that predicts with shifted logits: the term acts on the prediction, as it does on f_L and f_N.
    shift = np.array([0.5, 0.0, -1.0], np.float32)

    @dataclasses.dataclass(frozen=True)
    class Shifted(CrossEntropy):
        def predict(self, logits):
            return logits + shift

    method = DSink(Shifted(), Weighting(1.0, loss_scale="sum"))
    np.testing.assert_allclose(method.predict(jnp.asarray(LOGITS)), LOGITS + shift)
    expected = jax.jit(losses.dsink_loss)(LOGITS + shift, NOISE_ROBUST, IMBALANCE_ROBUST)
    output = evaluate(method)
    np.testing.assert_allclose(output.metrics["distillation"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.metrics["base"], cross_entropy(LOGITS), rtol=1e-5, atol=1e-6)


def test_padding_has_no_part_in_dsink():
    where = (True,) * 5 + (False,) * 3
    output = evaluate(DSink(CrossEntropy(), Weighting(1.0)), where=where)
    np.testing.assert_allclose(output.metrics["distillation"], dsink_values(where), rtol=1e-4, atol=1e-5)
    assert not np.allclose(dsink_values(where)[:5], dsink_values()[:5], rtol=0.01)


def test_solver_limits_are_passed_on():
    strict, loose = (
        evaluate(DSink(CrossEntropy(), Weighting(1.0), threshold=threshold, max_iterations=limit)).metrics
        for threshold, limit in ((1e-6, 500), (1e-12, 10))
    )
    assert strict["sinkhorn_converged"] == 1
    assert (loose["sinkhorn_converged"], loose["sinkhorn_iterations"]) == (0, 10)


@pytest.mark.parametrize("noise_weight", [0.0, 0.3, 0.5, 1.0])
def test_naive_distillation_by_hand(noise_weight):
    method = NaiveDistillation(CrossEntropy(), Weighting(3.0), noise_weight)
    output = evaluate(method)
    term = noise_weight * divergence(softmax(NOISE_ROBUST), LOGITS)
    term = term + (1 - noise_weight) * divergence(softmax(IMBALANCE_ROBUST), LOGITS)
    np.testing.assert_allclose(output.metrics["distillation"], term, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.values, (cross_entropy(LOGITS) + 3 * term) / 2, rtol=1e-4, atol=1e-5)
    assert set(output.metrics) == {"base", "distillation"}


@pytest.mark.parametrize("name", ["cross_entropy", "elr"])
def test_gradient_of_dsink_by_hand(name):
    # On top of the base's gradient, alpha * (softmax(z) - q) in each row, q being constant.
    def total(logits, method):
        return loss_of(method, logits).values.sum()

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    with_term = gradient(LOGITS, DSink(BASES[name], Weighting(2.0, loss_scale="sum")))
    expected = 2 * (softmax(LOGITS) - surrogate_labels())
    np.testing.assert_allclose(with_term - gradient(LOGITS, BASES[name]), expected, rtol=1e-3, atol=1e-4)
