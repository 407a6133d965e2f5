"""MixMatch with wrong labels: what DivideMix and TABASCO train once labels are divided."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dsink_jax.collectives import psum
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.hooks import LooksAtTrainingSet, MakesInputs, rounded_share
from dsink_jax.methods.mixup import partners


@dataclasses.dataclass(frozen=True)
class MixMatch(LooksAtTrainingSet, MakesInputs, Method):
    """Two networks, each trained by MixMatch on the labels that the other one believes.

    Li et al., ICLR 2020, arXiv 2002.07394, section 3.2. Which labels are believed is up to the method: before
    every epoch after the warm-up its `refresh` gives the per-example state anew, float32 `[M, 2]`, by each
    network the probability that a label is right. Until then training is cross-entropy on both views.

    Attributes:
      warmup: share of the training before the first division, in (0, 1).
      lambda_u: weight of the unlabelled loss, at least 0.
      temperature: of the sharpening, positive.
      mix_alpha: coefficients are drawn from Beta(alpha, alpha), the larger of l and 1 - l taken; positive.
      clean_bound: probability from which a label counts as right, in [0, 1].
      ramp: share of the training in which lambda_u grows from 0, in (0, 1].
      penalty: prior that the mean prediction is drawn to, `prior` or `uniform`; `none` for no penalty.
    """

    warmup: float = 0.1
    lambda_u: float = 1.0
    temperature: float = 0.5
    mix_alpha: float = 4.0
    clean_bound: float = 0.5
    ramp: float = 0.05
    penalty: Literal["prior", "uniform", "none"] = "prior"

    networks = 2
    views = 2

    def __post_init__(self):
        self.check(check_range, "warmup", 0.0, 1.0, low_open=True, high_open=True)
        self.check(check_at_least, "lambda_u", 0)
        self.check(check_range, "temperature", 0.0, 1e6, low_open=True)
        self.check(check_range, "mix_alpha", 0.0, 1e6, low_open=True)
        self.check(check_range, "clean_bound", 0.0, 1.0)
        self.check(check_range, "ramp", 0.0, 1.0, low_open=True)
        if self.penalty not in ("prior", "uniform", "none"):
            raise InputError(f"penalty must be prior, uniform or none, got {self.penalty!r}.")

    def init(self, num_examples, num_classes):
        """Probability that a label is right, by each network: 1 during the warm-up. float32 `[M, 2]`."""
        return jnp.ones((num_examples, 2), jnp.float32)

    def refresh_before(self, epoch, facts):
        """Before every epoch after the warm-up."""
        return epoch >= rounded_share(self.warmup, facts.epochs)

    def prepare(self, batch, example_state, networks, key, context):
        """Refines or replaces labels and mixes both views, for each network by the other's division."""
        num_classes = context.facts.num_classes
        one_hot = jnp.eye(num_classes, dtype=jnp.float32)[batch.labels]
        views = [batch.inputs, batch.second_view]
        logits = networks.logits(jnp.concatenate(views))
        predictions = jax.nn.softmax(logits, axis=-1).reshape(2, 2, -1, num_classes).mean(1)
        guess = predictions.mean(0)
        warm = context.epoch < rounded_share(self.warmup, context.facts.epochs) - 1e-4
        inputs, extra = [], []
        for k, own_key in enumerate(jax.random.split(key)):
            clean = example_state[:, 1 - k, None]
            labelled = warm | (clean[:, 0] > self.clean_bound)
            refined = clean * one_hot + (1.0 - clean) * predictions[k]
            sharp = self._sharpened(jnp.where(labelled[:, None], refined, guess))
            targets = jnp.where(warm, one_hot, sharp)
            partner_key, mix_key = jax.random.split(own_key)
            coefficient = jax.random.beta(mix_key, self.mix_alpha, self.mix_alpha)
            coefficient = jnp.where(warm, 1.0, jnp.maximum(coefficient, 1.0 - coefficient))
            own_rows = [(view, targets) for view in views]
            other_rows = partners(own_rows, partner_key, context.axis_name)
            mixed = jax.tree.map(
                lambda own, other, c=coefficient: c * own + (1.0 - c) * other, own_rows, other_rows
            )
            mixed_views, mixed_targets = (jnp.concatenate(parts) for parts in zip(*mixed, strict=True))
            inputs.append(mixed_views)
            extra.append((mixed_targets, labelled))
        return batch._replace(prepared=tuple(inputs), extra=(tuple(extra), logits[:, : len(batch.labels)]))

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`. The sum of the two networks' losses."""
        networks, guessed = batch.extra
        values = sum(
            self._network_loss(own, targets, labelled, batch.where, context)
            for own, (targets, labelled) in zip(logits, networks, strict=True)
        )
        metrics = {"clean": example_state.mean(-1)}
        return MethodLoss(values, example_state, metrics, self.predict(guessed, context.facts))

    def _network_loss(self, own, targets, labelled, where, context):
        """Loss `[n]` of one network from its logits `[2n, C]`: means over the views and over each kind."""
        facts = context.facts
        log_predictions = jax.nn.log_softmax(own.astype(jnp.float32), axis=-1)
        predictions = jnp.exp(log_predictions)
        cross_entropy = _over_views(-(targets * log_predictions).sum(-1))
        squared = _over_views(((predictions - targets) ** 2).mean(-1))
        labelled_share, unlabelled_share, mean = self._batch_means(
            predictions, labelled, where, context.axis_name
        )
        started = context.epoch - rounded_share(self.warmup, facts.epochs)
        ramp = jnp.clip(started / jnp.maximum(self.ramp * facts.epochs, 1.0), 0.0, 1.0)
        values = jnp.where(
            labelled, cross_entropy / labelled_share, self.lambda_u * ramp * squared / unlabelled_share
        )
        if self.penalty != "none":
            prior = jnp.asarray(facts.class_prior)
            prior = prior if self.penalty == "prior" else jnp.full_like(prior, 1.0 / len(prior))
            penalty = (jax.scipy.special.xlogy(prior, prior) - prior * jnp.log(mean + 1e-12)).sum()
            values += jnp.where(started < -1e-4, 0.0, penalty)
        return values

    def _batch_means(self, predictions, labelled, where, axis_name):
        """Shares of labelled and unlabelled examples, and the mean prediction `[C]`, over all devices."""
        valid, labelled = where.astype(jnp.float32), labelled.astype(jnp.float32)
        views = jnp.tile(valid, 2)
        number, right, summed = psum(
            (valid.sum(), (valid * labelled).sum(), (views[:, None] * predictions).sum(0)), axis_name
        )
        number = jnp.maximum(number, 1.0)
        return (
            jnp.maximum(right, 1.0) / number,
            jnp.maximum(number - right, 1.0) / number,
            summed / (2.0 * number),
        )

    def _sharpened(self, probabilities):
        return jax.nn.softmax(jnp.log(probabilities + 1e-12) / self.temperature, axis=-1)


def _over_views(values: Any):
    """Mean `[n]` over the two views of `[2n]`."""
    return values.reshape(2, -1).mean(0)
