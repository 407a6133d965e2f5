"""Degenerate predictions, padding, number types and wrong arguments."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allocation_references import (
    draw_problem,
    largest_error,
    log_softmax,
    loss_and_gradient,
    reference_labels,
    solve,
)
from dsink_jax import class_marginal, dsink_loss, surrogate_labels

# Degenerate predictions.

SPIKES = np.where(np.eye(3)[[0, 1, 2, 0, 1, 2]], 1e4, -1e4).astype(np.float32)
SOFT = draw_problem(6, 3, scale=1)[0]
NO_CLASS_0 = np.where(np.arange(3) == 0, -np.inf, SOFT).astype(np.float32)
NO_CLASS_0_IN_ROW_1 = np.where(np.arange(6)[:, None] == 1, NO_CLASS_0, SOFT)
DEGENERATE = {
    "one-hot, agreeing": (SPIKES, SPIKES, SOFT),
    "one-hot, contradicting in every row": (SPIKES, SPIKES[::-1], SOFT),
    "one-hot, contradicting in one row": (SPIKES, np.r_[SPIKES[1:2], SPIKES[1:]], SOFT),
    "one-hot against soft": (SPIKES, SOFT, SOFT),
    "soft against one-hot": (SOFT, SPIKES, SOFT),
    "f_L predicts one class": (SOFT, SOFT, np.tile(SPIKES[:1], (6, 1))),
    "f_L predicts one class that nobody else does": (
        SPIKES[:3].repeat(2, 0),
        SPIKES[:3].repeat(2, 0),
        SPIKES[[2] * 6],
    ),
    "all logits 1e4": (np.full_like(SOFT, 1e4), np.full_like(SOFT, -1e4), np.full_like(SOFT, 1e4)),
    "f without a class that f_L has": (NO_CLASS_0, SOFT, SOFT),
    "all without a class": (NO_CLASS_0, NO_CLASS_0, NO_CLASS_0),
    "f without a class in one row": (NO_CLASS_0_IN_ROW_1, SOFT, SOFT),
    "f_N without a class in one row": (SOFT, NO_CLASS_0_IN_ROW_1, SOFT),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_predictions_stay_finite(case):
    logits, noise_robust, imbalance_robust = DEGENERATE[case]
    marginal = class_marginal(imbalance_robust)
    labels = np.asarray(solve(logits, noise_robust, marginal).labels)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=0, atol=1e-6)
    losses, gradient = loss_and_gradient(logits, noise_robust, imbalance_robust)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() <= 1
    np.testing.assert_allclose(gradient.sum(1), 0, rtol=0, atol=1e-6)
    for rows_without in (logits, noise_robust):
        assert (labels[np.isneginf(rows_without)] == 0).all()


def test_confident_contradiction_is_solved_right():
    # Each row of the two teachers together allows its two favourites alike: the marginal decides.
    logits, noise_robust = SPIKES[:3], SPIKES[[1, 2, 0]]
    allocation = solve(logits, noise_robust, jnp.array([0.5, 0.3, 0.2]))
    expected = reference_labels(logits, noise_robust, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(expected.mean(0), [0.5, 0.3, 0.2])
    assert allocation.converged
    assert largest_error(allocation, expected) < 2e-4


def test_class_without_marginal_gets_nothing():
    logits, noise_robust, _ = draw_problem(16, 4, scale=2)
    allocation = solve(logits, noise_robust, jnp.array([0.5, 0.0, 0.3, 0.2]))
    # Leaving the class out of both models leaves the same problem.
    rest = [0, 2, 3]
    expected = reference_labels(logits[:, rest], noise_robust[:, rest], [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(allocation.labels[:, 1], 0)
    np.testing.assert_allclose(allocation.labels[:, rest], expected, rtol=0, atol=1e-5)
    assert allocation.converged


@pytest.mark.parametrize("logit", [-np.inf, -1e30])
@pytest.mark.parametrize("scale", [1, 15])
def test_class_without_examples_that_the_target_and_the_marginal_rule_out(scale, logit):
    # f_N still has a finite logit for it. The rest is the same problem without the class.
    logits, noise_robust, _ = draw_problem(16, 4, scale)
    imbalance_robust, _, _ = draw_problem(16, 4, scale, seed=1)
    logits[:, 1], imbalance_robust[:, 1] = logit, logit
    marginal = class_marginal(imbalance_robust)
    assert marginal[1] == 0
    allocation = solve(logits, noise_robust, marginal)
    losses, gradient = loss_and_gradient(logits, noise_robust, imbalance_robust)
    rest = [0, 2, 3]
    without = [array[:, rest] for array in (logits, noise_robust, imbalance_robust)]
    expected_losses, expected_gradient = loss_and_gradient(*without)
    expected = reference_labels(*without[:2], marginal[np.array(rest)])
    np.testing.assert_array_equal(allocation.labels[:, 1], 0)
    np.testing.assert_allclose(allocation.labels[:, rest], expected, rtol=0, atol=1e-5)
    assert allocation.converged
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[:, 1], 0)
    np.testing.assert_allclose(gradient[:, rest], expected_gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", ["target", "noise-robust"])
def test_impossible_class_of_one_example(model):
    logits, noise_robust, marginal = draw_problem(16, 4, scale=2)
    (logits if model == "target" else noise_robust)[5, 2] = -np.inf
    allocation = solve(logits, noise_robust, marginal)
    assert allocation.labels[5, 2] == 0
    assert allocation.converged
    assert largest_error(allocation, reference_labels(logits, noise_robust, marginal)) < 1e-5


def test_marginal_that_cannot_be_met_is_reported():
    allocation = solve(NO_CLASS_0, SOFT, jnp.array([0.25, 0.5, 0.25]))
    np.testing.assert_array_equal(allocation.labels[:, 0], 0)
    np.testing.assert_allclose(allocation.labels.sum(1), 1, rtol=0, atol=1e-6)
    assert not allocation.converged
    np.testing.assert_allclose(allocation.marginal_error, 0.5, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("argument", [0, 1])
def test_nan_in_a_valid_row_makes_every_label_nan(argument, bad):
    problem = draw_problem(16, 3, scale=1)
    problem[argument][4, 1] = bad
    allocation = solve(*problem)
    assert np.isnan(allocation.labels).all()
    assert np.isnan(allocation.marginal_error)
    assert not allocation.converged


@pytest.mark.parametrize("all_rows", [True, False])
def test_models_without_a_class_in_common_make_every_label_nan(all_rows):
    logits, noise_robust, marginal = draw_problem(16, 3, scale=1)
    rows = slice(None) if all_rows else slice(4, 5)
    logits[rows, 0], noise_robust[rows, 1:] = -np.inf, -np.inf
    allocation = solve(logits, noise_robust, marginal)
    assert np.isnan(allocation.labels).all()
    assert not allocation.converged


@pytest.mark.parametrize(
    "marginal",
    [
        [0.0, 0.0, 0.0],
        [np.nan, 0.5, 0.5],
        [-0.1, 0.6, 0.5],
        [-0.5, 0.0, 0.5],
        [-0.5, -0.2, -0.3],  # the signs would cancel in normalising
        [3e38, 3e38, 3e38],
        [np.inf, 0.5, 0.5],
    ],
    ids=str,
)
def test_invalid_marginal_makes_every_label_nan(marginal):
    logits, noise_robust, _ = draw_problem(16, 3, scale=1)
    allocation = solve(logits, noise_robust, jnp.array(marginal))
    assert np.isnan(allocation.labels).all()
    assert np.isnan(allocation.marginal_error)
    assert not allocation.converged


# Padding.

PADDED = np.array([True, False, True, True, False, True, True, False])


@pytest.mark.parametrize("padding", [0.0, 1e4, -np.inf, np.inf, np.nan])
def test_padding_is_as_if_it_were_not_there(padding):
    logits, noise_robust, marginal = draw_problem(8, 4, scale=2)
    subset = solve(logits[PADDED], noise_robust[PADDED], marginal)
    logits[~PADDED], noise_robust[~PADDED] = padding, padding
    allocation = solve(logits, noise_robust, marginal, where=PADDED)
    np.testing.assert_allclose(allocation.labels[PADDED], subset.labels, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(allocation.labels[~PADDED], 0)
    np.testing.assert_allclose(allocation.marginal_error, subset.marginal_error, rtol=0, atol=3e-7)
    assert allocation.iterations == subset.iterations
    assert allocation.converged


@pytest.mark.parametrize("padding", [0.0, np.inf, np.nan])
def test_padding_in_the_loss_and_its_gradient(padding):
    logits, noise_robust, _ = draw_problem(8, 4, scale=2)
    imbalance_robust, _, _ = draw_problem(8, 4, scale=2, seed=1)
    subset = loss_and_gradient(logits[PADDED], noise_robust[PADDED], imbalance_robust[PADDED])
    for array in (logits, noise_robust, imbalance_robust):
        array[~PADDED] = padding
    padded = loss_and_gradient(logits, noise_robust, imbalance_robust, where=PADDED)
    for got, expected in zip(padded, subset, strict=True):
        np.testing.assert_allclose(got[PADDED], expected, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(got[~PADDED], 0)


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_nothing_but_padding(padding):
    array, nowhere = np.full((8, 4), padding, np.float32), np.zeros(8, bool)
    losses, gradient = loss_and_gradient(array, array, array, where=nowhere)
    np.testing.assert_array_equal(losses, 0)
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(class_marginal(array, where=nowhere), 0)
    labels = solve(array, array, np.full(4, 0.25, np.float32), where=nowhere).labels
    np.testing.assert_array_equal(labels, 0)


def test_all_true_mask_is_no_mask():
    problem = draw_problem(16, 3, scale=2)
    chex.assert_trees_all_equal(solve(*problem, where=np.ones(16, bool)), solve(*problem))


# Class marginal of the imbalance-robust model.


def test_class_marginal_is_the_mean_prediction():
    logits, _, _ = draw_problem(50, 7, scale=3)
    marginal = class_marginal(logits)
    assert marginal.dtype == jnp.float32
    np.testing.assert_allclose(marginal, np.exp(log_softmax(logits)).mean(0), rtol=1e-6)
    padded = np.arange(50) % 3 > 0
    expected = np.exp(log_softmax(logits))[padded].mean(0)
    logits[~padded] = np.nan
    np.testing.assert_allclose(class_marginal(logits, where=padded), expected, rtol=1e-6)


def test_class_marginal_has_no_gradient():
    logits, _, _ = draw_problem(5, 3, scale=1)
    jacobian = jax.jacobian(class_marginal)(logits)
    np.testing.assert_array_equal(jacobian, np.zeros((3, 5, 3)))


# Number types.


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_solved_in_float32(dtype):
    low = [jnp.asarray(array, dtype) for array in draw_problem(16, 3, scale=4)]
    allocation = solve(*low)
    chex.assert_type(allocation, [jnp.float32, jnp.float32, jnp.int32, bool])
    chex.assert_trees_all_equal(allocation, solve(*(array.astype(jnp.float32) for array in low)))
    assert allocation.converged
    np.testing.assert_allclose(allocation.labels.sum(1), 1, rtol=0, atol=1e-6)
    assert jax.eval_shape(dsink_loss, low[0], low[1], low[1]).dtype == jnp.float32
    assert jax.eval_shape(class_marginal, low[0]).dtype == jnp.float32


def test_float64_is_solved_in_float32():
    problem = draw_problem(16, 3, scale=4)
    single = solve(*problem)
    with jax.enable_x64(True):
        double = [jnp.asarray(array, jnp.float64) for array in problem]
        assert double[0].dtype == jnp.float64
        allocation = solve(*double)
        chex.assert_type(allocation, [jnp.float32, jnp.float32, jnp.int32, bool])
        losses, gradient = jax.eval_shape(loss_and_gradient, double[0], double[1], double[1])
        assert (losses.dtype, gradient.dtype) == (jnp.float32, jnp.float64)
        assert class_marginal(double[0]).dtype == jnp.float32
    np.testing.assert_allclose(allocation.labels, single.labels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 7.3, 128.0, 5e4])
def test_scale_of_the_marginal_does_not_matter(factor):
    logits, noise_robust, marginal = draw_problem(16, 3, scale=2)
    plain, scaled = (solve(logits, noise_robust, m) for m in (marginal, np.float32(factor) * marginal))
    np.testing.assert_allclose(scaled.labels, plain.labels, rtol=0, atol=1e-6)
    assert scaled.marginal_error < 1e-6


# Wrong arguments.

Z = jnp.zeros((4, 3))
THIRDS = jnp.full(3, 1 / 3)
WRONG = {
    "flat logits": ((Z[0], Z, THIRDS), {}, r"logits must have shape \[N, C\], got \[3\]"),
    "logits with time": ((Z[None], Z[None], THIRDS), {}, r"logits must have shape \[N, C\], got \[1, 4, 3\]"),
    "flat noise-robust": ((Z, Z[0], THIRDS), {}, r"noise_robust_logits must have shape \[N, C\], got \[3\]"),
    "other batch": ((Z, Z[:2], THIRDS), {}, r"noise_robust_logits must have the shape of logits, \[4, 3\]"),
    "other classes": ((Z, Z[:, :2], THIRDS), {}, r"noise_robust_logits must have .* got \[4, 2\]"),
    "integer logits": ((Z.astype(int), Z, THIRDS), {}, "^logits must be floating point, got int32"),
    "boolean noise-robust": ((Z, Z > 0, THIRDS), {}, "noise_robust_logits must be floating point, got bool"),
    "short marginal": ((Z, Z, THIRDS[:2]), {}, r"class_marginal must have shape \[C\] = \[3\].*got \[2\]"),
    "marginal per example": ((Z, Z, Z), {}, r"class_marginal must have shape \[C\].*got \[4, 3\]"),
    "scalar marginal": ((Z, Z, THIRDS[0]), {}, r"class_marginal must have shape \[C\].*got \[\]"),
    "counts as marginal": ((Z, Z, jnp.ones(3, int)), {}, "class_marginal must be floating point, got int32"),
    "complex marginal": (
        (Z, Z, THIRDS.astype(jnp.complex64)),
        {},
        "class_marginal must be floating point, got complex64",
    ),
    "short where": (
        (Z, Z, THIRDS),
        {"where": jnp.ones(3, bool)},
        r"where must be bool \[N\] = \[4\], got bool \[3\]",
    ),
    "square where": (
        (Z, Z, THIRDS),
        {"where": Z > 0},
        r"where must be bool \[N\] = \[4\], got bool \[4, 3\]",
    ),
    "float where": ((Z, Z, THIRDS), {"where": jnp.ones(4)}, r"where must be bool \[N\] = \[4\], got float32"),
    "zero threshold": ((Z, Z, THIRDS), {"threshold": 0.0}, "threshold must be positive, got 0.0"),
    "negative threshold": ((Z, Z, THIRDS), {"threshold": -1e-6}, "threshold must be positive, got -1e-06"),
    "NaN threshold": ((Z, Z, THIRDS), {"threshold": np.nan}, "threshold must be positive, got nan"),
    "no iterations": ((Z, Z, THIRDS), {"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
    "negative iterations": (
        (Z, Z, THIRDS),
        {"max_iterations": -5},
        "max_iterations must be at least 1, got -5",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    arguments, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        surrogate_labels(*arguments, **options)
    with pytest.raises(ValueError, match=message):  # also while tracing
        jax.jit(lambda arrays: surrogate_labels(*arrays, **options))(arguments)


@pytest.mark.parametrize(
    ("logits", "where", "message"),
    [
        (Z[0], None, r"imbalance_robust_logits must have shape \[N, C\], got \[3\]"),
        (Z.astype(int), None, "imbalance_robust_logits must be floating point, got int32"),
        (Z, jnp.ones(3, bool), r"where must be bool \[N\] = \[4\], got bool \[3\]"),
        (Z, jnp.ones(4, int), r"where must be bool \[N\] = \[4\], got int32"),
    ],
)
def test_wrong_arguments_of_class_marginal(logits, where, message):
    with pytest.raises(ValueError, match=message):
        class_marginal(logits, where=where)
