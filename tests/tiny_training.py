"""Training of a network so small that it compiles in a second: what tests of whole methods share."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import training
from dsink_jax.data import RandomCrop, training_order
from dsink_jax.methods import make_facts, numbers_of
from dsink_jax.methods.hooks import TwoStages, UsesMetaSet
from dsink_jax.models import from_linen, several
from dsink_jax.models.layers import batch_norm, classifier_layer
from dsink_jax.training import (
    AXIS,
    DeviceData,
    OptimizerSettings,
    Standardization,
    StepNumbers,
    TrainingSettings,
    create_state,
    make_train_step,
    parallel_train_step,
    repeat_step,
    replicate,
)
from dsink_jax.training.programs import make_program

NUM_CLASSES = 4
SGD = OptimizerSettings("sgd", 0.05, "cosine", 0.9, False, 5e-4)
# Without momentum rounding differences are not amplified beyond what the step itself does.
PLAIN_SGD = OptimizerSettings("sgd", 0.05, "constant", 0.0, False, 0.0)
AUGMENTED = RandomCrop(1)
STANDARDIZATION = Standardization(np.float32([0.3]), np.float32([4.0]))
META = 2  # inputs of each class
BATCH = 16  # 60 examples: the fourth batch of an epoch has 12 and is padded
STEPS_PER_EPOCH = 4


class TinyNetwork(nn.Module):
    num_classes: int = NUM_CLASSES
    classifier: str = "linear"

    @nn.compact
    def __call__(self, inputs, train, features_only=False):
        x = nn.Dense(12, use_bias=False)(inputs.reshape(len(inputs), -1))
        x = nn.relu(batch_norm(train, jnp.float32)()(x))
        if features_only:
            return x
        return classifier_layer(self.classifier, self.num_classes, jnp.float32)(x)


def tiny_model(method):
    """The network, or networks, that a method asks for; the same object each time."""
    return several(from_linen(TinyNetwork(NUM_CLASSES, method.classifier)), method.networks)


def sequences(count=60):
    """Training set of float inputs [M, T, D] in 4 classes, each with a mean of its own, and noise."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, NUM_CLASSES, count).astype(np.int32)
    means = rng.normal(size=(NUM_CLASSES, 3))
    return DeviceData((means[labels, None] + rng.normal(size=(count, 5, 3))).astype(np.float32), labels)


class Counting:
    """A source that can only be asked for one input at a time, and remembers for which."""

    def __init__(self, inputs):
        self._inputs, self.read = inputs, []
        self.shape, self.dtype = inputs.shape, inputs.dtype

    def __len__(self):
        return len(self._inputs)

    def __getitem__(self, position):
        assert isinstance(position, int)
        self.read.append(position)
        return self._inputs[position]


def streamed(data):
    return data._replace(inputs=Counting(data.inputs))


def some_variables(method, inputs, seed=1):
    """Variables of the tiny network, or networks, before any training: NumPy arrays."""
    variables = tiny_model(method).init(jax.random.key(seed), np.asarray(inputs[:1], np.float32))
    return jax.device_get(variables)


def facts_of(data, epochs=4, transition_matrix=None):
    """What a method may know of a data set."""
    return make_facts(np.bincount(data.labels, minlength=NUM_CLASSES), epochs, transition_matrix)


def with_meta_set(data):
    """The data with the first examples of each class as a meta set."""
    index = np.concatenate([np.flatnonzero(data.labels == c)[:META] for c in range(NUM_CLASSES)])
    return data._replace(meta_index=index.astype(np.int32), meta_labels=data.labels[index])


