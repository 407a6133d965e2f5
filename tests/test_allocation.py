import logging
import os
import pathlib
import statistics
import subprocess
import sys
import time
from functools import partial

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from jax.sharding import PartitionSpec

import dsink_jax
from dsink_jax import Allocation, class_marginal, dsink_loss, surrogate_labels

SIZES = [(1, 2), (16, 3), (128, 10), (128, 100), (1000, 100)]
SCALES = [1, 5, 12]
NUM_DEVICES = 8

solve = jax.jit(surrogate_labels, static_argnames=("max_iterations", "axis_name"))


@partial(jax.jit, static_argnames=("axis_name",))
def loss_and_gradient(logits, noise_robust_logits, imbalance_robust_logits, where=None, axis_name=None):
    def total(logits):
        losses = dsink_loss(
            logits, noise_robust_logits, imbalance_robust_logits, where=where, axis_name=axis_name
        )
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return losses, gradient


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def reference_labels(logits, noise_robust_logits, marginal, tolerance=1e-11, max_iterations=100_000):
    """The published iteration Q = N diag(u) sqrt(f_N f) diag(v), in the log domain, float64, to its end."""
    log_kernel = (log_softmax(logits) + log_softmax(noise_robust_logits)) / 2
    marginal = np.asarray(marginal, np.float64)
    marginal = marginal / marginal.sum()
    log_u = np.zeros(len(marginal))
    for _ in range(max_iterations):
        log_labels = log_softmax(log_kernel + log_u)
        largest = log_labels.max(0)
        log_mean = largest + np.log(np.exp(log_labels - largest).mean(0))
        if np.abs(np.exp(log_mean) - marginal).sum() < tolerance:
            return np.exp(log_labels)
        log_u += np.log(marginal) - log_mean
    raise AssertionError("the reference did not converge")


def pot_labels(logits, noise_robust_logits, marginal):
    num_examples = len(logits)
    marginal = np.asarray(marginal, np.float64)
    plan = ot.sinkhorn(
        np.full(num_examples, 1 / num_examples),
        marginal / marginal.sum(),
        -log_softmax(logits) - log_softmax(noise_robust_logits),
        2.0,
        method="sinkhorn_log",
        stopThr=1e-12,
        numItermax=20_000,
    )
    return num_examples * plan


def draw_problem(num_examples, num_classes, scale, seed=0):
    """Logits of f and f_N that mostly agree, and the mean prediction of an f_L with a long tail."""
    rng = np.random.default_rng(seed)
    shape = (num_examples, num_classes)
    base = scale * rng.standard_normal(shape)
    target = base + scale / 5 * rng.standard_normal(shape)
    noise_robust = base + scale / 5 * rng.standard_normal(shape)
    marginal = np.exp(log_softmax(base - np.linspace(0, np.log(100), num_classes))).mean(0)
    return target.astype(np.float32), noise_robust.astype(np.float32), marginal.astype(np.float32)


def objective(labels, logits, noise_robust_logits):
    """sum_i KL(q_i || f_N(x_i)) + KL(q_i || f(x_i)) of positive labels, float64."""
    teachers = log_softmax(logits) + log_softmax(noise_robust_logits)
    return (labels * (2 * np.log(labels) - teachers)).sum()


def largest_error(allocation, expected):
    return np.abs(np.asarray(allocation.labels, np.float64) - expected).max()


# Against an independent solver.


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("num_examples", "num_classes"), [(1, 2), (16, 3), (128, 10)])
def test_reference_is_pot(num_examples, num_classes, scale):
    problem = draw_problem(num_examples, num_classes, scale)
    np.testing.assert_allclose(reference_labels(*problem), pot_labels(*problem), rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("num_examples", "num_classes"), SIZES)
def test_labels_are_the_optimum(num_examples, num_classes, scale):
    problem = draw_problem(num_examples, num_classes, scale)
    expected = reference_labels(*problem)
    allocation = solve(*problem)  # the default limit is enough for these: more would change nothing
    assert allocation.converged
    assert largest_error(allocation, expected) < 2e-4


