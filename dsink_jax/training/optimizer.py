"""Stochastic gradient descent as the field's recipes write it."""

import dataclasses
from typing import Literal, get_args

import optax

from dsink_jax.errors import InputError, check_known

Schedule = Literal["constant", "cosine", "step"]


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """SGD with momentum; weight decay is added to the gradient of every parameter, as PyTorch does.

    Attributes:
      learning_rate: the highest learning rate.
      schedule: `constant`; `cosine` to 0 over the training; `step`, a tenth of it after half and a
        hundredth after three quarters of the training.
      momentum: in [0, 1).
      nesterov: whether the momentum is Nesterov's.
      weight_decay: at least 0.
    """

    learning_rate: float
    schedule: Schedule
    momentum: float
    nesterov: bool
    weight_decay: float

    def __post_init__(self):
        check_known("schedule", self.schedule, get_args(Schedule))
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"The learning rate must be positive, got {self.learning_rate}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"Momentum must be in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"Weight decay must be at least 0, got {self.weight_decay}.")


def build_optimizer(
    settings: OptimizerSettings, total_steps: int, only: str | None = None
) -> optax.GradientTransformation:
    """The optimiser for a training of `total_steps` steps.

    Args:
      settings: how to step.
      total_steps: length of the schedule.
      only: name of the one part of the parameters that is trained, or None for all. The
        others' gradients must be 0.
    """
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, max(total_steps, 1))
    elif settings.schedule == "step":
        rate = optax.piecewise_constant_schedule(rate, {total_steps // 2: 0.1, 3 * total_steps // 4: 0.1})
    optimizer = optax.chain(
        optax.add_decayed_weights(settings.weight_decay),
        optax.sgd(rate, momentum=settings.momentum, nesterov=settings.nesterov),
    )
    if only is None:
        return optimizer
    return optax.masked(optimizer, lambda params: {name: name == only for name in params})
