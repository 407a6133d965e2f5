"""Methods that add a distillation term to any base method: D-SINK and naive distillation."""

import dataclasses
from typing import Any, Literal, get_args

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
from dsink_jax.errors import check_known
from dsink_jax.losses._checks import check_at_least
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.queue import Rows, empty_queue, joined, own_share, pushed

LossScale = Literal["bounded", "sum"]
Marginal = Literal["batch", "dataset"]


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How the distillation term joins the base loss.

    `sum` is the paper's base + alpha * distillation. It multiplies the length of a step by about
    1 + alpha, and diverges for large alpha at learning rates made for one loss. `bounded` divides by
    max(1, (1 + alpha) / 2): the paper's formula for alpha up to 1; beyond that alpha sets only the
    proportion, and the two weights sum to 2.

    Attributes:
      alpha: final weight of the distillation term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
    """

    alpha: float
    warmup_epochs: float = 0.0
    ramp_epochs: float = 0.0
    loss_scale: LossScale = "bounded"

    def alpha_at(self, epoch):
        """Weight `[]` after `epoch` epochs."""
        if self.ramp_epochs > 0:
            return self.alpha * jnp.clip((epoch - self.warmup_epochs) / self.ramp_epochs, 0.0, 1.0)
        return jnp.where(epoch >= self.warmup_epochs, self.alpha, 0.0)

    def combine(self, base, distillation, epoch):
        """Weighted sum `[n]` of the two per-example losses."""
        alpha = self.alpha_at(epoch)
        total = base + alpha * distillation
        if self.loss_scale == "bounded":
            total = total / jnp.maximum(1.0, 0.5 * (1.0 + alpha))
        return total


@dataclasses.dataclass(frozen=True)
class _Distilled(Method):
    """Common part: a base method, and a distillation term on the base method's prediction.

    The term acts on every network of the base, each by its own prediction, and on the images as they are:
    where the base is fed something else, such as mixtures, the images join its inputs. A base of two stages
    has the term in both, warm-up and ramp in the first. What a base changes for prediction alone (`deployed`)
    comes after the term.
    """

    base: Method
    weighting: Weighting

    @property
    def needs_auxiliaries(self):
        """The term always reads both auxiliary models."""
        return True

    @property
    def networks(self):  # type: ignore[override]
        """As many as the base's."""
        return self.base.networks

    @property
    def forward_passes(self):  # type: ignore[override]
        """The base's."""
        return self.base.forward_passes

    @property
    def views(self):  # type: ignore[override]
        """As many as the base's."""
        return self.base.views

    @property
    def classifier(self):  # type: ignore[override]
        """The base's."""
        return self.base.classifier

    @property
    def meta_per_class(self):
        """The base's."""
        return self.base.meta_per_class

    @property
    def meta_labels(self):
        """The base's."""
        return self.base.meta_labels

    @property
    def second_stage(self):
        """The base's."""
        return self.base.second_stage

    @property
    def first_stage(self):
        """The base's first stage with the same term."""
        first = self.base.first_stage
        return None if first is None else dataclasses.replace(self, base=first)

    def init(self, num_examples: int, num_classes: int) -> Any:
        """The base method's per-example state."""
        return self.base.init(num_examples, num_classes)

    def init_shared(self, num_classes: int) -> Any:
        """The base method's shared state, and the term's own if it has any."""
        return self._joined(self.base.init_shared(num_classes), self._init_own(num_classes))

    def refresh_before(self, epoch):
        """When the base method wants it."""
        return self.base.refresh_before(epoch)

    def refresh(self, logits, labels, example_state, shared_state):
        """The base method's."""
        of_base, own = self._parted(shared_state)
        example_state, of_base = self.base.refresh(logits, labels, example_state, of_base)
        return example_state, self._joined(of_base, own)

    def start(self, trained, fresh):
        """The base method's."""
        return self.base.start(trained, fresh)

    def deployed(self, variables):
        """The base method's."""
        return self.base.deployed(variables)

    def predict(self, logits):
        """The base method's prediction; the distillation term acts on the same."""
        return self.base.predict(logits)

    def prepare(self, batch, example_state, networks, key, *, epoch, axis_name):
        """The base method's inputs, and the images unless they are those."""
        shared_state = batch.shared_state
        of_base = batch._replace(shared_state=self._parted(shared_state)[0])
        batch = self.base.prepare(of_base, example_state, networks, key, epoch=epoch, axis_name=axis_name)
        batch = batch._replace(shared_state=shared_state)
        if batch.inputs is None:
            return batch
        own = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
        joined = tuple(jnp.concatenate([inputs, batch.images]) for inputs in own)
        return batch._replace(inputs=joined if isinstance(batch.inputs, tuple) else joined[0])

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        """See `Method.loss`."""
        of_images = logits
        if batch.inputs is not None:
            count = logits.shape[-2] - len(batch.labels)
            logits, of_images = logits[..., :count, :], logits[..., count:, :]
        of_base, own = self._parted(batch.shared_state)
        base = self.base.loss(
            logits, batch._replace(shared_state=of_base), example_state, epoch=epoch, axis_name=axis_name
        )
        distillation, metrics, own = self._distill_each(of_images, batch, own, axis_name)
        weighting = self.weighting
        if self.second_stage is not None:  # the term has set in already
            weighting = dataclasses.replace(weighting, warmup_epochs=0.0, ramp_epochs=0.0)
        values = weighting.combine(base.values, distillation, epoch)
        return MethodLoss(
            values,
            base.example_state,
            {**base.metrics, "base": base.values, "distillation": distillation, **metrics},
            self.predict(of_images),
            self._joined(of_base if base.shared_state is None else base.shared_state, own),
        )

    def _distill_each(self, logits, batch, own, axis_name):
        """Sum over the networks of the loss `[n]`, the diagnostics of the last, and the term's own state."""
        each = [logits] if self.networks == 1 else list(logits[:, None])
        total = jnp.zeros(len(batch.labels), jnp.float32)
        states = []
        for k, one in enumerate(each):
            state = own[k] if own else None
            values, metrics, state = self._distill(self.predict(one), batch, state, axis_name)
            total += values
            states.append(state)
        return total, metrics, tuple(states) if own else ()

    def _init_own(self, num_classes):
        """Shared state of the term, one part for each network; `()` for none."""
        del num_classes
        return ()

    def _joined(self, of_base, own):
        """The shared state from the base's and the term's own."""
        return {"base": of_base, "term": own} if own else of_base

    def _parted(self, shared_state):
        """The base's shared state and the term's own."""
        if self._init_own(1):
            return shared_state["base"], shared_state["term"]
        return shared_state, ()

    def _distill(self, logits, batch, state, axis_name):
        """Per-example distillation loss `[n]`, diagnostics, and the new state."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DSink(_Distilled):
    """D-SINK (arXiv 2510.08179) over any base method.

    Attributes:
      base: the method whose loss is L_base.
      weighting: how alpha * L_D-SINK joins it.
      threshold: L1 error of the class marginal at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.
      epsilon: weight of the entropy; see `surrogate_labels`.
      marginal: `batch`, the mean prediction of f_L over each batch, as published; or `dataset`, the same
        `class_marginal` for all batches, which small batches leave less to chance.
      class_marginal: f_L's mean prediction over the training set, C numbers, if `marginal` is `dataset`.
      queue: how many examples of past batches are solved for together with each batch, by what the models
        predicted for them then; 0 for none. A small batch says little about the shares of the classes.
    """

    threshold: float = DEFAULT_THRESHOLD
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    epsilon: float = EPSILON
    marginal: Marginal = "batch"
    class_marginal: tuple[float, ...] | None = None
    queue: int = 0

    def __post_init__(self):
        check_known("marginal", self.marginal, get_args(Marginal))
        self.check(check_at_least, "queue", 0)

    def _init_own(self, num_classes):
        return tuple(empty_queue(self.queue, num_classes) for _ in range(self.networks)) if self.queue else ()

    def _distill(self, logits, batch, state, axis_name):
        rows = Rows(logits, batch.noise_robust_logits, batch.imbalance_robust_logits, batch.where)
        rows = jax.lax.stop_gradient(rows)
        solved = rows if state is None else joined(rows, own_share(state, axis_name))
        if self.marginal == "batch":
            marginal = class_marginal(solved.imbalance_robust_logits, where=solved.where, axis_name=axis_name)
        elif self.class_marginal is None:
            raise ValueError("marginal 'dataset' needs class_marginal, f_L's mean over the training set.")
        else:
            marginal = jnp.asarray(self.class_marginal, jnp.float32)
        allocation = surrogate_labels(
            solved.logits,
            solved.noise_robust_logits,
            marginal,
            where=solved.where,
            threshold=self.threshold,
            max_iterations=self.max_iterations,
            epsilon=self.epsilon,
            axis_name=axis_name,
        )
        labels = allocation.labels[: len(logits)]
        values = losses.divergence_from_labels(logits, labels, where=batch.where)
        metrics = {
            "marginal_error": allocation.marginal_error,
            "sinkhorn_iterations": allocation.iterations.astype(jnp.float32),
            "sinkhorn_converged": allocation.converged.astype(jnp.float32),
        }
        return values, metrics, None if state is None else pushed(state, rows, axis_name)


@dataclasses.dataclass(frozen=True)
class NaiveDistillation(_Distilled):
    """Distillation from f_N and f_L sample by sample: the baseline D-SINK is held against.

    Attributes:
      base: the method whose loss is L_base.
      weighting: how alpha times the distillation joins it.
      noise_weight: weight of f_N in [0, 1]; f_L has the rest.
    """

    noise_weight: float = 0.5

    def _distill(self, logits, batch, state, axis_name):
        values = losses.naive_distillation_loss(
            logits,
            batch.noise_robust_logits,
            batch.imbalance_robust_logits,
            self.noise_weight,
            where=batch.where,
        )
        return values, {}, state