@pytest.mark.slow
def test_very_confident_models_may_need_more_than_the_default_iterations():
    problem = draw_problem(128, 100, scale=12, seed=1)
    expected = reference_labels(*problem)
    default = solve(*problem)
    assert not default.converged
    assert default.iterations == 500
    assert 1e-6 < default.marginal_error < 1e-3
    assert 2e-4 < largest_error(default, expected) < 5e-3
    patient = solve(*problem, max_iterations=20_000)
    assert patient.converged
    assert largest_error(patient, expected) < 2e-4


@pytest.mark.parametrize("dominant", [False, True])
def test_disagreeing_confident_teachers(dominant):
    # f_N contradicts f on two examples in five: mass has to move far against both.
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 10, 128)
    moved = (classes + (rng.random(128) < 0.4) * rng.integers(1, 10, 128)) % 10
    logits, noise_robust = (10 * np.eye(10)[k] + rng.standard_normal((128, 10)) for k in (classes, moved))
    marginal = np.r_[0.55, np.full(9, 0.05)] if dominant else np.full(10, 0.1)
    expected = reference_labels(logits, noise_robust, marginal)
    allocation = solve(jnp.asarray(logits), jnp.asarray(noise_robust), marginal, max_iterations=20_000)
    assert allocation.converged
    assert largest_error(allocation, expected) < 2e-4


# Optimality, without a solver.


@pytest.mark.parametrize(("num_examples", "num_classes", "scale"), [(16, 3, 2), (128, 10, 2)])
def test_karush_kuhn_tucker_conditions(num_examples, num_classes, scale):
    logits, noise_robust, marginal = draw_problem(num_examples, num_classes, scale)
    labels = np.asarray(solve(logits, noise_robust, marginal).labels, np.float64)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(labels.mean(0), marginal / marginal.sum(), rtol=0, atol=1e-6)
    # Stationarity: what is left of log q beyond the teachers is a class term plus a sample term.
    rest = np.log(labels) - (log_softmax(logits) + log_softmax(noise_robust)) / 2
    additive = rest.mean(0) + rest.mean(1, keepdims=True) - rest.mean()
    np.testing.assert_allclose(rest, additive, rtol=0, atol=1e-5)
    assert np.ptp(rest) > 0.1  # the constraint was active: it is not the teachers' mean as it stands


@pytest.mark.parametrize("seed", range(3))
def test_feasible_perturbations_do_not_lower_the_objective(seed):
    logits, noise_robust, marginal = draw_problem(12, 5, scale=1, seed=seed)
    labels = np.asarray(solve(logits, noise_robust, marginal, threshold=3e-7).labels, np.float64)
    best = objective(labels, logits, noise_robust)
    rng = np.random.default_rng(seed)
    for _ in range(500):
        # Swap mass between two examples and two classes: every row and column keeps its sum.
        (i, j), (c, d) = (rng.choice(size, 2, replace=False) for size in labels.shape)
        mass = rng.uniform(0.1, 0.9) * min(labels[i, c], labels[j, d])
        other = labels.copy()
        other[i, c] -= mass
        other[j, d] -= mass
        other[i, d] += mass
        other[j, c] += mass
        assert objective(other, logits, noise_robust) > best
    for _ in range(500):
        direction = rng.standard_normal(labels.shape)
        direction -= direction.mean(0)
        direction -= direction.mean(1, keepdims=True)
        step = rng.uniform(0.1, 0.9) * (labels / np.abs(direction)).min()
        assert objective(labels + step * direction, logits, noise_robust) > best


# Cases that can be solved by hand.


