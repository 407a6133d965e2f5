"""Surrogate labels of several labels an example, against Brent's method, POT and the single-label solver."""

import re
from functools import partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from allocation_references import MAPPINGS, NUM_DEVICES, VALID_ROWS, by_pmap, by_shard_map
from dsink_jax import multilabel_class_marginal, multilabel_surrogate_labels, surrogate_labels
from multilabel_references import (
    counted_labels,
    draw_problem,
    pot_labels,
    reference_labels,
    shifted_marginal,
)

solve = jax.jit(multilabel_surrogate_labels, static_argnames=("max_iterations", "axis_name"))


def assert_close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(np.float64(got), expected, rtol=0, atol=tolerance)


# The solution.


@pytest.mark.parametrize("scale", [0.3, 3, 12])
@pytest.mark.parametrize(("num_examples", "num_labels"), [(1, 2), (16, 3), (256, 20), (1000, 50)])
def test_labels_are_brents(num_examples, num_labels, scale):
    logits, noise_robust, _, marginal = draw_problem(num_examples, num_labels, scale)
    got = solve(logits, noise_robust, marginal)
    assert got.converged and got.iterations <= 10
    assert_close(got.labels, reference_labels(logits, noise_robust, marginal))
    assert got.labels.dtype == got.marginal_error.dtype == np.float32
    error = np.abs(np.float64(got.labels).mean(0) - marginal).max()
    assert_close(got.marginal_error, error, 1e-6)
    assert error < 2e-6


@pytest.mark.parametrize("scale", [1, 5])
def test_labels_are_pots(scale):
    logits, noise_robust, _, marginal = draw_problem(64, 8, scale)
    assert_close(solve(logits, noise_robust, marginal).labels, pot_labels(logits, noise_robust, marginal))


@pytest.mark.parametrize("scale", [1, 5])
def test_two_exclusive_classes_are_the_single_label_problem(scale):
    rng = np.random.default_rng(3)
    logits, noise_robust = (scale * rng.standard_normal((2, 64, 2))).astype(np.float32)
    marginal = jnp.array([0.2, 0.8])
    expected = jax.jit(surrogate_labels)(logits, noise_robust, marginal, threshold=2e-7)
    differences = (array[:, :1] - array[:, 1:] for array in (logits, noise_robust))
    assert_close(solve(*differences, jnp.array([0.2])).labels, expected.labels[:, :1])


def test_marginal_is_the_mean_of_sigmoids():
    _, _, imbalance_robust, marginal = draw_problem(64, 8, 3)
    assert_close(multilabel_class_marginal(imbalance_robust), marginal, 1e-6)
    where = np.arange(64) < 40
    imbalance_robust[40:] = np.nan
    expected = multilabel_class_marginal(imbalance_robust[:40])
    np.testing.assert_allclose(multilabel_class_marginal(imbalance_robust, where=where), expected, rtol=1e-6)


@pytest.mark.parametrize("marginal", [1e-6, 1e-3, 0.999, 1 - 1e-6])
def test_very_rare_and_very_common_labels(marginal):
    logits, noise_robust, _, _ = draw_problem(200, 3, 3)
    marginal = np.full(3, marginal, np.float32)
    got = solve(logits, noise_robust, marginal)
    assert got.converged
    expected = reference_labels(logits, noise_robust, marginal)
    # Small labels are known to float32's digits.
    np.testing.assert_allclose(got.labels, expected, rtol=1e-4, atol=1e-12)


# Known numbers of labels.


@pytest.mark.parametrize("scale", [1, 4])
def test_labels_with_counts_are_those_of_alternating_brents(scale):
    logits, noise_robust, _, marginal = draw_problem(64, 6, scale)
    counts = np.random.default_rng(1).integers(0, 5, 64)
    counts[:2] = 6, 0
    got = solve(logits, noise_robust, marginal, label_counts=counts)
    assert got.converged
    assert_close(got.labels, counted_labels(logits, noise_robust, marginal, counts), 2e-5)
    assert_close(got.labels.sum(1), counts)
    expected = shifted_marginal(marginal, counts.mean())
    assert_close(got.labels.mean(0), expected)
    assert_close(got.marginal_error, np.abs(np.float64(got.labels).mean(0) - expected).max(), 1e-6)


