"""A model after training, and all that it predicts by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax.methods.base import Method, TrainingFacts, numbers_of, static_part
from dsink_jax.models.interface import Model, Variables
from dsink_jax.training.arguments import PredictionNumbers, Predictor, Standardization
from dsink_jax.training.predict import predict

Record = dict[str, Any]


class TrainedModel(NamedTuple):
    """A model after training, and all that it predicts by.

    Attributes:
      model: the network.
      method: what it was trained with.
      facts: what the method knew of the training set.
      variables: what `Model.apply` takes, NumPy arrays.
      history: a record for each evaluated epoch: `epoch`, `train` (mean metrics) and what `evaluate` gave.
      seconds: time spent training, evaluation and earlier, interrupted attempts included.
    """

    model: Model
    method: Method
    facts: TrainingFacts
    variables: Variables
    history: Sequence[Record] = ()
    seconds: float = 0.0

    @property
    def predictor(self) -> Predictor:
        """The static part of its predictions."""
        return Predictor(self.model.kind, static_part(self.method))

    @property
    def numbers(self) -> PredictionNumbers:
        """The numbers of its predictions."""
        return PredictionNumbers(numbers_of(self.method), self.facts)

    def logits(
        self, inputs: Any, standardization: Standardization | None, devices: Sequence[jax.Device]
    ) -> np.ndarray:
        """Logits float32 `[M, C]` of inputs `[M, ...]`; see `predict`."""
        return predict(self.predictor, self.variables, self.numbers, standardization, inputs, devices)


class Auxiliaries(NamedTuple):
    """The two trained auxiliary models that a term distils."""

    noise_robust: TrainedModel
    imbalance_robust: TrainedModel
