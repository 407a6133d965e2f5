"""How parameters are stepped: SGD and AdamW as the field writes them, or any Optax transformation."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsink_jax.errors import InputError, check_known

Schedule = Literal["constant", "cosine", "step"]
# optax.GradientTransformation, which the type checker does not know.
OptimizerLike = str | Any
OPTIMIZERS = ("sgd", "adamw")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """An optimiser by name with its numbers, or an Optax transformation, which has its own.

    `sgd` adds weight decay to the gradient of every parameter, as PyTorch does; that of `adamw` is decoupled
    (Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101).

    Attributes:
      name: `sgd`, `adamw`, or an `optax.GradientTransformation`, for which the rest is of no use.
      learning_rate: the highest learning rate.
      schedule: `constant`; `cosine` to 0 over the training; `step`, a tenth of it after half and a
        hundredth after three quarters of the training.
      momentum: of SGD, in [0, 1).
      nesterov: whether the momentum of SGD is Nesterov's.
      weight_decay: at least 0.
    """

    name: OptimizerLike = "sgd"
    learning_rate: float = 0.05
    schedule: Schedule = "cosine"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self):
        if not _is_transformation(self.name):
            if not isinstance(self.name, str):
                raise InputError(
                    f"optimizer must be {' or '.join(OPTIMIZERS)} or an optax.GradientTransformation, "
                    f"got {type(self.name).__name__}."
                )
            check_known("optimizer", self.name, OPTIMIZERS)
        check_known("schedule", self.schedule, get_args(Schedule))
        for what, value in (
            ("The learning rate", self.learning_rate),
            ("Momentum", self.momentum),
            ("Weight decay", self.weight_decay),
        ):
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise InputError(f"{what} must be a number, got {value!r}.")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"The learning rate must be positive, got {self.learning_rate}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"Momentum must be in [0, 1), got {self.momentum}.")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"Weight decay must be at least 0, got {self.weight_decay}.")

    def kind(self, only: str | None = None) -> "OptimizerKind":
        """What a program is compiled for.

        Args:
          only: name of the one part of the parameters that is trained, or None for all. The others' gradients
            must be 0.
        """
        return OptimizerKind(self.name, self.schedule, self.nesterov, only)

    def numbers(self, total_steps: int) -> dict[str, np.float32]:
        """What may change without a new program, for a training of so many steps."""
        total = np.float32(max(total_steps, 1))
        return {
            "learning_rate": np.float32(self.learning_rate),
            "momentum": np.float32(self.momentum),
            "weight_decay": np.float32(self.weight_decay),
            "total_steps": total,
            "radians_a_step": np.float32(np.pi) * (np.float32(1) / total),
        }


class OptimizerKind(NamedTuple):
    """The static part of an optimiser; see `OptimizerSettings`."""

    name: OptimizerLike
    schedule: Schedule
    nesterov: bool
    only: str | None


def build_optimizer(kind: OptimizerKind, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    """The optimiser, inside a program or outside; its numbers may be traced."""

    def rate(count):
        return numbers["learning_rate"] * _factor(kind.schedule, count, numbers)

    if not isinstance(kind.name, str):
        optimizer = kind.name
    elif kind.name == "adamw":
        optimizer = optax.adamw(rate, weight_decay=numbers["weight_decay"])
    else:
        optimizer = optax.chain(
            optax.add_decayed_weights(numbers["weight_decay"]),
            optax.sgd(rate, momentum=numbers["momentum"], nesterov=kind.nesterov),
        )
    if kind.only is None:
        return optimizer
    return optax.masked(optimizer, lambda params: {name: name == kind.only for name in params})


def _factor(schedule, count, numbers) -> jax.Array:
    """The learning rate as a share of the highest, after `count` steps."""
    total = numbers["total_steps"]
    count = jnp.minimum(jnp.asarray(count, jnp.float32), total)
    if schedule == "cosine":
        return 0.5 * (1 + jnp.cos(count * numbers["radians_a_step"]))
    if schedule == "step":
        passed = (count >= total // 2).astype(jnp.float32) + (count >= 3 * total // 4)
        return 0.1**passed
    return jnp.ones_like(count)


def _is_transformation(value):
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
