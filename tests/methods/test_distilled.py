"""A distillation term on base methods of one network and one stage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax import losses
from dsink_jax.methods import CrossEntropy, DSink, NaiveDistillation, Weighting
from method_references import (
    BASES,
    EXAMPLES,
    IMBALANCE_ROBUST,
    LOGITS,
    NOISE_ROBUST,
    base_values,
    cross_entropy,
    divergence,
    dsink,
    dsink_values,
    evaluate,
    loss_of,
    softmax,
    surrogate_labels,
)


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
