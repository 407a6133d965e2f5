"""Numbers that a person tunes, traced: what the same Python numbers give, without compiling anew."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax import losses, surrogate_labels
from loss_references import LABELS, NUM_CLASSES, TRANSITIONS, draw, softmax

# Rows 1 and 3 have the label of class 3, which has no prior; row 4 rules its own label out.
PRIOR = np.float32([0.5, 0.3, 0.2, 0])
COUNTS = np.float32([500, 40, 3, 1])
LOGITS = draw(scale=3)
LOGITS[4, LABELS[4]] = -np.inf
TARGETS = np.float32(0.9 * softmax(draw(seed=1)))
COST = draw(seed=2) ** 2
# f_N rules out what f does; the divergence from f_L is infinite in row 4, and its prediction NaN in row 2.
F_N, F_L = draw(seed=3), draw(seed=4)
F_N[4, LABELS[4]] = -np.inf
F_L[2] = np.nan

# A function of a number and logits, numbers within its range, and those at its ends or at a branch.
FUNCTIONS = {
    "logit adjustment": (
        lambda tau, z: losses.logit_adjusted_cross_entropy(z, LABELS, PRIOR, tau),
        [0.3, 1.5],
        [0, 1],
    ),
    "focal": (lambda gamma, z: losses.focal_cross_entropy(z, LABELS, gamma), [0.3, 1.7], [0, 1, 2]),
    "margin of ldam": (lambda m, z: losses.ldam(z, LABELS, COUNTS, m), [0.3, 0.7], [0, 1]),
    "scale of ldam": (lambda s, z: losses.ldam(z, LABELS, COUNTS, scale=s), [0.3, 30.0], [1]),
    "generalized": (lambda q, z: losses.generalized_cross_entropy(z, LABELS, q), [0.3, 0.7], [1]),
    "elr": (lambda w, z: losses.early_learning_regularized(z, LABELS, TARGETS, w), [0.3, 3.0], [0, 1]),
    "targets of elr": (lambda m, z: losses.early_learning_targets(z, TARGETS, m), [0.3, 0.7], [0, 1]),
    "symmetric, alpha": (lambda a, z: losses.symmetric_cross_entropy(z, LABELS, a), [0.1, 6.0], [0, 1]),
    "symmetric, beta": (lambda b, z: losses.symmetric_cross_entropy(z, LABELS, 0.1, b), [0.3, 2.5], [0, 1]),
    "soft bootstrapping": (lambda b, z: losses.soft_bootstrapping(z, LABELS, b), [0.3, 0.95], [0, 1]),
    "hard bootstrapping": (lambda b, z: losses.hard_bootstrapping(z, LABELS, b), [0.3, 0.8], [0, 1]),
    "naive": (lambda w, z: losses.naive_distillation_loss(z, F_N, draw(seed=4), w), [0.3, 0.7], [0, 1]),
    "naive, f_L broken": (lambda w, z: losses.naive_distillation_loss(z, F_N, F_L, w), [], [1]),
    "naive, f_N broken": (lambda w, z: losses.naive_distillation_loss(z, F_L, F_N, w), [], [0]),
    "class weights": (lambda b, z: losses.class_balanced_weights(COUNTS, b) * z[:1], [0.3, 0.9, 0.9999], [0]),
    "epsilon": (lambda e, z: losses.transport_distance(z[:, 0], COST, epsilon=e), [0.3], []),
    "threshold": (lambda t, z: losses.transport_distance(z[:, 0], COST, threshold=t), [0.3, 1e-3], []),
}


def jitted_and_counted(function):
    """The function jitted, and a list with an entry for each time that it is traced."""
    traces = []

    @jax.jit
    def counted(*arguments):
        traces.append(arguments)
        return function(*arguments)

    return counted, traces


def value_and_gradient(function, number, logits):
    return function(number, logits), jax.grad(lambda z: function(number, z).sum())(logits)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_traced_numbers_do_what_pythons_do(name):
    function, within, at_ends = FUNCTIONS[name]
    compute = partial(value_and_gradient, function)
    compute_traced, traces = jitted_and_counted(compute)
    # Class weights are not for logits, which only stand beside them.
    logits = np.nan_to_num(LOGITS) if name == "class weights" else LOGITS
    for number in within + at_ends:
        number = type(number)(np.float32(number))  # what a traced number can be
        traced = compute_traced(np.float32(number), logits)
        known = jax.jit(partial(compute, number))(logits)
        for got, expected in zip(traced, known, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7, err_msg=f"{name} {number}")
        assert not np.isnan(traced[0]).any()
        assert np.isfinite(traced[1]).all()
    assert len(traces) == 1


def test_weight_one_of_a_teacher_leaves_the_others_nan_out():
    # KL(f_N || f) by hand: what f rules out f_N rules out, too.
    values = jax.jit(losses.naive_distillation_loss)(LOGITS, F_N, F_L, 1.0)
    target, teacher = softmax(LOGITS), softmax(F_N)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(teacher > 0, teacher * np.log(teacher / target), 0).sum(-1)
    np.testing.assert_allclose(values, expected, rtol=2e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_traced_whole_numbers_and_numbers_side_by_side(number):
    loss = FUNCTIONS["focal"][0]
    expected = loss(number, LOGITS)
    np.testing.assert_array_equal(jax.jit(loss)(number, LOGITS), expected)
    side_by_side = jax.vmap(loss, in_axes=(0, None))(jnp.arange(3), LOGITS)
    np.testing.assert_array_equal(side_by_side[number], expected)


def test_arrays_of_the_classes_may_be_traced():
    for function, array in (
        (lambda prior: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, prior), PRIOR),
        (lambda counts: losses.ldam(LOGITS, LABELS, counts), COUNTS),
        (losses.class_balanced_weights, COUNTS),
        (lambda matrix: losses.forward_corrected_cross_entropy(LOGITS, LABELS, matrix), TRANSITIONS),
    ):
        traced, traces = jitted_and_counted(function)
        for factor in (1, 2):
            array_now = (factor * array).astype(np.float32)
            np.testing.assert_allclose(traced(array_now), function(array_now), rtol=1e-6)
        assert len(traces) == 1


def test_weights_of_a_traced_beta_near_one_are_exact():
    beta = np.float32(1 - 2**-14)
    exact = 1 / (1 - float(beta) ** COUNTS.astype(np.float64))
    weights = jax.jit(losses.class_balanced_weights)(COUNTS, beta)
    np.testing.assert_allclose(weights, exact / exact.mean(), rtol=1e-6)


def test_gradient_with_respect_to_numbers_at_the_ends_is_finite():
    logits, number = draw(), jnp.float32(0)
    for name in ("logit adjustment", "focal", "elr", "symmetric, alpha", "hard bootstrapping", "naive"):
        function = FUNCTIONS[name][0]
        rows = np.flatnonzero(np.isfinite(function(1, logits)))
        gradient = jax.jit(jax.grad(lambda x, f=function, rows=rows: f(x, logits)[rows].sum()))(number)
        assert np.isfinite(gradient), name
    weighed = jax.jacobian(lambda beta: losses.class_balanced_weights(COUNTS, beta))(number)
    assert np.isfinite(weighed).all()


def test_known_numbers_are_checked_inside_jit_too():
    for number in (jnp.float32(-1), np.float32(-1), np.array(-1)):
        with pytest.raises(ValueError, match="gamma must be at least 0 and finite, got -1"):
            jax.jit(lambda z, number=number: losses.focal_cross_entropy(z, LABELS, number))(LOGITS)
    epsilon = jnp.float32(2)
    solve = jax.jit(lambda z: surrogate_labels(z, z, jnp.ones(NUM_CLASSES), epsilon=epsilon).labels)
    assert np.isfinite(solve(draw())).all()


@pytest.mark.parametrize(("number", "got"), [(np.ones(2), r"float32 \[2\]"), (1j, r"complex64 \[\]")])
def test_what_is_traced_has_to_be_one_number(number, got):
    with pytest.raises(ValueError, match=f"gamma must be a number, got {got}"):
        jax.jit(losses.focal_cross_entropy)(LOGITS, LABELS, number)
