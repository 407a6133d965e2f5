"""Our training steps on made-up inputs, ready to be timed."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import training_order
from dsink_jax.data.augment import Compose, Preprocess, RandomCrop, RandomFlip
from dsink_jax.methods import CrossEntropy, DSink, TrainingFacts, make_facts
from dsink_jax.methods.base import numbers_of
from dsink_jax.models import Model, build_model
from dsink_jax.training import (
    Auxiliaries,
    DeviceData,
    OptimizerSettings,
    Standardization,
    StepNumbers,
    TrainedModel,
    TrainingSettings,
    create_state,
    replicate,
)
from dsink_jax.training.programs import compiled_step, make_program

PADDING, MEAN, STD = 4, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)  # of colour images
OPTIMIZER = OptimizerSettings("sgd", 0.02, "cosine", 0.9, False, 5e-4)
BASE, DSINK = CrossEntropy(), DSink(alpha=10.0)
TOTAL_STEPS = 10_000
SHARPNESS = 5.0  # standard deviation of the logits of trained auxiliary models
BLOCKS = {"resnet8": 1, "resnet20": 3}  # networks that there is a PyTorch twin of


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network, a batch and a training set.

    Attributes:
      name: of the network.
      title: the same for people.
      batch_size: examples a step.
      examples: size of the training set.
      num_classes: C.
      shape: of an example.
    """

    name: str
    title: str
    batch_size: int
    examples: int
    num_classes: int = 10
    shape: tuple[int, ...] = (32, 32, 3)

    @property
    def case(self) -> str:
        """In words."""
        return f"{self.title}, batch {self.batch_size}"

    @property
    def model(self) -> Model:
        """The network."""
        return build_model(self.name, self.num_classes)

    @property
    def facts(self) -> TrainingFacts:
        """What its method knows."""
        return make_facts([1] * self.num_classes, 1)

    @property
    def preprocess(self) -> Preprocess | None:
        """Crops and flips for colour images, none for anything else."""
        return Compose((RandomCrop(PADDING), RandomFlip())) if self.shape[-1] == len(MEAN) else None

    @property
    def standardization(self) -> Standardization:
        """That of natural images, or of a middle grey."""
        depth = self.shape[-1]
        mean, std = (MEAN, STD) if depth == len(MEAN) else ((0.5,) * depth, (0.25,) * depth)
        return Standardization(np.float32(mean), 1 / np.float32(std))

    def settings(self, epochs: int = 1) -> TrainingSettings:
        """How it is trained, saved after every epoch."""
        return TrainingSettings(
            epochs, self.batch_size, OPTIMIZER, self.preprocess, checkpoint_every=1, steps_per_dispatch=1
        )

    def data(self) -> DeviceData:
        """Made-up inputs, and auxiliaries' logits that agree with each other as trained ones do."""
        rng = np.random.default_rng(0)
        inputs = rng.integers(0, 256, (self.examples, *self.shape), dtype=np.uint8)
        common, *own = rng.normal(0, 1, (3, self.examples, self.num_classes))
        noise_robust, imbalance_robust = (SHARPNESS * common + logits for logits in own)
        imbalance_robust -= np.linspace(0, np.log(10), self.num_classes)
        labels = rng.integers(0, self.num_classes, self.examples).astype(np.int32)
        return DeviceData(
            inputs, labels, noise_robust.astype(np.float32), imbalance_robust.astype(np.float32)
        )


def one_device() -> list[jax.Device]:
    """What is compared is a step: on one device."""
    return jax.local_devices()[:1]


class Stepper:
    """The mapped training step of the library with its state; a call makes one step and waits for it."""

    def __init__(self, workload: Workload, auxiliaries: Literal["none", "cached", "online"]):
        """Cross-entropy alone; with D-SINK and logits looked up; or with two networks of the same kind."""
        model, facts, data, devices = workload.model, workload.facts, workload.data(), one_device()
        if auxiliaries != "cached":
            data = data._replace(noise_robust_logits=None, imbalance_robust_logits=None)
        term, pair, variables = None if auxiliaries == "none" else DSINK, None, None
        if auxiliaries == "online":
            sharp, inputs = _sharpened(model), data.inputs[:1] / 255.0
            variables = tuple(dict(model.init(jax.random.key(seed), inputs)) for seed in (1, 2))
            pair = Auxiliaries(*(TrainedModel(sharp, BASE, facts, own) for own in variables))
        program = make_program(model, BASE, term, workload.settings(), pair, None)
        order = training_order(workload.examples, workload.batch_size, 1, seed=0, epoch=0)
        numbers = StepNumbers(
            numbers_of(BASE),
            numbers_of(term),
            OPTIMIZER.numbers(TOTAL_STEPS),
            facts,
            np.float32(len(order.index)),
            workload.standardization,
            auxiliaries=pair and (pair[0].numbers, pair[1].numbers),
        )
        state = create_state(program, numbers, jax.random.key(0), data.inputs[:1], workload.examples)
        self._step = compiled_step(program, tuple(devices), 1, False)
        self._order, self._number = list(zip(order.index, order.where, strict=True)), 0
        self._state, *self._fixed = replicate((state, data, numbers, variables, jax.random.key(1)), devices)

    def __call__(self) -> dict[str, jax.Array]:
        """The metrics of one step more."""
        order = self._order[self._number % len(self._order)]
        self._number += 1
        self._state, metrics = self._step(self._state, *self._fixed, *order)
        return jax.block_until_ready(metrics)

    def memory(self) -> int:
        """Bytes that the compiled step needs beside what it is given."""
        compiled = self._step.lower(self._state, *self._fixed, *self._order[0]).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    def kept(self) -> int:
        """Bytes of the training state and of the auxiliaries' parameters."""
        _, _, variables, _ = self._fixed
        return sum(leaf.nbytes for leaf in jax.tree.leaves((self._state, variables)))

    def epoch_indices(self) -> list[np.ndarray]:
        """Positions in the training set, step by step."""
        return [index.reshape(-1) for index, _ in self._order]


def _sharpened(model):
    """The model with logits as far apart as those that are looked up: it decides how long Q takes."""

    def apply(variables, inputs, **how):
        logits, collections = model.apply(variables, inputs, **how)
        return SHARPNESS * logits / jnp.std(logits), collections

    return model._replace(apply=apply)
