"""Q under jit, vmap, grad and over several devices."""

import logging
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allocation_references import (
    MAPPINGS,
    NUM_DEVICES,
    VALID_ROWS,
    by_pmap,
    draw_problem,
    loss_and_gradient,
    solve,
)
from dsink_jax import class_marginal, surrogate_labels

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
    problem = draw_problem(6, 4, scale=1)
    weights = np.random.default_rng(5).standard_normal((6, 4)).astype(np.float32)

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


@pytest.mark.slow
@pytest.mark.parametrize("mapping", MAPPINGS)
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
