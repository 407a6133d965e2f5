"""Training of a network so small that it compiles in a second: what tests of whole methods share."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsink_jax.data import Augmentation, training_order
from dsink_jax.models import from_linen, several
from dsink_jax.models.layers import batch_norm, classifier_layer
from dsink_jax.training import (
    AXIS,
    DeviceData,
    FitSettings,
    OptimizerSettings,
    Preprocessing,
    create_state,
    fit,
    make_train_step,
    parallel_train_step,
    replicate,
)

NUM_CLASSES = 4
SGD = OptimizerSettings(0.05, "cosine", 0.9, False, 5e-4)
AUGMENTED = Preprocessing(Augmentation(1, False), (0.3,), (0.25,))
META = 2  # images of each class


class TinyNetwork(nn.Module):
    num_classes: int
    classifier: str = "linear"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train, features_only=False):
        x = nn.Dense(12, use_bias=False)(images.reshape(len(images), -1))
        x = nn.relu(batch_norm(train, self.axis_name, jnp.float32)()(x))
        if features_only:
            return x
        return classifier_layer(self.classifier, self.num_classes, jnp.float32)(x)


def tiny_model(method, axis_name=AXIS):
    """The network, or networks, that a method asks for."""
    module = partial(TinyNetwork, num_classes=NUM_CLASSES, classifier=method.classifier)
    return several(from_linen(module, axis_name), method.networks)


def with_meta_set(data):
    """The data with the first images of each class as a meta set."""
    index = np.concatenate([np.flatnonzero(data.labels == c)[:META] for c in range(NUM_CLASSES)])
    return data._replace(meta_index=index.astype(np.int32), meta_labels=data.labels[index])


def with_auxiliaries(data, seed=0):
    """The data with logits of two auxiliaries to be looked up."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, 2, (2, len(data.labels), NUM_CLASSES)).astype(np.float32)
    return data._replace(noise_robust_logits=first, imbalance_robust_logits=second)


def train(method, data: DeviceData, devices, epochs=4, state_dtype="float32", **options):
    """A short fit, saved after every epoch if there is a checkpointer."""
    settings = FitSettings(epochs, 16, SGD, checkpoint_every=1, state_dtype=state_dtype)
    model = tiny_model(method)
    if method.meta_per_class:
        data = with_meta_set(data)
    return fit(
        model, method, data, AUGMENTED, settings, num_classes=NUM_CLASSES, seed=5, devices=devices, **options
    )


def some_steps(
    method, data, preprocessing, devices, *, mapping=parallel_train_step, state_dtype="float32", steps=5
):
    """State and metrics after a few steps, one of them padded; without momentum, as in test_step.

    Per-example state starts from random numbers in [0, 1], so that there is something to tell examples by.
    """
    model, stage = tiny_model(method), method.second_stage
    kept = np.arange(len(data.labels))
    if method.meta_per_class:
        data = with_meta_set(data)
        kept = np.setdiff1d(kept, data.meta_index)
    optimizer = optax.sgd(0.05)
    state = create_state(
        model, method, optimizer, jax.random.key(0), data.images[:1], 60, NUM_CLASSES, state_dtype=state_dtype
    )
    rng = np.random.default_rng(0)
    state = state._replace(
        # The method's epoch 2 at the first step: warm-ups are over.
        step=state.step + 2 * STEPS_PER_EPOCH,
        example_state=jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(size=leaf.shape), leaf.dtype), state.example_state
        ),
    )
    step = make_train_step(
        model, method, optimizer, preprocessing, STEPS_PER_EPOCH, stage=stage, axis_name=AXIS
    )
    step = mapping(step, devices)
    orders = [training_order(len(kept), 16, len(devices), seed=3, epoch=epoch) for epoch in (0, 1)]
    index = kept[np.concatenate([order.index for order in orders])].astype(np.int32)
    where = np.concatenate([order.where for order in orders])
    assert not where[:steps].all()
    state, data, key = replicate((state, data, jax.random.key(7)), devices)
    metrics = []
    for i in range(steps):
        state, values = step(state, data, None, key, index[i], where[i])
        metrics.append(jax.device_get(values))
    return jax.device_get(state), metrics


STEPS_PER_EPOCH = 4


def assert_equal_trees(one, other):
    """Bit-identical."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_same(one, other, tolerance):
    """State within a tolerance, and metrics but the count of iterations."""
    (state, metrics), (other_state, other_metrics) = one, other
    assert jax.tree.structure(state) == jax.tree.structure(other_state)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(other_state), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)
    for ours, theirs in zip(metrics, other_metrics, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"sinkhorn_iterations"}:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, rtol=1e-4, err_msg=name)


def stop_at(*steps):
    """For `should_stop`: at each of these steps, or the first after it."""
    left = list(steps)

    def should_stop(step):
        return bool(left) and step >= left[0] and bool(left.pop(0))

    return should_stop


def files_of(folder):
    """All files in a folder that hold something."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