def test_counts_need_not_be_whole():
    logits, noise_robust, _, marginal = draw_problem(32, 4, 2)
    counts = np.linspace(0.1, 3.5, 32).astype(np.float32)
    got = solve(logits, noise_robust, marginal, label_counts=counts)
    assert got.converged
    assert_close(got.labels, counted_labels(logits, noise_robust, marginal, counts), 2e-5)


def test_counts_of_one_are_rows_that_sum_to_one():
    logits, noise_robust, _, marginal = draw_problem(32, 4, 2)
    got = solve(logits, noise_robust, marginal / marginal.sum(), label_counts=np.ones(32, np.float32))
    assert_close(got.labels.sum(1), 1)
    assert_close(got.labels.mean(0), marginal / marginal.sum())


def test_counts_leave_certain_labels():
    logits, noise_robust, _, _ = draw_problem(32, 4, 2)
    marginal = np.float32([0, 1, 0.3, 0.2])
    got = solve(logits, noise_robust, marginal, label_counts=np.full(32, 1.5, np.float32))
    assert got.converged
    np.testing.assert_array_equal(got.labels[:, 0], 0)
    np.testing.assert_array_equal(got.labels[:, 1], 1)
    assert_close(got.labels.sum(1), 1.5)


def test_counts_that_cannot_be_are_not_converged():
    logits, noise_robust, _, _ = draw_problem(32, 4, 2)
    got = solve(logits, noise_robust, np.float32([1, 1, 0.3, 0.2]), label_counts=np.ones(32, np.float32))
    assert not got.converged


@pytest.mark.parametrize("count", [-1.0, 5.0, np.nan])
def test_a_count_out_of_range_makes_every_label_nan(count):
    logits, noise_robust, _, marginal = draw_problem(32, 4, 2)
    counts = np.ones(32, np.float32)
    counts[3] = count
    got = solve(logits, noise_robust, marginal, label_counts=counts)
    assert np.isnan(got.labels).all() and not got.converged
    padded = solve(logits, noise_robust, marginal, label_counts=counts, where=np.arange(32) != 3)
    assert np.isfinite(padded.labels).all() and padded.converged


# Edges.


def test_certain_labels_are_exact():
    logits, noise_robust, _, marginal = draw_problem(16, 4, 3)
    marginal[:2] = 0, 1
    got = solve(logits, noise_robust, marginal)
    assert got.converged
    np.testing.assert_array_equal(got.labels[:, 0], 0)
    np.testing.assert_array_equal(got.labels[:, 1], 1)
    expected = reference_labels(logits[:, 2:], noise_robust[:, 2:], marginal[2:])
    assert_close(got.labels[:, 2:], expected)


@pytest.mark.parametrize("scale", [100, 1e4])
def test_huge_logits(scale):
    logits, noise_robust, _, marginal = draw_problem(200, 6, scale)
    got = solve(logits, noise_robust, marginal)
    assert got.converged
    assert_close(got.labels, reference_labels(logits, noise_robust, marginal), 1e-4)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_shift_of_all_logits_changes_nothing(offset):
    logits, noise_robust, _, marginal = draw_problem(200, 6, 2)
    # In sixteenths, so that the shift is no rounding.
    logits, noise_robust = (np.round(16 * array) / 16 for array in (logits, noise_robust))
    got = solve(logits + np.float32(offset), noise_robust + np.float32(offset), marginal)
    assert got.converged
    assert_close(got.labels, reference_labels(logits, noise_robust, marginal))


@pytest.mark.parametrize("bad", [np.nan, "infinities"])
def test_a_bad_row_makes_every_label_nan_unless_it_is_padding(bad):
    logits, noise_robust, _, marginal = draw_problem(32, 4, 3)
    where = np.arange(32) != 5
    expected = solve(logits[where], noise_robust[where], marginal)
    logits[5, 2], noise_robust[5, 2] = (np.inf, -np.inf) if bad == "infinities" else (bad, 0)
    for options in ({}, {"label_counts": np.ones(32, np.float32)}):
        got = solve(logits, noise_robust, marginal, **options)
        assert np.isnan(got.labels).all() and np.isnan(got.marginal_error) and not got.converged
    got = solve(logits, noise_robust, marginal, where=where)
    assert_close(got.labels[where], expected.labels)
    np.testing.assert_array_equal(got.labels[~where], 0)
    assert_close(got.marginal_error, expected.marginal_error, 1e-6)