def with_auxiliaries(data, seed=0):
    """The data with logits of two auxiliaries to be looked up."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, 2, (2, len(data.labels), NUM_CLASSES)).astype(np.float32)
    return data._replace(noise_robust_logits=first, imbalance_robust_logits=second)


SETTINGS = {field.name for field in dataclasses.fields(TrainingSettings)}


def train(method, data: DeviceData, devices, epochs=4, *, model=None, facts=None, **options):
    """A short training, saved after every epoch if there is a checkpointer.

    Options are those of `TrainingSettings`, whose defaults are others here, and of `training.train`.
    """
    changes = {name: options.pop(name) for name in SETTINGS & options.keys()}
    settings = {"optimizer": SGD, "preprocess": AUGMENTED, "checkpoint_every": 1, **changes}
    options = {"seed": 5, "standardization": STANDARDIZATION, **options}
    if isinstance(method, UsesMetaSet):
        data = with_meta_set(data)
    return training.train(
        tiny_model(method) if model is None else model,
        method,
        data,
        TrainingSettings(epochs, settings.pop("batch_size", BATCH), **settings),
        facts=facts_of(data, epochs) if facts is None else facts,
        devices=devices,
        **options,
    )


def program_and_numbers(method, data, *, term=None, model=None, preprocess=None, auxiliaries=None):
    """What a step without momentum is compiled for, and its numbers; a training of 20 epochs."""
    model = tiny_model(method) if model is None else model
    stage = method.second_stage(20) if isinstance(method, TwoStages) else None
    settings = TrainingSettings(20, BATCH, PLAIN_SGD, preprocess)
    numbers = StepNumbers(
        numbers_of(method),
        numbers_of(term),
        PLAIN_SGD.numbers(20 * STEPS_PER_EPOCH),
        facts_of(data, 20),
        np.float32(STEPS_PER_EPOCH),
        STANDARDIZATION,
        auxiliaries=None if auxiliaries is None else tuple(one.numbers for one in auxiliaries),
    )
    return make_program(model, method, term, settings, auxiliaries, stage), numbers


def some_steps(
    method,
    data,
    devices,
    *,
    auxiliaries=None,
    mapping=parallel_train_step,
    state_dtype="float32",
    steps=5,
    together=False,
    **parts,
):
    """State and metrics after a few steps, one of them padded; `parts` as in `program_and_numbers`.

    Per-example state starts from random numbers in [0, 1], so that there is something to tell examples by.
    """
    program, numbers = program_and_numbers(method, data, auxiliaries=auxiliaries, **parts)
    kept = np.arange(len(data.labels))
    if isinstance(method, UsesMetaSet):
        data = with_meta_set(data)
        kept = np.setdiff1d(kept, data.meta_index)
    weights = None if auxiliaries is None else tuple(one.variables for one in auxiliaries)
    state = create_state(
        program, numbers, jax.random.key(0), data.inputs[:1], len(data.labels), state_dtype=state_dtype
    )
    rng = np.random.default_rng(0)
    state = state._replace(
        # The method's epoch 2 at the first step: warm-ups are over.
        step=state.step + 2 * STEPS_PER_EPOCH,
        example_state=jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(size=leaf.shape), leaf.dtype), state.example_state
        ),
    )
    step = make_train_step(program, AXIS)
    step = mapping(repeat_step(step), devices, split=(None, 0, 0)) if together else mapping(step, devices)
    orders = [training_order(len(kept), BATCH, len(devices), seed=3, epoch=epoch) for epoch in (0, 1)]
    index = kept[np.concatenate([order.index for order in orders])].astype(np.int32)[:steps]
    where = np.concatenate([order.where for order in orders])[:steps]
    assert not where.all()
    state, *fixed = replicate((state, data, numbers, weights, jax.random.key(7)), devices)
    if together:
        active = np.ones(steps, bool)
        state, stacked = step(state, *fixed, active, index.swapaxes(0, 1), where.swapaxes(0, 1))
        stacked = jax.device_get(stacked)
        metrics = [{name: value[i] for name, value in stacked.items()} for i in range(steps)]
        return jax.device_get(state), metrics
    metrics = []
    for i in range(steps):
        state, values = step(state, *fixed, index[i], where[i])
        metrics.append(jax.device_get(values))
    return jax.device_get(state), metrics


def assert_equal_trees(one, other):
    """Bit-identical."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_same(one, other, tolerance):
    """State within a tolerance, and metrics but the count of iterations."""
    (state, metrics), (other_state, other_metrics) = one, other
    assert_close_trees(state, other_state, tolerance)
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


def assert_close_trees(one, other, tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


class Steps(training.SilentProgress):
    """Remembers the metrics of every dispatch, and calls what it is given after each."""

    def __init__(self, then=lambda count: None):
        self.metrics, self._then = [], then

    def step_dispatched(self, fraction, metrics):
        self.metrics.append(metrics)
        self._then(len(self.metrics))


class Kept:
    """In place of a checkpointer: keeps what would be written."""

    def __init__(self):
        self.checkpoints = []

    def restore(self, template):
        return None

    def newest(self):
        return "none"

    def save(self, checkpoint):
        self.checkpoints.append(jax.device_get(checkpoint))


def files_of(folder):
    """All files in a folder that hold something."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