@pytest.mark.parametrize("marginal", [(0.5, 0.5), (0.7, 0.3), (0.1, 0.9)])
def test_two_by_two_by_hand(marginal):
    target = np.array([[0.6, 0.4], [0.6, 0.4]])
    noise_robust = np.array([[0.9, 0.1], [0.5, 0.5]])
    # Scaling rows and columns keeps the odds ratio of M = sqrt(f_N f), here 3. With rows (a, 1 - a) and
    # (2 m - a, 1 - 2 m + a): a (1 - 2 m + a) = 3 (1 - a) (2 m - a), a quadratic in a.
    kernel = np.sqrt(target * noise_robust)
    ratio = kernel[0, 0] * kernel[1, 1] / (kernel[0, 1] * kernel[1, 0])
    assert ratio == pytest.approx(3)
    total = 2 * marginal[0]
    roots = np.roots([1 - ratio, 1 - total + ratio * (1 + total), -ratio * total])
    first = next(a for a in roots if max(0, total - 1) < a < min(1, total))
    expected = [[first, 1 - first], [total - first, 1 - total + first]]
    allocation = solve(jnp.log(target), jnp.log(noise_robust), jnp.array(marginal))
    np.testing.assert_allclose(allocation.labels, expected, rtol=0, atol=2e-6)
    if marginal == (0.5, 0.5):
        assert first == pytest.approx(np.sqrt(3) / (1 + np.sqrt(3)))


def test_marginal_already_met_leaves_the_geometric_mean():
    logits, noise_robust, _ = draw_problem(16, 3, scale=2)
    mean = np.exp((log_softmax(logits) + log_softmax(noise_robust)) / 2)
    expected = mean / mean.sum(1, keepdims=True)
    allocation = solve(logits, noise_robust, expected.mean(0))
    np.testing.assert_allclose(allocation.labels, expected, rtol=0, atol=2e-6)


def test_identical_examples_all_get_the_marginal():
    logits, noise_robust = (np.tile(z[:1], (16, 1)) for z in draw_problem(16, 3, scale=3)[:2])
    marginal = np.array([0.2, 0.3, 0.5])
    allocation = solve(logits, noise_robust, marginal)
    np.testing.assert_allclose(allocation.labels, np.tile(marginal, (16, 1)), rtol=0, atol=1e-6)


def test_one_example_gets_the_marginal():
    logits, noise_robust, marginal = draw_problem(1, 2, scale=4)
    allocation = solve(logits, noise_robust, marginal)
    np.testing.assert_allclose(allocation.labels[0], marginal / marginal.sum(), rtol=0, atol=1e-6)


def test_one_class():
    allocation = solve(jnp.zeros((3, 1)), jnp.ones((3, 1)), jnp.array([0.4]))
    np.testing.assert_array_equal(allocation.labels, np.ones((3, 1)))
    assert allocation.converged


# Properties.

SHAPE = (6, 4)
LOGITS = hnp.arrays(np.float32, SHAPE, elements=st.floats(-4, 4, width=32))
MARGINAL = hnp.arrays(np.float32, SHAPE[1], elements=st.floats(np.float32(0.01), 1, width=32))
PERMUTATION = {size: st.permutations(range(size)).map(np.array) for size in SHAPE}
# Two runs of one problem may stop ten iterations apart when their error is at the threshold.
SAME_OPTIMUM = {"rtol": 0, "atol": 5e-5}
patient_solve = partial(solve, max_iterations=20_000)


@hypothesis.given(LOGITS, LOGITS, MARGINAL, PERMUTATION[SHAPE[0]])
def test_order_of_examples_does_not_matter(logits, noise_robust, marginal, order):
    plain = patient_solve(logits, noise_robust, marginal)
    permuted = patient_solve(logits[order], noise_robust[order], marginal)
    np.testing.assert_allclose(permuted.labels, plain.labels[order], **SAME_OPTIMUM)


@hypothesis.given(LOGITS, LOGITS, MARGINAL, PERMUTATION[SHAPE[1]])
def test_order_of_classes_does_not_matter(logits, noise_robust, marginal, order):
    plain = patient_solve(logits, noise_robust, marginal)
    permuted = patient_solve(logits[:, order], noise_robust[:, order], marginal[order])
    np.testing.assert_allclose(permuted.labels, plain.labels[:, order], **SAME_OPTIMUM)


@hypothesis.given(
    LOGITS, LOGITS, MARGINAL, hnp.arrays(np.float32, (2, SHAPE[0], 1), elements=st.floats(-50, 50))
)
def test_a_constant_added_to_a_row_of_logits_does_not_matter(logits, noise_robust, marginal, shift):
    plain = patient_solve(logits, noise_robust, marginal)
    shifted = patient_solve(logits + shift[0], noise_robust + shift[1], marginal)
    np.testing.assert_allclose(shifted.labels, plain.labels, **SAME_OPTIMUM)


