"""What a training step is compiled for, and what it is given: a static program, and arrays."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from dsink_jax.data.augment import Preprocess
from dsink_jax.methods.base import Method, TrainingFacts
from dsink_jax.methods.distillation import Distillation
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training.optimizer import OptimizerKind

Array = jax.Array | np.ndarray
StateDtype = Literal["float32", "float16"]


class TrainState(NamedTuple):
    """Everything a training step changes; equal on all devices.

    Attributes:
      step: int32 `[]`, steps done.
      params: parameters.
      collections: what else the network keeps, such as moving averages of batch normalisation.
      opt_state: state of the optimiser.
      example_state: the method's per-example state, a pytree of `[M, ...]`, M rows of the training set.
      shared_state: the method's state of the whole training set.
      average: moving average of the parameters, `()` if there is none.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    example_state: Any
    shared_state: Any = ()
    average: Any = ()

    @property
    def variables(self) -> Variables:
        """What the network is to be applied with: averaged parameters if there are any."""
        averages = type(self.average) is not tuple or len(self.average) > 0  # parameters may be a tuple too
        params = self.average if averages else self.params
        return {"params": params, **self.collections}


class DeviceData(NamedTuple):
    """The training set as it lies on every device.

    Attributes:
      inputs: `[M, ...]` of any rank and numeric type; or a `Source`, which is streamed: the step is then
        given None here, and the inputs of each batch.
      labels: int32 `[M]`, observed labels; 0 and 1 `[M, C]` for several labels an example.
      noise_robust_logits: float32 `[M, C]`, f_N's logits to be looked up, or None.
      imbalance_robust_logits: float32 `[M, C]`, the same of f_L, or None.
      meta_index: int32 `[K]`, positions of the meta set, class by class, or None. They are left out of the
        order of the epochs.
      meta_labels: int32 `[K]`, its labels, or None.
      meta_inputs: `[K, ...]`, its inputs where the others are streamed, else None.
    """

    inputs: Any
    labels: Array
    noise_robust_logits: Array | None = None
    imbalance_robust_logits: Array | None = None
    meta_index: Array | None = None
    meta_labels: Array | None = None
    meta_inputs: Array | None = None


class Predictor(NamedTuple):
    """A network and what turns its outputs into predictions; of a trained auxiliary, the static part."""

    model: Model
    method: Method


class StepProgram(NamedTuple):
    """What a training step is compiled for; hashable, and equal for trainings that can share a program.

    Attributes:
      model: the network.
      method: what it optimises, without its numbers.
      term: the distillation beside it, without its numbers, or None.
      optimizer: how it steps, without its numbers.
      preprocess: augmentation of training inputs, `(key, batch) -> batch`, or None.
      auxiliaries: f_N and f_L, to be run in evaluation mode on the same augmented inputs; None if they are
        looked up or not needed.
      is_second_stage: whether batch statistics stay as they are.
      skips_not_finite: whether a step whose loss or gradient is not finite changes nothing. Its metrics are
        0, `examples` among them, and `skipped` is 1.
      averages: whether a moving average of the parameters is kept.
    """

    model: Model
    method: Method
    term: Distillation | None
    optimizer: OptimizerKind
    preprocess: Preprocess | None = None
    auxiliaries: tuple[Predictor, Predictor] | None = None
    is_second_stage: bool = False
    skips_not_finite: bool = False
    averages: bool = False


class PredictionNumbers(NamedTuple):
    """The numbers of a prediction: those of the method by name, and the facts it predicts by."""

    method: Mapping[str, Any]
    facts: TrainingFacts


class Standardization(NamedTuple):
    """Inputs become (inputs - mean) * scale over the last axis; uint8 inputs are put on 0 to 1 before.

    Attributes:
      mean: float32 `[D]` or `[channels]`.
      scale: float32 of the same shape, 1 / standard deviation.
    """

    mean: Array
    scale: Array


class StepNumbers(NamedTuple):
    """The arrays that a training step works with beside state and data.

    Attributes:
      method: numbers of the method by name.
      term: numbers of the distillation term by name.
      optimizer: numbers of the optimiser by name.
      facts: what is known of the training set.
      steps_per_epoch: float32 `[]`, to tell the method how far training is.
      standardization: of the inputs, or None to leave them as they are.
      average_decay: float32 `[]`, share of the average that is kept a step.
      auxiliaries: the numbers of f_N and f_L, if they are run.
    """

    method: Mapping[str, Any]
    term: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    facts: TrainingFacts
    steps_per_epoch: Any
    standardization: Standardization | None = None
    average_decay: Any = 0.0
    auxiliaries: tuple[PredictionNumbers, PredictionNumbers] | None = None
