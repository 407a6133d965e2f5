"""Compiled training steps, kept for the process and shared by all trainings that can."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from dsink_jax.methods.base import Method, static_part
from dsink_jax.methods.distillation import Distillation
from dsink_jax.methods.hooks import SecondStage
from dsink_jax.models.interface import Model
from dsink_jax.training import parallel
from dsink_jax.training.arguments import StepProgram
from dsink_jax.training.settings import TrainingSettings
from dsink_jax.training.step import make_train_step, repeat_step
from dsink_jax.training.trained import Auxiliaries

# Steps in one dispatch where `steps_per_dispatch` is None: of networks on vectors, which take less time than
# a dispatch does, and of any network on accelerators. A convolution inside the loop that this needs is many
# times slower on CPU.
_STEPS_OF_VECTORS, _STEPS_ON_ACCELERATORS = 32, 8


def make_program(
    model: Model,
    method: Method,
    term: Distillation | None,
    settings: TrainingSettings,
    auxiliaries: Auxiliaries | None,
    stage: SecondStage | None,
) -> StepProgram:
    """What the step of a training is compiled for."""
    return StepProgram(
        model,
        static_part(method),
        static_part(term),
        settings.optimizer.kind("classifier" if stage is not None and stage.only_classifier else None),
        settings.preprocess,
        None if auxiliaries is None else (auxiliaries[0].predictor, auxiliaries[1].predictor),
        is_second_stage=stage is not None,
        skips_not_finite=settings.on_nan == "skip",
        averages=settings.average_decay is not None,
    )


@functools.lru_cache(maxsize=64)
def compiled_step(
    program: StepProgram, devices: tuple[jax.Device, ...], together: int, streamed: bool
) -> Callable:
    """The compiled step of a program, the same for every training that can share it."""
    step = make_train_step(program, parallel.AXIS)
    split = (0, 0, 0) if streamed else (0, 0)
    if together > 1:
        step, split = repeat_step(step), (None, *split)
    return parallel.parallel_train_step(step, devices, split=split)


def steps_per_dispatch(inputs: Any, devices: Sequence[jax.Device]) -> int:
    """What suits the platform and the inputs."""
    if len(inputs.shape) == 2:
        return _STEPS_OF_VECTORS
    return 1 if devices[0].platform == "cpu" else _STEPS_ON_ACCELERATORS
