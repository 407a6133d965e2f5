"""Methods for several labels an example: a sigmoid for each label, and the D-SINK term for them.

`Batch.labels` are indicators `[n, C]`, and `TrainingFacts.class_prior` the share of the examples that have
each label. Predictions count "has it" and "has it not" alike for every label, whatever the adjustment in
training; those for the labels' own shares are made of them afterwards.
"""

import dataclasses

import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.allocation import DEFAULT_MAX_ITERATIONS
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.distillation import Distillation, Distilled, check_limit, solver_metrics
from dsink_jax.multilabel import DEFAULT_THRESHOLD, multilabel_class_marginal, multilabel_surrogate_labels


@dataclasses.dataclass(frozen=True)
class _OfSeveralLabels(Method):
    """What they share: logits shifted by tau times the log-odds of the labels' shares in training."""

    tau: float = dataclasses.field(default=1.0, kw_only=True)

    several_labels = True

    @property
    def is_balanced(self):
        """See `Method.is_balanced`."""
        return True

    def predict(self, logits, facts):
        """See `Method.predict`. What was not adjusted for in training is here."""
        return logits.astype(jnp.float32) - (1.0 - self.tau) * _log_odds(facts)[None]

    def check_facts(self, facts):
        """Refuses a label that no example has, or all have."""
        for share, what in ((0.0, "No example has"), (1.0, "Every example has")):
            if (facts.class_prior == share).any():
                number = int((facts.class_prior == share).argmax())
                raise InputError(f"{what} label {number}: leave it out.")


def _log_odds(facts):
    prior = jnp.asarray(facts.class_prior)
    return jnp.log(prior) - jnp.log1p(-prior)


@dataclasses.dataclass(frozen=True)
class BinaryLogitAdjustment(_OfSeveralLabels):
    """Binary cross-entropy on logits shifted by the log-odds of the labels' shares.

    Menon et al., ICLR 2021, arXiv 2007.07314, for each label as a problem of two classes. With `tau` 0 it is
    plain binary cross-entropy, adjusted afterwards.

    Attributes:
      tau: strength of the adjustment, at least 0.
    """

    tau: float = 1.0

    def __post_init__(self):
        self.check(check_at_least, "tau", 0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        prior = jnp.asarray(context.facts.class_prior)
        return MethodLoss(losses.logit_adjusted_binary_cross_entropy(logits, batch.labels, prior, self.tau))


@dataclasses.dataclass(frozen=True)
class BinaryGeneralizedCrossEntropy(_OfSeveralLabels):
    """Generalised cross-entropy of each label, on logits shifted by the log-odds of the labels' shares.

    Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836, for each label as a problem of two classes.

    Attributes:
      q: robustness in (0, 1].
      tau: strength of the adjustment, at least 0.
    """

    q: float = 0.3

    def __post_init__(self):
        self.check(check_range, "q", 0.0, 1.0, low_open=True)
        self.check(check_at_least, "tau", 0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        shifted = logits.astype(jnp.float32) + self.tau * _log_odds(context.facts)[None]
        return MethodLoss(losses.generalized_binary_cross_entropy(shifted, batch.labels, self.q))


@dataclasses.dataclass(frozen=True)
class MultilabelDSink(Distillation):
    """D-SINK for several labels an example; see `dsink_jax.multilabel_dsink_loss`.

    Attributes:
      alpha: final weight of the term, at least 0.
      warmup_epochs: epochs at the start with weight 0.
      ramp_epochs: epochs of linear growth to alpha after that.
      loss_scale: `bounded` or `sum`.
      threshold: how far labels may be from the solution where the solver stops.
      max_iterations: limit of passes over the batch.
    """

    threshold: float = DEFAULT_THRESHOLD
    max_iterations: int = DEFAULT_MAX_ITERATIONS

    def __post_init__(self):
        super().__post_init__()
        self.check(check_range, "threshold", 0.0, 1.0, low_open=True)
        check_limit(self.max_iterations)

    def values(self, logits, batch, axis_name):
        """See `Distillation.values`."""
        how = {"where": batch.where, "axis_name": axis_name}
        allocation = multilabel_surrogate_labels(
            logits,
            batch.noise_robust_logits,
            multilabel_class_marginal(batch.imbalance_robust_logits, **how),
            threshold=self.threshold,
            max_iterations=self.max_iterations,
            **how,
        )
        values = losses.binary_divergence_from_labels(logits, allocation.labels, where=batch.where)
        return Distilled(values, solver_metrics(allocation))
