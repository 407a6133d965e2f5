"""Re-weighting of examples by optimal transport to a balanced meta set."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from dsink_jax import losses
from dsink_jax.collectives import all_gather, own_rows
from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.class_balanced import check_no_empty_class
from dsink_jax.methods.cross_entropy import CrossEntropy
from dsink_jax.methods.hooks import MakesInputs, SecondStage, TwoStages, UsesMetaSet

_CHOICES = {
    "meta_labels": ("observed", "clean"),
    "cost": ("combined", "feature", "label"),
    "meta_set": ("prototypes", "whole"),
    "trains": ("classifier", "network"),
    "cuts_first": (True, False),
}


@dataclasses.dataclass(frozen=True)
class TransportReweighting(TwoStages, MakesInputs, UsesMetaSet, Method):
    """Example weights that bring the batch close to a small balanced meta set in transport cost.

    Guo et al., NeurIPS 2022, arXiv 2208.02951. The first stage is cross-entropy. In the second, weights start
    at the class-balanced ones; each step first moves the weights of its examples down the gradient of the
    transport cost between the weighted batch and the meta set, then trains on weighted cross-entropy plus
    cross-entropy on the meta set. Batch statistics stay those of the first stage.

    The meta set is taken out of the training set, `meta_per_class` images of each class; in the second stage
    its images train through the second term alone. No image is used that other methods do not get. Which
    labels the set is drawn by has to be said: clean ones are an assumption that real data may not meet.

    Attributes:
      meta_per_class: images of each class in the meta set, at least 1; has to be given.
      meta_labels: labels of the meta set, `observed` or `clean`; has to be given.
      cost: of moving an example to a member of the meta set: `feature`, which is 1 - cosine, `label`, or
        `combined`, half of each.
      meta_set: `prototypes`, the mean image of each class, or `whole`, all images.
      trains: `classifier`, the last layer, or the whole `network`, in the second stage.
      share: epochs of the second stage as a share of the first's, or of both if it cuts the first; in
        (0, 1].
      cuts_first: whether these are the last epochs of the training, which the first stage does without, its
        learning rate not annealed to the end (published: 90 of 250); else they come on top.
      learning_rate_factor: highest learning rate of the second stage over that of the first, positive.
      meta_weight: weight of the meta set's cross-entropy, at least 0. The published 10 goes with a sum over a
        batch of 16 where this is a mean, so it weighs the meta set more here; chosen on other digits.
      weight_rate: learning rate of the weights, at least 0.
      weight_momentum: momentum of their steps, in [0, 1). The published code names 0.9, and starts anew at
        each step.
      weight_decay: decay of the weights, at least 0.
      epsilon: weight of the entropy in the transport problem, positive.
      beta: of the class-balanced weights, in [0, 1).
    """

    meta_per_class: int | None = None
    meta_labels: Literal["observed", "clean"] | None = None
    cost: Literal["combined", "feature", "label"] = "combined"
    meta_set: Literal["prototypes", "whole"] = "prototypes"
    trains: Literal["classifier", "network"] = "classifier"
    share: float = 0.25
    cuts_first: bool = False
    learning_rate_factor: float = 0.1
    meta_weight: float = 10.0
    weight_rate: float = 0.01
    weight_momentum: float = 0.0
    weight_decay: float = 5e-4
    epsilon: float = 0.1
    beta: float = 0.9999

    forward_passes = 2
    needs = ("features",)
    required = {"meta_per_class": 5, "meta_labels": "observed"}  # noqa: RUF012

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"{name} must be {' or '.join(map(str, choices))}, got {value!r}.")
        if self.meta_per_class is None or self.meta_labels is None:
            raise InputError("meta_per_class and meta_labels must be given.")
        self.check(check_at_least, "meta_per_class", 1)
        self.check(check_range, "share", 0.0, 1.0, low_open=True)
        self.check(check_range, "learning_rate_factor", 0.0, 1e6, low_open=True)
        for name in ("meta_weight", "weight_rate", "weight_decay"):
            self.check(check_at_least, name, 0)
        self.check(check_range, "weight_momentum", 0.0, 1.0, high_open=True)
        self.check(check_range, "epsilon", 0.0, 1e6, low_open=True)
        self.check(check_range, "beta", 0.0, 1.0, high_open=True)

    def check_facts(self, facts):
        """No class may be empty."""
        check_no_empty_class(facts.class_counts)

    @property
    def first_stage(self):
        """Cross-entropy on all images, those of the meta set included."""
        return CrossEntropy()

    def second_stage(self, epochs):
        """Training with the weights."""
        return SecondStage(
            max(round(self.share * epochs), 1),
            self.learning_rate_factor,
            only_classifier=self.trains == "classifier",
            cuts_first=self.cuts_first,
        )

    def init(self, num_examples, num_classes):
        """What is added to the class-balanced weight of each example, and its momentum: `[M]` each."""
        zeros = jnp.zeros((num_examples,), jnp.float32)
        return {"shift": zeros, "momentum": zeros}

    def prepare(self, batch, example_state, networks, key, context):
        """Moves the weights of the batch's examples; the meta set's images join the inputs."""
        axis_name, num_classes = context.axis_name, context.facts.num_classes
        features = networks.features(batch.inputs)
        meta_features, meta_labels = self._meta(batch, networks, num_classes)
        start = self._class_weights(context.facts)[batch.labels]
        rows = (features, batch.labels, batch.where, start + example_state["shift"])
        features, labels, where, weights = all_gather(rows, axis_name)
        cost = self._cost(features, labels, meta_features, meta_labels, num_classes)
        # OTT differentiates its loop out of the reach of `solve_transport`, by lines that promote.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            gradient = jax.grad(losses.transport_distance)(weights, cost, where=where, epsilon=self.epsilon)
        gradient, weights = own_rows((gradient, weights), len(start), axis_name)
        momentum = gradient + self.weight_decay * weights + self.weight_momentum * example_state["momentum"]
        weights = jnp.maximum(weights - self.weight_rate * momentum, 0.0)
        inputs = jnp.concatenate([batch.inputs, batch.meta_inputs])
        return batch._replace(
            prepared=inputs, extra=(weights, {"shift": weights - start, "momentum": momentum})
        )

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        weights, example_state = batch.extra
        count = len(batch.labels)
        values = weights * integer_cross_entropy(logits[:count], batch.labels)
        meta = integer_cross_entropy(logits[count:], batch.meta_labels).mean()
        values += self.meta_weight * meta
        return MethodLoss(values, example_state, {"weight": weights}, logits[:count])

    def _class_weights(self, facts):
        """Of the training set without the meta set."""
        kept = jnp.maximum(jnp.asarray(facts.class_counts) - (self.meta_per_class or 0), 1.0)
        return losses.class_balanced_weights(kept, self.beta)

    def _meta(self, batch, networks, num_classes):
        """Features and labels of what the batch is moved to."""
        if self.meta_set == "whole":
            return networks.features(batch.meta_inputs), batch.meta_labels
        by_class = batch.meta_inputs.reshape(num_classes, -1, *batch.meta_inputs.shape[1:])
        return networks.features(by_class.mean(1)), jnp.arange(num_classes)

    def _cost(self, features, labels, meta_features, meta_labels, num_classes):
        of_features = losses.feature_cost(features, meta_features)
        of_labels = losses.label_cost(labels, meta_labels, num_classes)
        return {
            "feature": of_features,
            "label": of_labels,
            "combined": 0.5 * of_features + 0.5 * of_labels,
        }[self.cost]
