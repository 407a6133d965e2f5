"""Our training steps on made-up images, ready to be timed."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data import Augmentation, training_order
from dsink_jax.methods import CrossEntropy, DSink, Weighting
from dsink_jax.models import build_model
from dsink_jax.training import (
    AXIS,
    Auxiliary,
    AuxiliaryPair,
    DeviceData,
    OptimizerSettings,
    Preprocessing,
    build_optimizer,
    create_state,
    make_train_step,
    parallel_train_step,
    replicate,
)

NUM_CLASSES = 10
ALPHA = 10.0
PREPROCESSING = Preprocessing(Augmentation(4, True), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
OPTIMIZER = OptimizerSettings(0.02, "cosine", 0.9, False, 5e-4)
BASE = CrossEntropy()
DSINK = DSink(CrossEntropy(), Weighting(ALPHA))
SHARPNESS = 5.0  # standard deviation of the logits of trained auxiliary models
BLOCKS = {"resnet8": 1, "resnet20": 3}  # networks that there is a PyTorch twin of


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network and a batch.

    Attributes:
      model: its name.
      title: the same for people.
      batch_size: examples a step.
      examples: size of the training set.
      num_classes: C.
      shape: of an image, `(H, W, channels)`; vectors are images of one pixel.
    """

    model: str
    title: str
    batch_size: int
    examples: int
    num_classes: int = NUM_CLASSES
    shape: tuple[int, int, int] = (32, 32, 3)

    @property
    def case(self) -> str:
        """In words."""
        return f"{self.title}, batch {self.batch_size}"

    @property
    def preprocessing(self) -> Preprocessing:
        """Crops and flips for colour images, none for anything else."""
        if self.shape[-1] == len(PREPROCESSING.mean):
            return PREPROCESSING
        channels = self.shape[-1]
        return Preprocessing(Augmentation(), (0.5,) * channels, (0.25,) * channels)


def make_data(
    examples: int, seed: int = 0, num_classes: int = NUM_CLASSES, shape: tuple[int, int, int] = (32, 32, 3)
) -> DeviceData:
    """Made-up images and auxiliaries' logits that agree with each other as trained ones do."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (examples, *shape), dtype=np.uint8)
    common, *own = rng.normal(0, 1, (3, examples, num_classes))
    noise_robust, imbalance_robust = (SHARPNESS * common + logits for logits in own)
    imbalance_robust -= np.linspace(0, np.log(10), num_classes)
    return DeviceData(
        images,
        rng.integers(0, num_classes, examples).astype(np.int32),
        noise_robust.astype(np.float32),
        imbalance_robust.astype(np.float32),
    )


def _sharpened(model):
    """The model with logits as far apart as those that are looked up: it decides how long Q takes."""

    def apply(variables, images, train):
        logits, updates = model.apply(variables, images, train)
        return SHARPNESS * logits / jnp.std(logits), updates

    return model._replace(apply=apply)


class Stepper:
    """The mapped training step of the library with its state; a call makes one step and waits for it."""

    def __init__(self, workload: Workload, method, *, auxiliaries: str, devices: Sequence[jax.Device]):
        """`auxiliaries`: `none`, `cached` (logits looked up) or `online` (two networks of the same kind)."""
        num_classes = workload.num_classes
        data = make_data(workload.examples, num_classes=num_classes, shape=workload.shape)
        if auxiliaries != "cached":
            data = data._replace(noise_robust_logits=None, imbalance_robust_logits=None)
        model = build_model(workload.model, num_classes, axis_name=AXIS)
        optimizer = build_optimizer(OPTIMIZER, 10_000)
        state = create_state(
            model, method, optimizer, jax.random.key(0), data.images[:1], workload.examples, num_classes
        )
        pair = variables = None
        if auxiliaries == "online":
            pair = AuxiliaryPair(*[Auxiliary(_sharpened(model), BASE)] * 2)
            variables = AuxiliaryPair(
                *(dict(model.init(jax.random.key(seed), data.images[:1] / 255.0)) for seed in (1, 2))
            )
        order = training_order(workload.examples, workload.batch_size, len(devices), seed=0, epoch=0)
        step = make_train_step(
            model,
            method,
            optimizer,
            workload.preprocessing,
            len(order.index),
            auxiliaries=pair,
            axis_name=AXIS,
        )
        self._step = parallel_train_step(step, devices)
        self._order, self._number, self._devices = order, 0, len(devices)
        self._state, self._data, self._variables, self._key = replicate(
            (state, data, variables, jax.random.key(1)), devices
        )

    def __call__(self) -> dict[str, jax.Array]:
        """The metrics of one step more."""
        i = self._number % len(self._order.index)
        self._number += 1
        self._state, metrics = self._step(
            self._state, self._data, self._variables, self._key, self._order.index[i], self._order.where[i]
        )
        return jax.block_until_ready(metrics)

    def memory(self) -> int:
        """Bytes that the compiled step needs beside what it is given, on one device."""
        first = self._order.index[0], self._order.where[0]
        lowered = self._step.lower(self._state, self._data, self._variables, self._key, *first)
        return int(lowered.compile().memory_analysis().temp_size_in_bytes)

    def kept(self) -> int:
        """Bytes of the training state and of the auxiliaries' parameters, on one device."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves((self._state, self._variables))) // self._devices

    def epoch_indices(self) -> list[np.ndarray]:
        """Positions in the training set, step by step, of all devices together."""
        return [index.reshape(-1) for index in self._order.index]
