"""Problems for the allocation tests, and independent solutions of them in float64."""

import contextlib
from functools import partial

import jax
import numpy as np
import ot
from jax.sharding import PartitionSpec

from dsink_jax import dsink_loss, surrogate_labels
from experiments.scaling import distributing

SIZES = [(1, 2), (16, 3), (128, 10), (128, 100), (1000, 100)]
SCALES = [1, 5, 12]
NUM_DEVICES = 8

solve = jax.jit(surrogate_labels, static_argnames=("max_iterations", "axis_name"))


@partial(jax.jit, static_argnames=("axis_name", "distribute"))
def loss_and_gradient(
    logits, noise_robust_logits, imbalance_robust_logits, where=None, axis_name=None, distribute=None
):
    def total(logits):
        losses = dsink_loss(
            logits, noise_robust_logits, imbalance_robust_logits, where=where, axis_name=axis_name
        )
        return losses.sum(), losses

    with contextlib.nullcontext() if distribute is None else distributing(distribute):
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


# A batch of 32 over the devices.

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


MAPPINGS = [by_pmap, by_shard_map, by_vmap]