@hypothesis.given(LOGITS, LOGITS, MARGINAL)
def test_models_are_treated_alike(logits, noise_robust, marginal):
    plain = patient_solve(logits, noise_robust, marginal)
    swapped = patient_solve(noise_robust, logits, marginal)
    np.testing.assert_allclose(swapped.labels, plain.labels, **SAME_OPTIMUM)


@hypothesis.given(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-40, 40, width=32)),
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-40, 40, width=32)),
    MARGINAL,
    st.sampled_from([10, 30]),
)
def test_rows_are_distributions_at_any_stop(logits, noise_robust, marginal, max_iterations):
    allocation = solve(logits, noise_robust, marginal, max_iterations=max_iterations)
    labels = np.asarray(allocation.labels, np.float64)
    assert allocation.iterations <= max_iterations
    np.testing.assert_allclose(labels.sum(1), 1, rtol=0, atol=1e-6)
    assert labels.min() >= 0
    assert labels.max() <= 1
    normalised = marginal.astype(np.float64) / marginal.sum(dtype=np.float64)
    error = np.abs(labels.mean(0) - normalised).sum()
    np.testing.assert_allclose(allocation.marginal_error, error, rtol=0, atol=1e-6)
    assert 0 <= allocation.marginal_error <= 2
    if allocation.converged:
        assert error < 2e-6  # the threshold, and the rounding of two float32 sums


def test_looser_threshold_stops_earlier():
    problem = draw_problem(16, 3, scale=5)
    loose, tight = (solve(*problem, threshold=threshold) for threshold in (1e-1, 1e-6))
    assert loose.iterations < tight.iterations
    assert tight.marginal_error < 1e-6 < loose.marginal_error < 1e-1


def test_what_is_returned():
    allocation = solve(*draw_problem(16, 3, scale=1))
    assert isinstance(allocation, Allocation)
    chex.assert_shape(allocation, [(16, 3), (), (), ()])
    chex.assert_type(allocation, [jnp.float32, jnp.float32, jnp.int32, bool])


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


# Transformations.


@pytest.mark.slow
def test_jit_is_eager():
    problem = draw_problem(16, 3, scale=2)
    eager, jitted = surrogate_labels(*problem), solve(*problem)
    np.testing.assert_allclose(jitted.labels, eager.labels, rtol=0, atol=1e-6)
    assert jitted.iterations == eager.iterations


def test_vmap_is_a_loop():
    # Hard and easy problems together: each must stop where it would alone.
    problems = [draw_problem(16, 3, scale, seed) for seed, scale in enumerate((0.5, 3, 10))]
    where = np.arange(16) < np.array([[16], [7], [11]])
    stacked = [np.stack(arrays) for arrays in zip(*problems, strict=True)]
    mapped = jax.jit(jax.vmap(lambda z, n, m, w: surrogate_labels(z, n, m, where=w)))(*stacked, where)
    alone = [solve(*problem, where=w) for problem, w in zip(problems, where, strict=True)]
    assert len({int(allocation.iterations) for allocation in alone}) > 1
    for index, allocation in enumerate(alone):
        got = jax.tree.map(lambda leaf: leaf[index], mapped)  # noqa: B023
        np.testing.assert_allclose(got.labels, allocation.labels, rtol=0, atol=1e-6)
        assert got.iterations == allocation.iterations
        assert got.converged == allocation.converged


def test_no_gradient_flows_through_an_allocation():
    problem = draw_problem(*SHAPE, scale=1)
    weights = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)

    @partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def gradients(*arrays):
        allocation = surrogate_labels(*arrays)
        return (weights * allocation.labels).sum() + allocation.marginal_error, allocation

    reverse, allocation = jax.jit(gradients)(*problem)
    chex.assert_trees_all_equal(reverse, tuple(np.zeros_like(array) for array in problem))
    chex.assert_trees_all_equal(allocation.labels, solve(*problem).labels)
    _, forward = jax.jit(lambda primals, tangents: jax.jvp(surrogate_labels, primals, tangents))(
        problem, problem
    )
    np.testing.assert_array_equal(forward.labels, 0)
    np.testing.assert_array_equal(forward.marginal_error, 0)


