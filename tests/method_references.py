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
    TrainingFacts,
    Weighting,
)

CLASSES = 3
EXAMPLES = 8
FACTS = TrainingFacts(CLASSES, observed_counts=(50, 30, 20), clean_counts=(70, 20, 10))
BASES = {
    "cross_entropy": CrossEntropy(),
    "logit_adjustment": LogitAdjustment((0.5, 0.3, 0.2)),
    "gce": GeneralizedCrossEntropy(0.7),
    "elr": EarlyLearningRegularization(3.0, 0.7),
}


def rows(seed, scale=2.0):
    return np.random.default_rng(seed).normal(0, scale, (EXAMPLES, CLASSES)).astype(np.float32)


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


def cross_entropy(logits):
    return -log_softmax(logits)[np.arange(EXAMPLES), LABELS]


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
    kernel = np.sqrt(softmax(NOISE_ROBUST[where]) * softmax(LOGITS[where]))
    marginal = softmax(IMBALANCE_ROBUST[where]).mean(0)
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
