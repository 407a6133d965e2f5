"""A small batch, and what each method makes of it, in float64 by the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.methods import (
    Batch,
    CrossEntropy,
    DSink,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    MethodOptions,
    Networks,
    TrainingFacts,
    Weighting,
    build_method,
)

CLASSES = 3
EXAMPLES = 8
FACTS = TrainingFacts(
    CLASSES,
    observed_counts=(50, 30, 20),
    clean_counts=(70, 20, 10),
    epochs=20,
    transition_matrix=((0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.0, 0.3, 0.7)),
)
# What a person has to decide.
TOLD = {
    "coteaching_noise_rate": 0.4,
    "ot_reweighting_meta_per_class": 2,
    "ot_reweighting_meta_labels": "observed",
}
BASES = {
    "cross_entropy": CrossEntropy(),
    "logit_adjustment": LogitAdjustment((0.5, 0.3, 0.2)),
    "gce": GeneralizedCrossEntropy(0.7),
    "elr": EarlyLearningRegularization(3.0, 0.7),
}


def build(name, facts=FACTS, **options):
    """The method called `name`, told what it must be told."""
    return build_method(name, facts, MethodOptions(**(TOLD | options)))


def rows(seed, scale=2.0, count=EXAMPLES):
    return np.random.default_rng(seed).normal(0, scale, (count, CLASSES)).astype(np.float32)


LOGITS, NOISE_ROBUST, IMBALANCE_ROBUST = rows(0), rows(1), rows(2)
LABELS = np.array([0, 1, 2, 0, 0, 1, 2, 1], np.int32)


def batch(where=None):
    return Batch(
        images=jnp.zeros((EXAMPLES, 2, 2, 1)),
        labels=jnp.asarray(LABELS),
        where=jnp.ones(EXAMPLES, bool) if where is None else jnp.asarray(where),
        noise_robust_logits=jnp.asarray(NOISE_ROBUST),
        imbalance_robust_logits=jnp.asarray(IMBALANCE_ROBUST),
    )


def full_batch(seed=10):
    """A batch with all a method may ask for: distinct images, a second view, two meta images a class."""
    rng = np.random.default_rng(seed)
    images, second, meta = (rng.normal(size=(n, 2, 2, 1)).astype(np.float32) for n in (EXAMPLES, EXAMPLES, 6))
    return batch()._replace(
        images=jnp.asarray(images),
        second_view=jnp.asarray(second),
        meta_images=jnp.asarray(meta),
        meta_labels=jnp.asarray(np.repeat(np.arange(CLASSES), 2), jnp.int32),
    )


def linear_networks(count=1, seed=20):
    """Networks that are one matrix each: logits are pixels times the matrix, features other combinations."""
    rng = np.random.default_rng(seed)
    kernels = rng.normal(size=(count, 4, CLASSES)).astype(np.float32)
    feature_kernel = rng.normal(size=(4, 5)).astype(np.float32)

    def logits(images):
        all_logits = jnp.einsum("md,kdc->kmc", images.reshape(len(images), -1), kernels)
        return all_logits[0] if count == 1 else all_logits

    def features(images):
        return images.reshape(len(images), -1) @ feature_kernel

    return Networks(logits, features)


def prepared(method, batch, state=None, key=0, epoch=5.0, axis_name=None):
    """The batch after `prepare` with linear networks."""
    state = method.init(EXAMPLES, CLASSES) if state is None else state
    batch = batch._replace(shared_state=method.init_shared(CLASSES))
    networks = linear_networks(method.networks)
    return method.prepare(
        batch, state, networks, jax.random.key(key), epoch=jnp.float32(epoch), axis_name=axis_name
    )


def loss_of(method, logits=LOGITS, state=None, epoch=0.0, where=None):
    state = method.init(EXAMPLES, CLASSES) if state is None else state
    return method.loss(jnp.asarray(logits), batch(where), state, epoch=jnp.float32(epoch), axis_name=None)


evaluate = jax.jit(loss_of, static_argnames=("method", "where"))


# The same quantities in float64, by their definitions.


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def cross_entropy(logits, labels=LABELS):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def divergence(labels, logits):
    return (labels * (np.log(labels) - log_softmax(logits))).sum(-1)


def elr(logits, targets, momentum=0.7, weight=3.0):
    probabilities = np.clip(softmax(logits), 1e-4, 1 - 1e-4)
    normalised = probabilities / probabilities.sum(-1, keepdims=True)
    targets = momentum * targets + (1 - momentum) * normalised
    return targets, cross_entropy(logits) + weight * np.log(1 - (targets * probabilities).sum(-1))


def base_values(name):
    """Loss of each example under the base method called `name`, in its first epoch."""
    return {
        "cross_entropy": lambda: cross_entropy(LOGITS),
        "logit_adjustment": lambda: cross_entropy(LOGITS + np.log([0.5, 0.3, 0.2])),
        "gce": lambda: (1 - np.exp(-cross_entropy(LOGITS)) ** 0.7) / 0.7,
        "elr": lambda: elr(LOGITS, np.zeros((EXAMPLES, CLASSES)))[1],
    }[name]()


@functools.cache
def surrogate_labels(where=(True,) * EXAMPLES):
    """Q by a plain Sinkhorn iteration on the kernel sqrt(f_N f), rows of the valid examples."""
    where = np.array(where)
    return allocation(LOGITS[where], NOISE_ROBUST[where], IMBALANCE_ROBUST[where])


def allocation(logits, noise_robust=NOISE_ROBUST, imbalance_robust=IMBALANCE_ROBUST):
    """Q of a batch of predictions."""
    kernel = np.sqrt(softmax(noise_robust) * softmax(logits))
    marginal = softmax(imbalance_robust).mean(0)
    scale = np.ones(len(kernel))
    for _ in range(2_000):
        of_class = marginal / (kernel.T @ scale)
        scale = 1 / len(kernel) / (kernel @ of_class)
    labels = len(kernel) * scale[:, None] * kernel * of_class
    np.testing.assert_allclose(labels.mean(0), marginal, rtol=1e-10)
    return labels


def dsink_values(where=(True,) * EXAMPLES):
    """The D-SINK loss by its definition, 0 for padding."""
    values = np.zeros(EXAMPLES)
    values[list(where)] = divergence(surrogate_labels(where), LOGITS[list(where)])
    return values


@functools.partial(jax.jit, static_argnames=("base", "loss_scale", "warmup", "ramp"))
def dsink(alpha, epoch=0.0, *, base=BASES["cross_entropy"], loss_scale="sum", warmup=0, ramp=0):
    """What D-SINK's `loss` returns; the strength is traced, so that few problems are compiled."""
    return loss_of(DSink(base, Weighting(alpha, warmup, ramp, loss_scale)), epoch=epoch)