def test_in_a_scan():
    problems = [draw_problem(16, 3, 2, seed) for seed in range(3)]
    stacked = [np.stack(arrays) for arrays in zip(*problems, strict=True)]
    _, labels = jax.jit(
        lambda xs: jax.lax.scan(lambda carry, x: (carry, surrogate_labels(*x).labels), None, xs)
    )(stacked)
    for got, problem in zip(labels, problems, strict=True):
        np.testing.assert_allclose(got, solve(*problem).labels, rtol=0, atol=1e-6)


# Several devices: one problem over the global batch.

VALID_ROWS = np.array([4, 1, 3, 0, 4, 2, 4, 1])  # one device holds nothing but padding


def per_device(array):
    return array.reshape(NUM_DEVICES, -1, *array.shape[1:])


def by_pmap(function, *arrays):
    mapped = jax.pmap(function, axis_name="batch", devices=jax.devices("cpu")[:NUM_DEVICES])
    return mapped(*map(per_device, arrays))


def by_shard_map(function, *arrays):
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:NUM_DEVICES]), ("batch",))
    split = PartitionSpec("batch")

    def add_axis(*shards):
        return jax.tree.map(lambda leaf: leaf[None], function(*shards))

    mapped = jax.shard_map(
        add_axis, mesh=mesh, in_specs=(split,) * len(arrays), out_specs=split, check_vma=False
    )
    return jax.jit(mapped)(*arrays)


def by_vmap(function, *arrays):
    return jax.jit(jax.vmap(function, axis_name="batch"))(*map(per_device, arrays))


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [by_pmap, by_shard_map, by_vmap])
def test_batch_split_over_devices_is_one_batch(mapping):
    logits, noise_robust, _ = draw_problem(32, 5, scale=3)
    imbalance_robust, _, _ = draw_problem(32, 5, scale=3, seed=1)
    where = (np.arange(4) < VALID_ROWS[:, None]).reshape(32)
    for array in (logits, noise_robust, imbalance_robust):
        array[~where] = np.nan

    def on_a_device(logits, noise_robust, imbalance_robust, where):
        marginal = class_marginal(imbalance_robust, where=where, axis_name="batch")
        allocation = surrogate_labels(logits, noise_robust, marginal, where=where, axis_name="batch")
        losses, gradient = loss_and_gradient(logits, noise_robust, imbalance_robust, where, "batch")
        return marginal, allocation, losses, gradient

    split = jax.device_get(mapping(on_a_device, logits, noise_robust, imbalance_robust, where))
    marginal, allocation, losses, gradient = split
    expected_marginal = class_marginal(imbalance_robust, where=where)
    expected = jax.device_get(solve(logits, noise_robust, expected_marginal, where=where))
    expected_losses, expected_gradient = loss_and_gradient(logits, noise_robust, imbalance_robust, where)
    np.testing.assert_allclose(marginal, np.tile(expected_marginal, (NUM_DEVICES, 1)), rtol=1e-6)
    assert allocation.labels.shape == (NUM_DEVICES, 4, 5)
    np.testing.assert_allclose(allocation.labels.reshape(32, 5), expected.labels, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        allocation.marginal_error, np.full(NUM_DEVICES, expected.marginal_error), rtol=0, atol=3e-7
    )
    assert (allocation.marginal_error == allocation.marginal_error[0]).all()
    np.testing.assert_array_equal(allocation.iterations, np.full(NUM_DEVICES, expected.iterations))
    assert allocation.converged.all()
    np.testing.assert_allclose(losses.reshape(32), expected_losses, rtol=0, atol=2e-6)
    np.testing.assert_allclose(gradient.reshape(32, 5), expected_gradient, rtol=0, atol=2e-6)
    # And it is not the same as solving each device's share on its own.
    alone = solve(logits[:4], noise_robust[:4], expected_marginal, where=where[:4])
    assert np.abs(alone.labels - allocation.labels[0]).max() > 1e-2


