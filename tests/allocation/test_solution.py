"""Q against independent solutions, optimality, closed forms and symmetries."""

from functools import partial

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from allocation_references import (
    SCALES,
    SIZES,
    draw_problem,
    largest_error,
    log_softmax,
    objective,
    pot_labels,
    reference_labels,
    solve,
)
from dsink_jax import Allocation

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
def test_very_confident_models_need_iterations_and_a_limit_that_is_too_low_is_told():
    problem = draw_problem(128, 100, scale=12, seed=1)
    expected = reference_labels(*problem)
    short = solve(*problem, max_iterations=100)
    assert not short.converged
    assert short.iterations == 100
    assert 1e-5 < short.marginal_error < 1e-2
    assert 2e-4 < largest_error(short, expected) < 5e-2
    # The default limit comes close, whether or not the threshold is met.
    assert largest_error(solve(*problem), expected) < 2e-4
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
