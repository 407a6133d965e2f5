"""A small batch, what each method makes of it, and the same in float64 by the definitions; tiny trainings."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import RandomCrop
from dsink_jax.methods import Batch, Context, build_method, make_facts
from dsink_jax.methods.hooks import LooksAtTrainingSet, MakesInputs, Networks, UsesMetaSet
from dsink_jax.models import from_linen, several
from dsink_jax.models.layers import batch_norm, classifier_layer
from dsink_jax.training import DeviceData, OptimizerSettings, Standardization, TrainingSettings, train

CLASSES = 3
EXAMPLES = 8
MATRIX = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]])
FACTS = make_facts((50, 30, 20), 20, MATRIX)
PRIOR = np.array([0.5, 0.3, 0.2])
# What has no default of any meaning.
REQUIRED = {
    "coteaching": {"noise_rate": 0.4},
    "ot_reweighting": {"meta_per_class": 2, "meta_labels": "observed"},
}


def build(name, facts=FACTS, **options):
    """The method called `name`, with what it requires."""
    return build_method(name, REQUIRED.get(name, {}) | options, facts)


def facts_of(epochs, counts=(50, 30, 20)):
    return make_facts(counts, epochs)


def rows(seed, scale=2.0, count=EXAMPLES):
    return np.random.default_rng(seed).normal(0, scale, (count, CLASSES)).astype(np.float32)


LOGITS, NOISE_ROBUST, IMBALANCE_ROBUST = rows(0), rows(1), rows(2)
LABELS = np.array([0, 1, 2, 0, 0, 1, 2, 1], np.int32)


def full_batch(where=None, seed=10):
    """A batch with all a method may ask for: distinct inputs, a second view, two meta inputs a class."""
    rng = np.random.default_rng(seed)
    inputs, second, meta = (rng.normal(size=(n, 2, 2, 1)).astype(np.float32) for n in (EXAMPLES, EXAMPLES, 6))
    return Batch(
        inputs=jnp.asarray(inputs),
        labels=jnp.asarray(LABELS),
        where=jnp.ones(EXAMPLES, bool) if where is None else jnp.asarray(where),
        noise_robust_logits=jnp.asarray(NOISE_ROBUST),
        imbalance_robust_logits=jnp.asarray(IMBALANCE_ROBUST),
        second_view=jnp.asarray(second),
        meta_inputs=jnp.asarray(meta),
        meta_labels=jnp.asarray(np.repeat(np.arange(CLASSES), 2), jnp.int32),
    )


def context(method, epoch=5.0, *, facts=FACTS, shared=None, axis_name=None):
    """Where a training is; the shared state is that of its start, if none is given."""
    if shared is None:
        shared = method.init_shared(facts) if isinstance(method, LooksAtTrainingSet) else ()
    return Context(facts, jnp.float32(epoch), shared, axis_name)


def kernels(count=1, seed=20):
    """Of as many linear networks: `[count, 4, C]`."""
    return np.random.default_rng(seed).normal(size=(count, 4, CLASSES)).astype(np.float32)


def linear_networks(kernels):
    """Networks that are one matrix each: logits are pixels times the matrix, features other combinations."""
    feature_kernel = np.random.default_rng(21).normal(size=(4, 5)).astype(np.float32)
    count = len(kernels)

    def logits(inputs):
        each = inputs if isinstance(inputs, tuple) else (inputs,) * count
        outputs = [own.reshape(len(own), -1) @ kernel for own, kernel in zip(each, kernels, strict=True)]
        return outputs[0] if count == 1 else jnp.stack(outputs)

    def features(inputs):
        return inputs.reshape(len(inputs), -1) @ feature_kernel

    return Networks(logits, features)


def prepared(method, batch, state=None, key=0, epoch=5.0, axis_name=None, networks=None):
    """The batch after `prepare`, with linear networks."""
    if not isinstance(method, MakesInputs):
        return batch
    state = method.init(EXAMPLES, CLASSES) if state is None else state
    networks = networks or linear_networks(kernels(method.networks))
    now = context(method, epoch, axis_name=axis_name)
    return method.prepare(batch, state, networks, jax.random.key(key), now)


def loss_of(method, logits=LOGITS, state=None, epoch=0.0, batch=None, **known):
    """What `loss` returns for outputs of the networks."""
    state = method.init(EXAMPLES, CLASSES) if state is None else state
    batch = full_batch() if batch is None else batch
    return method.loss(jnp.asarray(logits), batch, state, context(method, epoch, **known))


def some_state(method, count=EXAMPLES, seed=3):
    """Per-example state in the middle of a training."""
    rng = np.random.default_rng(seed)
    empty = method.init(count, CLASSES)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(size=leaf.shape), leaf.dtype), empty)


def refreshes(method, epochs):
    """The epochs before which a method looks at the training set."""
    return [epoch for epoch in range(epochs) if method.refresh_before(epoch, facts_of(epochs))]


# Quantities in float64, by their definitions.


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


def allocation(logits, noise_robust=NOISE_ROBUST, imbalance_robust=IMBALANCE_ROBUST):
    """Q of a batch of predictions, by a plain Sinkhorn iteration on the kernel sqrt(f_N f)."""
    kernel = np.sqrt(softmax(noise_robust) * softmax(logits))
    marginal = softmax(imbalance_robust).mean(0)
    scale = np.ones(len(kernel))
    for _ in range(2_000):
        of_class = marginal / (kernel.T @ scale)
        scale = 1 / len(kernel) / (kernel @ of_class)
    labels = len(kernel) * scale[:, None] * kernel * of_class
    np.testing.assert_allclose(labels.mean(0), marginal, rtol=1e-10)
    return labels


# Trainings of a network so small that it compiles in a second.

TINY_CLASSES = 4
SGD = OptimizerSettings("sgd", 0.05, "cosine", 0.9, False, 5e-4)
STANDARDIZATION = Standardization(np.float32([0.3]), np.float32([4.0]))
META = 2  # inputs of each class


class TinyNetwork(nn.Module):
    classifier: str = "linear"

    @nn.compact
    def __call__(self, inputs, train, features_only=False):
        x = nn.Dense(12, use_bias=False)(inputs.reshape(len(inputs), -1))
        x = nn.relu(batch_norm(train, jnp.float32)()(x))
        return x if features_only else classifier_layer(self.classifier, TINY_CLASSES, jnp.float32)(x)


def tiny_model(method):
    """The network, or networks, that a method asks for."""
    return several(from_linen(TinyNetwork(method.classifier)), method.networks)


@functools.cache
def tiny_data(wrong=False):
    """60 uint8 inputs 4x4x1 in 4 classes, bright in one quarter each; every third label wrong, if wanted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, TINY_CLASSES, 60).astype(np.int32)
    inputs = rng.integers(0, 60, (60, 4, 4, 1))
    for i, label in enumerate(labels):
        row, column = divmod(int(label), 2)
        inputs[i, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 150
    if wrong:
        labels = np.where(np.arange(60) % 3 == 0, (labels + 1) % TINY_CLASSES, labels).astype(np.int32)
    return DeviceData(inputs.astype(np.uint8), labels)


def tiny_facts(epochs):
    return make_facts(np.bincount(tiny_data().labels), epochs)


def with_meta_set(data):
    """The data with the first inputs of each class as a meta set."""
    index = np.concatenate([np.flatnonzero(data.labels == c)[:META] for c in range(TINY_CLASSES)])
    return data._replace(meta_index=index.astype(np.int32), meta_labels=data.labels[index])


def with_auxiliaries(data):
    """The data with logits of two auxiliaries to be looked up."""
    first, second = np.random.default_rng(0).normal(0, 2, (2, 60, TINY_CLASSES)).astype(np.float32)
    return data._replace(noise_robust_logits=first, imbalance_robust_logits=second)


def tiny_training(
    method, devices, epochs=4, data=None, facts=None, *, optimizer=SGD, batch=16, augment=True, **options
):
    """A short training."""
    data = tiny_data() if data is None else data
    if isinstance(method, UsesMetaSet):
        data = with_meta_set(data)
    settings = TrainingSettings(
        epochs, batch, optimizer, RandomCrop(1) if augment else None, steps_per_dispatch=1
    )
    return train(
        tiny_model(method),
        method,
        data,
        settings,
        facts=facts or tiny_facts(epochs),
        seed=5,
        devices=devices[:1],
        standardization=STANDARDIZATION,
        **options,
    )


def metrics_of(trained):
    """Mean metrics of each epoch."""
    return [record["train"] for record in trained.history]


def assert_equal_trees(one, other):
    """Bit-identical."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
