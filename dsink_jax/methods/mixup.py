"""Mixup."""

import dataclasses

import jax
import jax.numpy as jnp

from dsink_jax.collectives import all_gather, own_rows
from dsink_jax.losses._checks import check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.hooks import MakesInputs


@dataclasses.dataclass(frozen=True)
class Mixup(MakesInputs, Method):
    """Cross-entropy on convex combinations of pairs of examples (Zhang et al., ICLR 2018, arXiv 1710.09412).

    One coefficient and one permutation for a batch, over all devices. The training accuracy is that of the
    mixtures against their first label.

    Attributes:
      alpha: the coefficient is drawn from Beta(alpha, alpha); positive.
    """

    alpha: float = 1.0

    def __post_init__(self):
        self.check(check_range, "alpha", 0.0, 1e6, low_open=True)

    def prepare(self, batch, example_state, networks, key, context):
        """Mixes the inputs; `extra` is the coefficient and the partners' labels."""
        coefficient_key, partner_key = jax.random.split(key)
        coefficient = jax.random.beta(coefficient_key, self.alpha, self.alpha)
        ((inputs, labels),) = partners([(batch.inputs, batch.labels)], partner_key, context.axis_name)
        mixed = coefficient * batch.inputs + (1.0 - coefficient) * inputs
        return batch._replace(prepared=mixed, extra=(coefficient, labels))

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        coefficient, labels = batch.extra
        values = coefficient * integer_cross_entropy(logits, batch.labels)
        values += (1.0 - coefficient) * integer_cross_entropy(logits, labels)
        return MethodLoss(values)


def partners(views, key, axis_name):
    """Each row's partner to mix with, drawn over all views of the batch of all devices.

    Args:
      views: list of pytrees of `[n, ...]`, one for each view of the same n examples.
      key: PRNG key, equal on all devices.
      axis_name: mapped axis over which the batch is split, or None.

    Returns:
      The same list with the partners' rows. Any row may be the partner of any, of the same view or not.
    """
    count = jax.tree.leaves(views)[0].shape[0]
    # All of the first view, then all of the next: an order that does not depend on the number of devices.
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *all_gather(views, axis_name))
    order = jax.random.permutation(key, jax.tree.leaves(whole)[0].shape[0]).reshape(len(views), -1)
    own = [own_rows(order_of_view, count, axis_name) for order_of_view in order]
    return [jax.tree.map(lambda leaf, rows=rows: leaf[rows], whole) for rows in own]