def test_infinite_logits_are_certain_labels():
    logits, noise_robust, _, _ = draw_problem(16, 2, 1)
    marginal = np.float32([0.5, 0.5])
    logits[0, 0], noise_robust[1, 0] = np.inf, -np.inf
    got = solve(logits, noise_robust, marginal)
    assert got.converged
    np.testing.assert_array_equal(got.labels[:2, 0], [1, 0])
    logits[:12, 1] = -np.inf  # no more than a quarter can be had
    got = solve(logits, noise_robust, marginal)
    assert not got.converged
    assert_close(got.labels[:, 1], np.arange(16) >= 12)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_an_invalid_marginal_makes_every_label_nan(bad):
    logits, noise_robust, _, marginal = draw_problem(32, 4, 3)
    marginal[1] = bad
    for options in ({}, {"label_counts": np.ones(32, np.float32)}):
        got = solve(logits, noise_robust, marginal, **options)
        assert np.isnan(got.labels).all() and not got.converged


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_float32_inside_whatever_comes_in(dtype):
    logits, noise_robust, _, marginal = (jnp.asarray(array, dtype) for array in draw_problem(64, 4, 3))
    got = solve(logits, noise_robust, marginal)
    arrays = [np.asarray(array, np.float32) for array in (logits, noise_robust, marginal)]
    np.testing.assert_array_equal(got.labels, solve(*arrays).labels)


def test_it_stops_at_the_limit():
    logits, noise_robust, _, marginal = draw_problem(256, 20, 12)
    got = solve(logits, noise_robust, marginal, max_iterations=1)
    assert got.iterations == 1 and not got.converged


def test_no_gradient_and_several_at_once():
    problems = [draw_problem(16, 3, scale) for scale in (1, 5)]
    logits, noise_robust, _, marginal = (np.stack(arrays) for arrays in zip(*problems, strict=True))
    got = jax.jit(jax.vmap(multilabel_surrogate_labels))(logits, noise_robust, marginal)
    for labels, problem in zip(got.labels, problems, strict=True):
        assert_close(labels, solve(problem[0], problem[1], problem[3]).labels, 2e-6)
    gradient = jax.grad(lambda *arrays: solve(*arrays).labels.sum(), argnums=(0, 1, 2))
    for array in gradient(logits[0], noise_robust[0], marginal[0]):
        np.testing.assert_array_equal(array, 0)


# Over devices.


def marginal_and_labels(logits, noise_robust, imbalance_robust, where, counts, *, counted, axis_name=None):
    options = {"where": where, "axis_name": axis_name}
    marginal = multilabel_class_marginal(imbalance_robust, **options)
    counts = counts if counted else None
    return marginal, multilabel_surrogate_labels(
        logits, noise_robust, marginal, label_counts=counts, **options
    )


on_one_device = jax.jit(marginal_and_labels, static_argnames="counted")


@pytest.mark.parametrize(
    ("mapping", "counted"),
    [
        *((mapping, False) for mapping in MAPPINGS),
        *(
            pytest.param(mapping, True, marks=pytest.mark.slow)
            for mapping in MAPPINGS
            if mapping is not by_shard_map
        ),
        (by_shard_map, True),
    ],
)
def test_eight_devices_are_one(mapping, counted):
    logits, noise_robust, imbalance_robust, _ = draw_problem(32, 5, 3)
    where = (np.arange(4) < VALID_ROWS[:, None]).reshape(32)  # each device another number of rows, one none
    for array in (logits, noise_robust, imbalance_robust):
        array[~where] = np.nan
    arrays = (logits, noise_robust, imbalance_robust, where, np.random.default_rng(2).integers(1, 4, 32))
    on_a_device = partial(marginal_and_labels, counted=counted, axis_name="batch")
    marginal, got = jax.device_get(mapping(on_a_device, *arrays))
    expected_marginal, expected = on_one_device(*arrays, counted=counted)
    assert_close(marginal, np.tile(expected_marginal, (NUM_DEVICES, 1)), 1e-6)
    assert_close(got.labels.reshape(32, 5), expected.labels)
    assert got.converged.all() and expected.converged
    for value in got[1:]:
        np.testing.assert_array_equal(value, np.full(NUM_DEVICES, value[0]))
    np.testing.assert_array_equal(got.labels.reshape(32, 5)[~where], 0)


