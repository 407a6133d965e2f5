"""Q of a batch that stays split over the devices, against the gathered solve and against POT."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from allocation_references import (
    MAPPINGS,
    NUM_DEVICES,
    VALID_ROWS,
    by_pmap,
    draw_problem,
    log_softmax,
    loss_and_gradient,
    pot_labels,
    solve,
)
from dsink_jax import allocation as allocation_module
from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.methods import Batch, DSink
from experiments import scaling

SPLIT = PartitionSpec("batch")


def distributed(*arrays, **options):
    with scaling.distributing(True):
        return surrogate_labels(*arrays, axis_name="batch", **options)


def solve_by(mapping, logits, noise_robust, marginal, **options):
    """The distributed solution, its labels put together and checked for what all devices must agree on."""
    solution = jax.device_get(
        mapping(lambda z, n: distributed(z, n, jnp.asarray(marginal), **options), logits, noise_robust)
    )
    for value in (solution.marginal_error, solution.iterations, solution.converged):
        assert value.shape == (NUM_DEVICES,)
        np.testing.assert_array_equal(value, np.full(NUM_DEVICES, value[0]))
    rest = (value[0] for value in solution[1:])
    return type(solution)(solution.labels.reshape(logits.shape), *rest)


def assert_same(got, expected):
    np.testing.assert_allclose(got.labels, expected.labels, rtol=0, atol=2e-6)
    np.testing.assert_allclose(got.marginal_error, expected.marginal_error, rtol=0, atol=5e-7)
    assert got.iterations == expected.iterations
    assert got.converged == expected.converged


# The same problem, solved where the rows are.


@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize(("num_examples", "num_classes"), [(8, 2), (64, 10), (256, 100)])
def test_distributed_labels_are_pots(num_examples, num_classes, scale):
    problem = draw_problem(num_examples, num_classes, scale)
    got = solve_by(by_pmap, *problem)
    assert got.converged
    assert_same(got, solve(*problem))
    # What the stopping rule leaves is larger where classes are many: see tests of the solution.
    exact = solve_by(by_pmap, *problem, threshold=2e-7, max_iterations=3000)
    np.testing.assert_allclose(exact.labels, pot_labels(*problem), rtol=0, atol=2e-5)


@pytest.mark.parametrize("max_iterations", [1, 10, 25])
def test_it_stops_where_the_gathered_solve_stops(max_iterations):
    problem = draw_problem(64, 10, scale=12)
    got = solve_by(by_pmap, *problem, max_iterations=max_iterations)
    assert not got.converged
    assert_same(got, solve(*problem, max_iterations=max_iterations))
    np.testing.assert_allclose(got.labels.sum(1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_padding_and_gradient(mapping):
    logits, noise_robust, _ = draw_problem(32, 5, scale=3)
    imbalance_robust, _, _ = draw_problem(32, 5, scale=3, seed=1)
    where = (np.arange(4) < VALID_ROWS[:, None]).reshape(32)  # each device another number of rows, one none
    for array in (logits, noise_robust, imbalance_robust):
        array[~where] = np.nan

    def on_a_device(logits, noise_robust, imbalance_robust, where):
        marginal = class_marginal(imbalance_robust, where=where, axis_name="batch")
        allocation = distributed(logits, noise_robust, marginal, where=where)
        return allocation, loss_and_gradient(
            logits, noise_robust, imbalance_robust, where, axis_name="batch", distribute=True
        )

    split = jax.device_get(mapping(on_a_device, logits, noise_robust, imbalance_robust, where))
    allocation, (losses, gradient) = split
    labels = allocation.labels.reshape(32, 5)
    expected = solve(logits, noise_robust, class_marginal(imbalance_robust, where=where), where=where)
    np.testing.assert_allclose(labels, expected.labels, rtol=0, atol=1e-6)
    for got, value in zip(allocation[1:], expected[1:], strict=True):
        np.testing.assert_allclose(got, np.full(NUM_DEVICES, value), rtol=0, atol=5e-7)
    np.testing.assert_array_equal(labels[~where], 0)
    # sum_i KL(q_i || softmax(z_i)) has the gradient softmax(z_i) - q_i, and none in padding.
    expected_gradient = np.where(where[:, None], np.exp(log_softmax(np.nan_to_num(logits))) - labels, 0)
    np.testing.assert_allclose(gradient.reshape(32, 5), expected_gradient, rtol=0, atol=2e-6)
    expected_losses, _ = loss_and_gradient(logits, noise_robust, imbalance_robust, where)
    np.testing.assert_allclose(losses.reshape(32), expected_losses, rtol=0, atol=2e-6)


def test_problems_side_by_side_stop_each_where_it_would_alone():
    problems = [draw_problem(16, 3, scale, seed) for seed, scale in enumerate((0.5, 10))]
    logits, noise_robust, marginals = (np.stack(arrays, 1) for arrays in zip(*problems, strict=True))

    def on_a_device(logits, noise_robust):
        return jax.vmap(distributed, in_axes=(1, 1, 1))(logits, noise_robust, marginals)

    got = jax.device_get(by_pmap(on_a_device, logits, noise_robust))
    assert len(set(got.iterations[0].tolist())) == 2
    for index, problem in enumerate(problems):
        alone = solve(*problem)
        np.testing.assert_allclose(got.labels[:, index].reshape(16, 3), alone.labels, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(got.iterations[:, index], np.full(NUM_DEVICES, alone.iterations))


# Degenerate problems.


def test_class_without_marginal_gets_nothing():
    logits, noise_robust, _ = draw_problem(16, 4, scale=2)
    marginal = np.float32([0.5, 0.0, 0.3, 0.2])
    got = solve_by(by_pmap, logits, noise_robust, marginal)
    assert_same(got, solve(logits, noise_robust, marginal))
    np.testing.assert_array_equal(got.labels[:, 1], 0)
    assert got.converged


def test_class_that_only_one_device_allows():
    logits, noise_robust, marginal = draw_problem(16, 4, scale=2)
    marginal = np.float32([0.05, 0.35, 0.3, 0.3])
    logits[:14, 0] = -np.inf  # the last device alone can give class 0 its mass
    got = solve_by(by_pmap, logits, noise_robust, marginal)
    assert_same(got, solve(logits, noise_robust, marginal))
    np.testing.assert_array_equal(got.labels[:14, 0], 0)
    assert got.converged


@pytest.mark.parametrize("row", [0, 9, 15])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_on_one_device_makes_every_label_nan(row, bad):
    logits, noise_robust, marginal = draw_problem(16, 3, scale=1)
    logits[row, 1] = bad
    got = solve_by(by_pmap, logits, noise_robust, marginal)
    assert np.isnan(got.labels).all()
    assert np.isnan(got.marginal_error)
    assert not got.converged
    assert got.iterations == solve(logits, noise_robust, marginal).iterations == 10


@pytest.mark.parametrize("marginal", [[0.0, 0.0, 0.0], [np.nan, 0.5, 0.5], [-0.1, 0.6, 0.5]], ids=str)
def test_invalid_marginal_makes_every_label_nan(marginal):
    logits, noise_robust, _ = draw_problem(16, 3, scale=1)
    got = solve_by(by_pmap, logits, noise_robust, np.float32(marginal))
    assert np.isnan(got.labels).all()
    assert not got.converged


def test_without_an_axis_there_is_nothing_to_distribute():
    problem = draw_problem(16, 3, scale=2)
    expected = surrogate_labels(*problem)
    for distribute in (True, False):
        with scaling.distributing(distribute):
            got = surrogate_labels(*problem)
        np.testing.assert_array_equal(got.labels, expected.labels)


# What the program of a device holds and sends.


def collectives_of(num_examples, num_classes):
    arrays = [jax.ShapeDtypeStruct((num_examples // NUM_DEVICES, num_classes), jnp.float32)] * 2
    marginal = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    function = partial(surrogate_labels, axis_name="batch")
    text = str(jax.make_jaxpr(function, axis_env=[("batch", NUM_DEVICES)])(*arrays, marginal))
    return {name for name in ("all_gather", "pmax", "psum") if f"{name}[" in text}


def test_the_size_of_the_whole_decides():
    rows = allocation_module.DISTRIBUTE_FROM // 1024
    assert collectives_of(rows, 1024) == {"pmax", "psum"}
    assert collectives_of(rows - NUM_DEVICES, 1024) == {"all_gather"}
    assert collectives_of(16, 3) == {"all_gather"}


def mesh_of_devices():
    return Mesh(np.array(jax.devices("cpu")[:NUM_DEVICES]), ("batch",))


def compiled(function, num_arrays, num_examples, num_classes):
    """`function` of logits `[N, C]` and a mask, split over the devices, compiled for those shapes."""
    mapped = jax.shard_map(
        lambda *shards: jax.tree.map(lambda leaf: leaf if leaf.ndim else leaf[None], function(*shards)),
        mesh=mesh_of_devices(),
        in_specs=(SPLIT,) * (num_arrays + 1),
        out_specs=SPLIT,
        check_vma=False,
    )
    logits = jax.ShapeDtypeStruct((num_examples, num_classes), jnp.float32)
    where = jax.ShapeDtypeStruct((num_examples,), bool)
    return jax.jit(mapped).lower(*[logits] * num_arrays, where).compile()


def loss_on_a_device(distribute, *arrays):
    return loss_and_gradient(*arrays, axis_name="batch", distribute=distribute)


def term_on_a_device(logits, noise_robust, imbalance_robust, where):
    labels = jnp.zeros(len(where), jnp.int32)
    batch = Batch(logits, labels, where, noise_robust, imbalance_robust)

    def total(logits):
        values, metrics, _ = DSink().values(logits, batch, "batch")
        return values.sum(), (values, metrics)

    (_, (values, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return values, gradient, metrics


def largest_array(text):
    """Size of the largest array in the text of a compiled program, 1 if there is none but scalars."""
    shapes = re.findall(r"(?:f16|bf16|f32|f64|pred|[su]\d+)\[([\d,]+)\]", text)
    return max((math.prod(map(int, shape.split(","))) for shape in shapes), default=1)


@pytest.mark.parametrize(
    ("function", "num_examples", "num_classes"),
    [
        (partial(loss_on_a_device, True), 128, 48),
        (term_on_a_device, 4096, 1024),  # as the size decides
    ],
    ids=["loss", "term"],
)
def test_no_device_holds_the_whole(function, num_examples, num_classes):
    text = compiled(function, 3, num_examples, num_classes).as_text()
    assert largest_array(text) == num_examples // NUM_DEVICES * num_classes
    assert "all-gather" not in text
    # A maximum and a sum in the half step, the same in the error, and once: counts, class marginal, error.
    assert 4 < len(re.findall(r" all-reduce(?:-start)?\(", text)) <= 8


def test_every_device_holds_the_whole_if_gathered():
    text = compiled(partial(loss_on_a_device, False), 3, 128, 48).as_text()
    assert largest_array(text) == 128 * 48
    assert "all-gather" in text


# `jit` over arrays sharded by rows: no axis is named, and the compiler splits the solve.


def collectives_in(text):
    """The collectives of a compiled program, with the size of the largest array that each gives."""
    names = r"all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
    found = re.findall(rf"= (.*) ({names})(?:-start)?\(", text)
    return [(name, largest_array(shapes)) for shapes, name in found]


@pytest.mark.parametrize("scale", [1, 12])
def test_jit_of_sharded_rows_exchanges_no_more_than_the_classes(scale):
    logits, noise_robust, marginal = draw_problem(64, 10, scale)
    rows = NamedSharding(mesh_of_devices(), SPLIT)
    sharded = jax.device_put((logits, noise_robust), rows)
    found = collectives_in(solve.lower(*sharded, marginal).compile().as_text())
    assert {name for name, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) == 10
    got, expected = solve(*sharded, marginal), solve(logits, noise_robust, marginal)
    np.testing.assert_allclose(got.labels, expected.labels, rtol=0, atol=1e-5)
    assert got.iterations == expected.iterations
    assert got.labels.sharding.is_equivalent_to(rows, 2)


def test_jit_of_ten_thousand_classes_needs_no_more_memory():
    setting = scaling.Setting("", 0, 10_000, 8192, NUM_DEVICES)
    rows = NamedSharding(mesh_of_devices(), SPLIT)
    array = jax.ShapeDtypeStruct((setting.batch, setting.classes), jnp.float32, sharding=rows)
    where = jax.ShapeDtypeStruct((setting.batch,), bool, sharding=rows)
    program = loss_and_gradient.lower(array, array, array, where).compile()
    found = collectives_in(program.as_text())
    assert {name for name, _ in found} == {"all-reduce"}
    assert max(size for _, size in found) == setting.classes
    model = scaling.cost_per_step(setting, distribute=True).memory_bytes
    assert scaling.compiled_bytes(program) == pytest.approx(model, rel=0.1)


@pytest.mark.slow
def test_memory_of_ten_thousand_classes_is_the_models(cpus):
    setting = scaling.Setting("", 0, 10_000, 8192, NUM_DEVICES)
    found = scaling.compiled_bytes(scaling.compiled_loss(setting, cpus, distribute=True))
    model = scaling.cost_per_step(setting, distribute=True).memory_bytes
    assert found == pytest.approx(model, rel=0.1)
    assert found < 0.4 * scaling.cost_per_step(setting, distribute=False).memory_bytes


@pytest.mark.slow
def test_ten_thousand_classes():
    # Gathered, each device would hold 0.9 GB; see docs/scaling.md.
    num_examples, num_classes, rows = 8192, 10_000, 1024

    @partial(jax.pmap, axis_name="batch", devices=jax.devices("cpu")[:NUM_DEVICES], in_axes=(0, None))
    def run(device, key):
        base, *noise = jax.random.normal(jax.random.fold_in(key, device), (3, rows, num_classes))
        target, noise_robust = (3 * base + 0.6 * each for each in noise)
        tail = jnp.linspace(0, np.log(100), num_classes)
        marginal = class_marginal(3 * base - tail, axis_name="batch")
        allocation = surrogate_labels(target, noise_robust, marginal, axis_name="batch", max_iterations=20)
        return allocation._replace(labels=allocation.labels.sum(1)), allocation.labels.sum(0), marginal

    allocation, sums, marginal = jax.device_get(run(np.arange(NUM_DEVICES), jax.random.key(0)))
    np.testing.assert_allclose(allocation.labels, 1, rtol=0, atol=1e-5)
    error = np.abs(sums.sum(0, dtype=np.float64) / num_examples - marginal[0]).sum()
    np.testing.assert_allclose(allocation.marginal_error, np.full(NUM_DEVICES, error), rtol=0, atol=2e-6)
    assert error < 0.1
    np.testing.assert_array_equal(allocation.iterations, np.full(NUM_DEVICES, allocation.iterations[0]))
