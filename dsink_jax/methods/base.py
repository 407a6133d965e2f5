"""The interface of a training method: what a model optimises, and what its outputs mean.

A method is a frozen dataclass of static options with pure functions. Most methods define `loss` alone. It
never touches files, devices or optimisers: the train step hands it one device's share of a batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import numpy as np

from dsink_jax.errors import InputError


class Batch(NamedTuple):
    """One device's share of a batch, n examples, and what goes with it.

    Attributes:
      images: float `[n, H, W, channels]`, augmented and normalised.
      labels: int32 `[n]`, observed labels.
      where: bool `[n]`, False for padding.
      noise_robust_logits: float32 `[n, C]`, f_N's logits (softmax is its prediction), or None.
      imbalance_robust_logits: float32 `[n, C]`, the same of f_L, or None.
      second_view: the same images under other draws of the augmentation, for methods with `views` 2.
      meta_images: `[K, H, W, channels]`, the meta set, class by class, not augmented; the same on all
        devices. None unless the method has one.
      meta_labels: int32 `[K]`.
      shared_state: what the method knows of the whole training set; see `Method.refresh`.
      inputs: what the networks are fed, if `prepare` made something else of the images: an array `[m, ...]`
        or, for several networks, a tuple with one for each.
      extra: whatever `prepare` wants to tell `loss`.
    """

    images: jax.Array
    labels: jax.Array
    where: jax.Array
    noise_robust_logits: jax.Array | None = None
    imbalance_robust_logits: jax.Array | None = None
    second_view: jax.Array | None = None
    meta_images: jax.Array | None = None
    meta_labels: jax.Array | None = None
    shared_state: Any = ()
    inputs: Any = None
    extra: Any = None


class MethodLoss(NamedTuple):
    """What a method's `loss` returns.

    Attributes:
      values: float32 `[n]`, loss of each example; the step averages over the valid rows of all devices.
      example_state: pytree of `[n, ...]`, the new rows of the per-example state.
      metrics: named diagnostics: `[n]` values are averaged like the loss, scalars must already be equal on
        all devices.
      predictions: logits `[n, C]` to measure the training accuracy by, where `predict` of the logits is not
        the prediction of the n images.
      shared_state: the new shared state, equal on all devices, if the step changes it.
    """

    values: jax.Array
    example_state: Any
    metrics: dict[str, jax.Array]
    predictions: jax.Array | None = None
    shared_state: Any = None


class Networks(NamedTuple):
    """The present networks in evaluation mode, without gradient.

    Attributes:
      logits: images `[m, ...]` to what `loss` is given, `[m, C]` or, for K networks, `[K, m, C]`.
      features: images `[m, ...]` to `[m, D]`.
    """

    logits: Callable[[jax.Array], jax.Array]
    features: Callable[[jax.Array], jax.Array]


class TrainingFacts(NamedTuple):
    """What a method may be told about the corrupted training set before training.

    Attributes:
      num_classes: C.
      observed_counts: examples of each class by observed label, C numbers.
      clean_counts: examples of each class by true label, C numbers. Real data does not come with them.
      epochs: epochs of the training.
      prior: which of them methods use: `observed`, `clean`, or `uniform` for neither.
      transition_matrix: C rows P(observed | true) of synthetic noise, or None where it is not known.
    """

    num_classes: int
    observed_counts: tuple[int, ...]
    clean_counts: tuple[int, ...]
    epochs: int = 1
    prior: Literal["observed", "clean", "uniform"] = "observed"
    transition_matrix: tuple[tuple[float, ...], ...] | None = None

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Examples of each class as far as methods may know, C numbers."""
        uniform = (1,) * self.num_classes
        counts = {"observed": self.observed_counts, "clean": self.clean_counts, "uniform": uniform}
        return tuple(counts[self.prior])

    @property
    def class_prior(self) -> tuple[float, ...]:
        """Shares of the classes, C numbers summing to 1."""
        total = sum(self.class_counts)
        return tuple(count / total for count in self.class_counts)


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


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods. Hashable, so that it can be a static argument of `jit`.

    Fields with a default are the method's options, and become flags of the command line; those without are
    worked out from the facts by `from_facts`.

    Class attributes:
      networks: how many networks are trained side by side.
      views: augmented views of each image a step needs, 1 or 2.
      forward_passes: forward passes of one network for each example, in a step and between epochs, where
        cross-entropy has 1; for the list of methods.
      classifier: the last layer it needs, `linear` or `cosine`.
      told: options without a default that means anything: what a person has to decide, with an example.
    """

    networks: ClassVar[int] = 1
    views: ClassVar[int] = 1
    forward_passes: ClassVar[float] = 1
    classifier: ClassVar[Literal["linear", "cosine"]] = "linear"
    told: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def from_facts(cls, facts: TrainingFacts, **options: Any) -> Self:
        """The method for a training set."""
        del facts
        return cls(**options)

    @property
    def needs_auxiliaries(self) -> bool:
        """Whether `loss` reads the auxiliary models' logits from the batch."""
        return False

    @property
    def first_stage(self) -> "Method | None":
        """The method that trains what this one starts from, or None to start from nothing."""
        return None

    @property
    def second_stage(self) -> SecondStage | None:
        """How to go on from the first stage."""
        return None

    @property
    def meta_per_class(self) -> int | None:
        """Training images of each class taken out as a meta set."""
        return 0

    @property
    def meta_labels(self) -> Literal["observed", "clean"] | None:
        """Which labels the meta set is drawn by and has."""
        return "observed"

    def init(self, num_examples: int, num_classes: int) -> Any:
        """Per-example state at the start: a pytree of `[num_examples, ...]`, or `()` for none."""
        del num_examples, num_classes
        return ()

    def init_shared(self, num_classes: int) -> Any:
        """State of the whole training set at the start: a pytree of arrays, or `()` for none."""
        del num_classes
        return ()

    def refresh_before(self, epoch: int) -> bool:
        """Whether `refresh` is to be called when `epoch` epochs are done, before the next. On the host."""
        del epoch
        return False

    def refresh(
        self, logits: np.ndarray, labels: np.ndarray, example_state: Any, shared_state: Any
    ) -> tuple[Any, Any]:
        """New states from the networks' outputs on the whole training set. On the host.

        Args:
          logits: float32 `[M, C]`, or `[M, K, C]` for K networks: outputs in evaluation mode on the images
            as they are.
          labels: int32 `[M]`, observed labels.
          example_state: the present per-example state.
          shared_state: the present shared state.

        Returns:
          Both states.
        """
        raise NotImplementedError

    def start(self, trained: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        """Variables to start the second stage with, from those of the first and newly drawn ones."""
        del fresh
        return trained

    def deployed(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Variables to predict with, from those that were trained."""
        return variables

    def prepare(
        self,
        batch: Batch,
        example_state: Any,
        networks: Networks,
        key: jax.Array,
        *,
        epoch: jax.Array,
        axis_name: str | None,
    ) -> Batch:
        """Makes the inputs of the step, before and outside the gradient.

        Args:
          batch: the examples, n rows.
          example_state: their rows of the per-example state.
          networks: the present networks.
          key: PRNG key of this step, equal on all devices.
          epoch: as for `loss`.
          axis_name: mapped axis over which the batch is split, or None.

        Returns:
          The batch, with `inputs` and `extra` if the images are not the inputs.
        """
        del example_state, networks, key, epoch, axis_name
        return batch

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
          logits: `[n, C]`, the model's outputs in training mode, which the gradient is taken through;
            `[m, C]` where `prepare` made m inputs; `[K, n, C]` or `[K, m, C]` for K networks.
          batch: the examples, n rows.
          example_state: the rows of the per-example state that belong to the batch.
          epoch: float32 `[]`, epochs done so far, with the fraction within the epoch.
          axis_name: mapped axis over which the batch is split, or None.
        """
        raise NotImplementedError

    def predict(self, logits: jax.Array) -> jax.Array:
        """Turns the outputs for n images, `[n, C]` or `[K, n, C]`, into logits `[n, C]` of the prediction."""
        return logits if self.networks == 1 else logits.mean(0)

    def check(self, check: Callable[..., None], option: str, *bounds: Any, **how: Any) -> None:
        """Checks the range of an option when the method is built.

        Raises:
          InputError: naming the option.
        """
        try:
            check(getattr(self, option), option, *bounds, **how)
        except ValueError as error:
            raise InputError(str(error)) from None
