"""The interface of a training method: what a model optimises, and what its outputs mean.

A method is a frozen dataclass of static options with three pure functions, `init`, `loss` and `predict`.
It never touches files, devices or optimisers: the train step hands it one device's share of a batch.
"""

import dataclasses
from typing import Any, NamedTuple

import jax


class Batch(NamedTuple):
    """One device's share of a batch, n examples.

    Attributes:
      images: float `[n, H, W, channels]`, augmented and normalised.
      labels: int32 `[n]`, observed labels.
      where: bool `[n]`, False for padding.
      noise_robust_logits: float32 `[n, C]`, f_N's logits (softmax is its prediction), or None.
      imbalance_robust_logits: float32 `[n, C]`, the same of f_L, or None.
    """

    images: jax.Array
    labels: jax.Array
    where: jax.Array
    noise_robust_logits: jax.Array | None = None
    imbalance_robust_logits: jax.Array | None = None


class MethodLoss(NamedTuple):
    """What a method's `loss` returns.

    Attributes:
      values: float32 `[n]`, loss of each example; the step averages over the valid rows of all devices.
      example_state: pytree of `[n, ...]`, the new rows of the per-example state.
      metrics: named diagnostics: `[n]` values are averaged like the loss, scalars must already be equal on
        all devices.
    """

    values: jax.Array
    example_state: Any
    metrics: dict[str, jax.Array]


class TrainingFacts(NamedTuple):
    """What a method may be told about the corrupted training set before training.

    Attributes:
      num_classes: C.
      observed_counts: examples of each class by observed label, C numbers.
      clean_counts: examples of each class by true label, C numbers. Real data does not come with them.
    """

    num_classes: int
    observed_counts: tuple[int, ...]
    clean_counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods. Hashable, so that it can be a static argument of `jit`."""

    @property
    def needs_auxiliaries(self) -> bool:
        """Whether `loss` reads the auxiliary models' logits from the batch."""
        return False

    def init(self, num_examples: int, num_classes: int) -> Any:
        """Per-example state at the start: a pytree of `[num_examples, ...]`, or `()` for none."""
        del num_examples, num_classes
        return ()

    def loss(
        self,
        logits: jax.Array,
        batch: Batch,
        example_state: Any,
        *,
        epoch: jax.Array,
        axis_name: str | None,
    ) -> MethodLoss:
        """Per-example loss of one device's share of the batch.

        Args:
          logits: `[n, C]`, the model's outputs in training mode; the gradient is taken through them.
          batch: the examples, n rows.
          example_state: the rows of the per-example state that belong to the batch.
          epoch: float32 `[]`, epochs done so far, with the fraction within the epoch.
          axis_name: mapped axis over which the batch is split, or None.
        """
        raise NotImplementedError

    def predict(self, logits: jax.Array) -> jax.Array:
        """Turns the model's outputs `[n, C]` into logits whose softmax is the prediction."""
        return logits
