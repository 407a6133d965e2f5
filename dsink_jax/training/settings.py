"""How long and in what steps to train, in one stage or two."""

import dataclasses
import inspect
from typing import Literal, get_args

import numpy as np

from dsink_jax.data.augment import Preprocess
from dsink_jax.errors import InputError, check_known
from dsink_jax.methods.base import Method
from dsink_jax.methods.hooks import SecondStage, TwoStages
from dsink_jax.training.arguments import StateDtype
from dsink_jax.training.optimizer import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How long and in what steps to train.

    Attributes:
      epochs: passes over the training set, at least 1.
      batch_size: examples a step over all devices.
      optimizer: how to step.
      preprocess: augmentation of training inputs, `(key, batch) -> batch`; see `data.augment`. None for none.
      average_decay: share of the moving average of the parameters that is kept a step, in (0, 1), by which
        the model then predicts; None for no average.
      evaluate_every: epochs between evaluations; the last epoch is always evaluated.
      checkpoint_every: epochs between checkpoints; the last epoch is always saved.
      checkpoint_minutes: minutes after which to save in the middle of an epoch too; None for never.
      steps_per_dispatch: training steps in one call to the device, which hides the host's time; None for what
        suits the platform.
      state_dtype: type in which per-example state is kept.
      on_nan: what to do with a step whose loss or gradient is not finite: `stop` the training a step later,
        or `skip` the step, which then changes nothing.
      end_after: epochs after which to end all the same, with the learning rate as it is then; None for all.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerSettings
    preprocess: Preprocess | None = None
    average_decay: float | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 10
    checkpoint_minutes: float | None = None
    steps_per_dispatch: int | None = None
    state_dtype: StateDtype = "float32"
    on_nan: Literal["stop", "skip"] = "stop"
    end_after: int | None = None

    def __post_init__(self):
        for name in ("epochs", "batch_size", "evaluate_every", "checkpoint_every"):
            _check_count(name, getattr(self, name))
        for name in ("end_after", "steps_per_dispatch"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        check_known("state type", self.state_dtype, get_args(StateDtype))
        check_known("on_nan", self.on_nan, ("stop", "skip"))
        if self.preprocess is not None and not callable(self.preprocess):
            raise InputError(
                "preprocess must be a function (key, batch) -> batch, such as dsink_jax.data.RandomFlip(), "
                f"got {self.preprocess!r}."
            )
        if self.preprocess is not None:
            _check_arguments(self.preprocess)
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise InputError(f"average_decay must be in (0, 1), got {self.average_decay!r}.")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise InputError(f"checkpoint_minutes must be positive, got {self.checkpoint_minutes!r}.")

    @property
    def last_epoch(self) -> int:
        """Number of epochs that are trained."""
        return self.epochs if self.end_after is None else min(self.end_after, self.epochs)


def _check_arguments(preprocess):
    try:
        inspect.signature(preprocess).bind("key", "batch")
    except TypeError as error:
        raise InputError(f"preprocess must be a function (key, batch) -> batch: {error}.") from None
    except ValueError:  # of what is not written in Python
        return


def _check_count(name, value):
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}.")


def first_stage_settings(settings: TrainingSettings, method: Method | TwoStages) -> TrainingSettings:
    """The settings to train the first stage of a method with."""
    if not isinstance(method, TwoStages):
        return settings
    stage = method.second_stage(settings.epochs)
    if not stage.cuts_first:
        return settings
    return dataclasses.replace(settings, end_after=max(settings.epochs - stage.epochs, 1))


def second_stage_settings(settings: TrainingSettings, stage: SecondStage) -> TrainingSettings:
    """The settings that its second stage is trained with."""
    rate = settings.optimizer.learning_rate * stage.learning_rate_factor
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
    return dataclasses.replace(settings, epochs=stage.epochs, optimizer=optimizer)
