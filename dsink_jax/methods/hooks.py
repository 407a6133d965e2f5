"""What a few methods are asked for beside `init`, `loss` and `predict`.

A method that needs one of these derives from it too. They are asked in this order:

    TwoStages.first_stage -> start -> [ LooksAtTrainingSet.refresh ] each epoch
      -> [ MakesInputs.prepare -> network -> loss ] each step
      -> ChangesVariables.inference_variables -> predict
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np

from dsink_jax.methods.base import Batch, Context, Method, TrainingFacts

Variables = dict[str, Any]


class Networks(NamedTuple):
    """The present networks in evaluation mode, without gradient.

    Attributes:
      logits: inputs `[m, ...]` to what `loss` is given, `[m, C]` or, for K networks, `[K, m, C]`.
      features: inputs `[m, ...]` to `[m, D]`, or `[K, m, D]`.
    """

    logits: Callable[[jax.Array], jax.Array]
    features: Callable[[jax.Array], jax.Array]


class LooksAtTrainingSet:
    """Looks at the whole training set between epochs, on the host: a mixture model, a transition matrix."""

    def init_shared(self, facts: TrainingFacts) -> Any:
        """State of the whole training set at the start: a pytree of arrays, or `()` for none."""
        del facts
        return ()

    def refresh_before(self, epoch: int, facts: TrainingFacts) -> bool:
        """Whether `refresh` is to be called when `epoch` epochs are done, before the next."""
        raise NotImplementedError

    def refresh(
        self, logits: np.ndarray, labels: np.ndarray, example_state: Any, shared_state: Any
    ) -> tuple[Any, Any]:
        """New states from the networks' outputs on the whole training set.

        Args:
          logits: float32 `[M, C]`, or `[M, K, C]` for K networks: outputs in evaluation mode on the inputs
            as they are.
          labels: int32 `[M]`, observed labels.
          example_state: the present per-example state.
          shared_state: the present shared state.

        Returns:
          Both states.
        """
        raise NotImplementedError


class LooksAtFeatures(LooksAtTrainingSet):
    """Looks at what the networks' last layers are given too; its method says `features` in `needs`."""

    def refresh(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        example_state: Any,
        shared_state: Any,
        features: np.ndarray | None = None,
    ) -> tuple[Any, Any]:
        """New states, as `LooksAtTrainingSet.refresh` gives them.

        Args:
          logits: see there, as for all that follow but the last.
          labels: `[M]`.
          example_state: the present one.
          shared_state: likewise.
          features: float32 `[M, D]`, or `[M, K, D]` for K networks, of the same inputs; always given.
        """
        raise NotImplementedError


class MakesInputs:
    """Makes other inputs of a batch before and outside the gradient: mixtures, guessed labels, weights.

    Class attributes:
      views: augmented views of each input a step needs, 1 or 2.
    """

    views: ClassVar[int] = 1

    def prepare(
        self, batch: Batch, example_state: Any, networks: Networks, key: jax.Array, context: Context
    ) -> Batch:
        """The batch with `prepared` and `extra`.

        Args:
          batch: the examples, n rows.
          example_state: their rows of the per-example state.
          networks: the present networks.
          key: PRNG key of this step, equal on all devices.
          context: where the training is.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SecondStage:
    """How a method goes on from what its `first_stage` trained.

    Attributes:
      epochs: epochs of the second stage.
      learning_rate_factor: its highest learning rate as a multiple of the first stage's.
      only_classifier: whether the backbone is frozen.
      class_balanced: whether every class is drawn equally often.
      cuts_first: whether these epochs are the last ones of the training, which the first stage then does
        without, its learning rate not annealed to the end; else they come on top.
    """

    epochs: int
    learning_rate_factor: float = 1.0
    only_classifier: bool = False
    class_balanced: bool = False
    cuts_first: bool = False


class TwoStages:
    """Starts from what another method trained; batch statistics stay as they are in the second stage."""

    @property
    def first_stage(self) -> Method:
        """The method that trains what this one starts from."""
        raise NotImplementedError

    def second_stage(self, epochs: int) -> SecondStage:
        """How to go on after a first stage of so many epochs."""
        raise NotImplementedError

    def start(self, trained: Variables, fresh: Variables) -> Variables:
        """Variables to start the second stage with, from those of the first and newly drawn ones."""
        del fresh
        return trained


class UsesMetaSet:
    """Learns from a small balanced part of the training set, which is taken out of it.

    Attributes:
      meta_per_class: examples of each class in it, at least 1.
      meta_labels: which labels it is drawn by and has.
    """

    meta_per_class: int | None
    meta_labels: Literal["observed", "clean"] | None


class ChangesVariables:
    """Predicts with other variables than those that were trained."""

    def inference_variables(self, variables: Variables) -> Variables:
        """Variables to predict with."""
        raise NotImplementedError


def variables_to_predict_with(method: Method, variables: Variables) -> Variables:
    """What a network is applied with in order to predict by a method."""
    return method.inference_variables(variables) if isinstance(method, ChangesVariables) else variables


def rounded_share(share: Any, epochs: Any, least: float = 1.0) -> Any:
    """A share of the epochs in whole epochs, at least so many: the same on the host and in a program."""
    xp = np if isinstance(share, float | np.floating) else jax.numpy
    return xp.maximum(xp.round(xp.float32(share) * xp.float32(epochs)), xp.float32(least))
