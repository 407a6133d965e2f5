"""Terms that distil two auxiliary models, added to the loss of any method: D-SINK and naive distillation.

A term stands beside the base loss in the train step: it is given the prediction of the method for the batch's
inputs as they are, and both auxiliary models' predictions for the same inputs.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.allocation import (
    DEFAULT_MAX_ITERATIONS,
    DEFAULT_THRESHOLD,
    EPSILON,
    class_marginal,
    surrogate_labels,
)
from dsink_jax.errors import InputError, check_known
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Batch, Options
from dsink_jax.open_set import open_set_class_marginal, open_set_surrogate_labels

LossScale = Literal["bounded", "sum"]


class Distilled(NamedTuple):
    """What a term makes of a batch.

    Attributes:
      values: float32 `[n]`, loss of each example.
      metrics: diagnostics by name, float32 `[]` or `[n]`.
      base_weights: float32 `[n]`, what the base losses are multiplied by; None for 1.
    """

    values: jax.Array
    metrics: dict[str, jax.Array]
    base_weights: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Distillation(Options):
    """A weighted term beside a base loss.

    `sum` is the paper's base + alpha * distillation. It multiplies the length of a step by about
    1 + alpha, and diverges for large alpha at learning rates made for one loss. `bounded` divides by
    max(1, (1 + alpha) / 2): the paper's formula for alpha up to 1; beyond that alpha sets only the
    proportion, and the two weights sum to 2.

    Attributes:
      alpha: final weight of the term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
    """

    alpha: float = 10.0
    warmup_epochs: float = 0.0
    ramp_epochs: float = 0.0
    loss_scale: LossScale = "bounded"

    def __post_init__(self):
        check_known("loss_scale", self.loss_scale, get_args(LossScale))
        for name in ("alpha", "warmup_epochs", "ramp_epochs"):
            self.check(check_at_least, name, 0)

    def alpha_at(self, epoch):
        """Weight `[]` after `epoch` epochs."""
        ramped = jnp.clip((epoch - self.warmup_epochs) / jnp.maximum(self.ramp_epochs, 1e-9), 0.0, 1.0)
        at_once = jnp.where(epoch >= self.warmup_epochs, self.alpha, 0.0)
        return jnp.where(jnp.asarray(self.ramp_epochs) > 0, self.alpha * ramped, at_once)

    def combine(self, base, distillation, epoch):
        """Weighted sum `[n]` of the two per-example losses."""
        alpha, bounded = self.alpha_at(epoch), self.loss_scale == "bounded"
        return losses.add_distillation(base, distillation, alpha, bounded=bounded)

    def values(self, logits, batch: Batch, axis_name: str | None) -> Distilled:
        """The losses of the method's prediction `[n, C]`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DSink(Distillation):
    """D-SINK (arXiv 2510.08179): KL to surrogate labels Q of the batch.

    Attributes:
      alpha: final weight of the term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
      threshold: L1 error of the class marginal at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.
      epsilon: weight of the entropy; see `surrogate_labels`.
    """

    threshold: float = DEFAULT_THRESHOLD
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    epsilon: float = EPSILON

    def __post_init__(self):
        super().__post_init__()
        self.check(check_range, "threshold", 0.0, 2.0, low_open=True)
        self.check(check_range, "epsilon", 0.0, 1e6, low_open=True)
        check_limit(self.max_iterations)

    def values(self, logits, batch, axis_name):
        """See `Distillation.values`."""
        marginal = class_marginal(batch.imbalance_robust_logits, where=batch.where, axis_name=axis_name)
        allocation = surrogate_labels(
            logits,
            batch.noise_robust_logits,
            marginal,
            where=batch.where,
            threshold=self.threshold,
            max_iterations=self.max_iterations,
            epsilon=self.epsilon,
            axis_name=axis_name,
        )
        values = losses.divergence_from_labels(logits, allocation.labels, where=batch.where)
        return Distilled(values, solver_metrics(allocation))


@dataclasses.dataclass(frozen=True)
class OpenSetDSink(Distillation):
    """D-SINK where a share of the examples is of no class; see `dsink_jax.open_set_dsink_loss`.

    Each example's loss, that of the base too, counts by how far it is known to be of a class.

    Attributes:
      alpha: final weight of the term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
      known_share: share of the examples that are of a class, in (0, 1].
      threshold: L1 error of the masses at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.
    """

    known_share: float = 1.0
    threshold: float = DEFAULT_THRESHOLD
    max_iterations: int = DEFAULT_MAX_ITERATIONS

    def __post_init__(self):
        super().__post_init__()
        self.check(check_range, "known_share", 0.0, 1.0, low_open=True)
        self.check(check_range, "threshold", 0.0, 2.0, low_open=True)
        check_limit(self.max_iterations)

    def values(self, logits, batch, axis_name):
        """See `Distillation.values`."""
        how = {"where": batch.where, "axis_name": axis_name}
        marginal = open_set_class_marginal(
            batch.imbalance_robust_logits, logits, batch.noise_robust_logits, self.known_share, **how
        )
        allocation = open_set_surrogate_labels(
            logits,
            batch.noise_robust_logits,
            marginal,
            self.known_share,
            threshold=self.threshold,
            max_iterations=self.max_iterations,
            **how,
        )
        divergence = losses.divergence_from_labels(logits, allocation.labels, where=batch.where)
        metrics = {**solver_metrics(allocation), "known": allocation.known}
        return Distilled(allocation.known * divergence, metrics, allocation.known)


def solver_metrics(allocation) -> dict[str, jax.Array]:
    """What a term tells of how Q was solved for."""
    return {
        "marginal_error": allocation.marginal_error,
        "sinkhorn_iterations": allocation.iterations.astype(jnp.float32),
        "sinkhorn_converged": allocation.converged.astype(jnp.float32),
    }


def check_limit(max_iterations: int) -> None:
    """Raises `InputError` for a limit of iterations that is none."""
    if not isinstance(max_iterations, int) or not 1 <= max_iterations < 2**31:
        raise InputError(f"max_iterations must be an integer of at least 1, got {max_iterations!r}.")


@dataclasses.dataclass(frozen=True)
class NaiveDistillation(Distillation):
    """Distillation from f_N and f_L sample by sample: the baseline D-SINK is held against.

    Attributes:
      alpha: final weight of the term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
      noise_weight: weight of f_N in [0, 1]; f_L has the rest.
    """

    noise_weight: float = 0.5

    static = ("noise_weight",)  # 0 and 1 leave a teacher out

    def __post_init__(self):
        super().__post_init__()
        self.check(check_range, "noise_weight", 0.0, 1.0)

    def values(self, logits, batch, axis_name):
        """See `Distillation.values`."""
        values = losses.naive_distillation_loss(
            logits,
            batch.noise_robust_logits,
            batch.imbalance_robust_logits,
            self.noise_weight,
            where=batch.where,
        )
        return Distilled(values, {})