def test_nan_on_one_device_is_seen_by_all():
    logits, noise_robust, marginal = draw_problem(32, 5, scale=3)
    logits[17, 2] = np.nan
    split = by_pmap(
        lambda z, n: surrogate_labels(z, n, jnp.asarray(marginal), axis_name="batch"), logits, noise_robust
    )
    assert np.isnan(split.labels).all()
    assert not split.converged.any()


# Tracing.


def test_same_shapes_are_traced_once():
    traced = jax.jit(chex.assert_max_traces(surrogate_labels, n=1))
    for seed in range(3):
        traced(*draw_problem(16, 3, scale=2, seed=seed), where=np.arange(16) != seed, threshold=10.0**-seed)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        traced(*draw_problem(17, 3, scale=2), where=np.ones(17, bool), threshold=1e-6)


def test_second_call_without_jit_compiles_nothing(caplog):
    def compilations(num_examples):
        caplog.clear()
        with jax.log_compiles(True), caplog.at_level(logging.DEBUG, logger="jax"):
            surrogate_labels(*draw_problem(num_examples, 3, scale=2))
        messages = [record.getMessage() for record in caplog.records]
        return [message for message in messages if message.startswith("Compiling")]

    assert compilations(11)
    assert compilations(11) == []
    assert compilations(13)


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


# Importing: each in a process of its own.


def in_a_fresh_process(code, **settings):
    root = pathlib.Path(dsink_jax.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **settings, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("first", ["jit of grad", "pmap"])
def test_first_call_may_be_inside_a_trace(first):
    # OTT is imported by the first call. Were its module-level constants made by that call's trace, a
    # later trace would meet leaked tracers.
    out = in_a_fresh_process(
        f"""
import sys
import jax, jax.numpy as jnp, numpy as np
from dsink_jax import dsink_loss, surrogate_labels

def arrays(n, c):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(2 * rng.standard_normal((n, c)), jnp.float32) for _ in range(3))

assert "ott" not in sys.modules
if {first!r} == "jit of grad":
    jax.jit(jax.grad(lambda *a: dsink_loss(*a).sum()))(*arrays(4, 2)).block_until_ready()
else:
    one = [a[None] for a in arrays(4, 2)]
    jax.pmap(lambda *a: dsink_loss(*a, axis_name="i"), axis_name="i")(*one).block_until_ready()
assert "ott" in sys.modules
print(*jax.jit(dsink_loss)(*arrays(16, 3)).tolist())
"""
    )
    rng = np.random.default_rng(0)
    logits, noise_robust, imbalance_robust = (
        (2 * rng.standard_normal((16, 3))).astype(np.float32) for _ in range(3)
    )
    labels = reference_labels(logits, noise_robust, np.exp(log_softmax(imbalance_robust)).mean(0))
    expected = (labels * (np.log(labels) - log_softmax(logits))).sum(1)
    np.testing.assert_allclose(np.array(out.split(), float), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_import_loads_nothing_heavy():
    heavy = "tensorflow tensorflow_datasets matplotlib sklearn orbax ott"
    out = in_a_fresh_process(
        f"""
import sys
import dsink_jax, dsink_jax.losses
print([name for name in {heavy!r}.split() if name in sys.modules])
print(*(name for name in sys.modules if name.startswith("dsink_jax.")))
print(dsink_jax.evaluation.__name__)
try:
    dsink_jax.nothing
except AttributeError as error:
    print(error)
"""
    ).splitlines()
    assert out[0] == "[]"
    assert "dsink_jax.losses" in out[1].split()
    lazy = ("data", "evaluation", "methods", "models", "report", "training")
    assert not {f"dsink_jax.{name}" for name in lazy} & set(out[1].split())
    assert out[2] == "dsink_jax.evaluation"
    assert out[3] == "module 'dsink_jax' has no attribute 'nothing'"


@pytest.mark.slow
def test_import_costs_little_more_than_its_dependencies():
    def seconds(code):
        start = time.perf_counter()
        in_a_fresh_process(code)
        return time.perf_counter() - start

    ours, theirs = [], []
    for _ in range(5):  # in turns, so that other work on the machine falls on both
        ours.append(seconds("import dsink_jax"))
        theirs.append(seconds("import jax, optax, ott"))
    assert statistics.median(ours) <= 1.3 * statistics.median(theirs)
