"""Co-teaching: two networks that choose each other's examples."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from dsink_jax.collectives import all_gather, own_rows
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.hooks import LooksAtTrainingSet, rounded_share
from dsink_jax.methods.transition import estimate_noise_rate


@dataclasses.dataclass(frozen=True)
class CoTeaching(LooksAtTrainingSet, Method):
    """Each of two networks is trained on the examples of the batch that the other fits best.

    Han et al., NeurIPS 2018, arXiv 1804.06872. The share that is dropped grows linearly to the noise rate.
    The choice is made over the batch of all devices. Small losses are those of frequent classes: the tail is
    dropped first. The prediction is the mean of both networks' logits.

    Attributes:
      noise_rate: share of wrong labels in [0, 1), or `estimated`: after the ramp the networks' confident
        predictions tell it, and dropping starts from there. Never taken from the true labels.
      ramp: share of the training in which the dropped share grows, in (0, 1); the published recipe's is 10 of
        200 epochs.
    """

    noise_rate: float | Literal["estimated"] | None = None
    ramp: float = 0.05

    networks = 2
    forward_passes = 2
    required = {"noise_rate": "estimated"}  # noqa: RUF012

    def __post_init__(self):
        if isinstance(self.noise_rate, str):
            if self.noise_rate != "estimated":
                raise InputError(f"noise_rate must be a number or `estimated`, got {self.noise_rate!r}.")
        elif self.noise_rate is None:
            raise InputError("noise_rate must be given.")
        else:
            self.check(check_range, "noise_rate", 0.0, 1.0, high_open=True)
        self.check(check_range, "ramp", 0.0, 1.0, low_open=True, high_open=True)

    @property
    def _estimated(self):
        return isinstance(self.noise_rate, str)

    def init_shared(self, facts):
        """The noise rate, float32 `[]`: 0 until it is estimated."""
        return jnp.asarray(0.0 if self._estimated else self.noise_rate, jnp.float32)

    def refresh_before(self, epoch, facts):
        """Once, if the rate is to be estimated."""
        return self._estimated and epoch == rounded_share(self.ramp, facts.epochs)

    def refresh(self, logits, labels, example_state, shared_state):
        """Estimates the noise rate from both networks together."""
        return example_state, jnp.asarray(estimate_noise_rate(logits.mean(1), labels), jnp.float32)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`. The sum of the two networks' losses, each a mean over what it was given."""
        epochs, rate = context.facts.epochs, context.shared_state
        since = context.epoch - rounded_share(self.ramp, epochs) if self._estimated else context.epoch
        dropped = rate * jnp.clip(since / jnp.maximum(self.ramp * epochs, 1.0), 0.0, 1.0)
        values = jnp.stack([integer_cross_entropy(one, batch.labels) for one in logits])
        chosen, kept = _smallest(values.T, batch.where, 1.0 - dropped, context.axis_name)
        # Chosen by the other network; the step divides by all examples, the method by those chosen.
        swapped = (values * chosen.T[::-1]).sum(0) / jnp.maximum(kept, 1e-9)
        metrics = {"kept": chosen.mean(-1), "noise_rate": rate}
        return MethodLoss(swapped, metrics=metrics)


def _smallest(values, where, share, axis_name):
    """1 for the share of the valid examples with the smallest loss, by column: `[n, 2]`; and that share."""
    count = values.shape[0]
    whole, valid = all_gather(jax.lax.stop_gradient((values, where)), axis_name)
    rank = jnp.where(valid[:, None], whole, jnp.inf).argsort(0).argsort(0)
    num_valid = valid.sum(dtype=jnp.float32)
    number = jnp.maximum(jnp.floor(share * num_valid + 1e-4), 1.0)
    chosen = ((rank < number.astype(rank.dtype)) & valid[:, None]).astype(jnp.float32)
    return own_rows(chosen, count, axis_name), number / jnp.maximum(num_valid, 1.0)
