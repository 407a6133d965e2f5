"""Auxiliary models made worse on purpose, to see what D-SINK owes to them."""

import dataclasses

import numpy as np

from dsink_jax.training_set import TrainingSet

# The weakened sets have a stream of the data seed of their own.
_STREAM = 6


@dataclasses.dataclass(frozen=True)
class Weakening:
    """How an auxiliary model's training is made worse.

    Attributes:
      epochs: share of the epochs it is trained for, in (0, 1]; the learning rate falls as fast as they pass.
      data: share of the training images it sees, in (0, 1].
      noise: share of the labels it sees that are drawn anew, uniformly over all classes, in [0, 1].
      draw: which images and labels; two models with the same draw fail on the same ones.
    """

    epochs: float = 1.0
    data: float = 1.0
    noise: float = 0.0
    draw: int = 0

    def training_set(self, data: TrainingSet, data_seed: int) -> TrainingSet:
        """What the weakened model is trained on instead of `data`, drawn by the data seed."""
        count = len(data.labels)
        rng = np.random.default_rng((data_seed, _STREAM, self.draw))
        kept = np.sort(rng.permutation(count)[: max(round(self.data * count), 1)])
        redrawn = rng.random(count) < self.noise
        labels = np.where(redrawn, rng.integers(data.num_classes, size=count), data.labels)
        labels = labels.astype(data.labels.dtype)
        seen = dataclasses.replace(data, labels=labels).rows(kept)
        return dataclasses.replace(seen, class_counts=np.bincount(seen.labels, minlength=data.num_classes))

    def epochs_of(self, epochs: int) -> int:
        """For how many epochs it is trained, instead of `epochs`."""
        return max(round(self.epochs * epochs), 1)