def test_nan_on_one_device_reaches_all():
    logits, noise_robust, _, marginal = draw_problem(32, 5, 3)
    logits[9, 1] = np.nan
    got = by_pmap(
        lambda z, n: multilabel_surrogate_labels(z, n, jnp.asarray(marginal), axis_name="batch"),
        logits,
        noise_robust,
    )
    assert np.isnan(got.labels).all() and not got.converged.any()


def test_devices_exchange_no_more_than_the_labels():
    logits, noise_robust, _, marginal = draw_problem(128, 6, 3)

    def on_devices(logits, noise_robust):
        solve_here = partial(multilabel_surrogate_labels, class_marginal=marginal, axis_name="batch")
        return by_shard_map(solve_here, logits, noise_robust)

    text = jax.jit(on_devices).lower(logits, noise_robust).compile().as_text()
    found = re.findall(r"= (.*) (all-gather|all-reduce|all-to-all|collective-\w+)(?:-start)?\(", text)
    assert {name for _, name in found} == {"all-reduce"}
    for shapes, _ in found:
        assert set(re.findall(r"\[([\d,]*)\]", shapes)) <= {"6", ""}


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_jit_of_sharded_rows_is_one_batch(kind, counted):
    logits, noise_robust, _, marginal = draw_problem(32, 4, 3)
    where = np.arange(32) < 29
    counts = np.ones(32, np.float32) if counted else None
    expected = solve(logits, noise_robust, marginal, where=where, label_counts=counts)
    mesh = jax.make_mesh((NUM_DEVICES,), ("batch",), axis_types=(kind,), devices=jax.devices("cpu"))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    arrays = jax.device_put((logits, noise_robust, where, counts), rows)
    got = solve(*arrays[:2], marginal, where=arrays[2], label_counts=arrays[3])
    assert_close(got.labels, expected.labels, 2e-6)
    assert got.converged and got.iterations == expected.iterations


# Whatever comes in.

FLOATS = st.floats(width=32)
LOGITS = hnp.arrays(np.float32, (3, 4), elements=FLOATS | st.floats(-20, 20, width=32))


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    logits=LOGITS,
    noise_robust=LOGITS,
    marginal=hnp.arrays(np.float32, 4, elements=st.floats(0, 1, width=32) | FLOATS),
    where=hnp.arrays(bool, 3),
    counts=st.none() | hnp.arrays(np.float32, 3, elements=st.floats(0, 4, width=32)),
)
def test_labels_are_in_their_range_or_all_nan(logits, noise_robust, marginal, where, counts):
    got = solve(logits, noise_robust, marginal, where=where, label_counts=counts, max_iterations=50)
    labels = np.asarray(got.labels)
    if np.isnan(labels).any():
        assert np.isnan(labels).all() and not got.converged
        return
    assert (labels >= 0).all() and (labels <= 1).all()
    assert (labels[~where] == 0).all()
    assert (labels[np.ix_(where, marginal == 0)] == 0).all()
    assert (labels[np.ix_(where, marginal == 1)] == 1).all()
    if got.converged and where.any() and counts is None:
        assert_close(labels[where].mean(0), marginal, 5e-5)
    if got.converged and counts is not None:
        assert_close(labels[where].sum(1), counts[where], 1e-4)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    logits=hnp.arrays(np.float32, (7, 2), elements=st.floats(-30, 30, width=32)),
    noise_robust=hnp.arrays(np.float32, (7, 2), elements=st.floats(-30, 30, width=32)),
    marginal=hnp.arrays(np.float32, 2, elements=st.floats(2**-10, 1 - 2**-10, width=32)),
)
def test_any_labels_are_brents(logits, noise_robust, marginal):
    got = solve(logits, noise_robust, marginal)
    assert got.converged
    assert_close(got.labels, reference_labels(logits, noise_robust, marginal))
