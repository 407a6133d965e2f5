"""Auxiliary models made worse on purpose, to see what D-SINK owes to them."""

import dataclasses

import numpy as np

from experiments.problem import Problem

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

    def __call__(self, problem: Problem) -> Problem:
        """The problem as the weakened model sees it."""
        drawn = problem.corruption
        count = len(drawn.index)
        rng = np.random.default_rng((problem.config.data_seed, _STREAM, self.draw))
        kept = np.sort(rng.permutation(count)[: max(round(self.data * count), 1)])
        redrawn = rng.random(count) < self.noise
        labels = np.where(redrawn, rng.integers(drawn.num_classes, size=count), drawn.noisy_labels)
        corruption = dataclasses.replace(
            drawn,
            index=drawn.index[kept],
            clean_labels=drawn.clean_labels[kept],
            noisy_labels=labels[kept].astype(drawn.noisy_labels.dtype),
        )
        epochs = max(round(self.epochs * problem.config.epochs), 1)
        config = dataclasses.replace(problem.config, epochs=epochs)
        return dataclasses.replace(problem, corruption=corruption, config=config)
