"""The interface of a training method: what a model optimises, and what its outputs mean.

A method is a frozen dataclass of options with pure functions: `init`, `loss` and `predict`. It never touches
files, devices or optimisers: the train step hands it one device's share of a batch. What comes from the data
it is given as arrays, the `TrainingFacts`, so that nothing is compiled anew for other data. Few methods need
more than these three functions; `hooks.py` has what those are asked for.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import numpy as np

from dsink_jax.errors import InputError, check_known

Array = jax.Array | np.ndarray


class TrainingFacts(NamedTuple):
    """What a method may know about the training set: arrays, whatever the data.

    Attributes:
      class_counts: float32 `[C]`, examples of each class as far as methods may know; only ratios matter where
        nobody knows the counts.
      class_prior: float32 `[C]`, their shares; of several labels an example, the share of the examples that
        have each.
      epochs: float32 `[]`, epochs of the training, those of a first stage if there are two.
      transition_matrix: float32 `[C, C]`, P(observed | true) of synthetic noise; None where it is not known.
    """

    class_counts: Array
    class_prior: Array
    epochs: Array
    transition_matrix: Array | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_counts)


def make_facts(class_counts: Any, epochs: int, transition_matrix: Any = None) -> TrainingFacts:
    """The facts from numbers of any kind: NumPy arrays.

    >>> make_facts([30, 10], epochs=5).class_prior.tolist()
    [0.75, 0.25]
    """
    counts = np.asarray(class_counts, np.float64)
    return TrainingFacts(
        counts.astype(np.float32),
        (counts / counts.sum()).astype(np.float32),
        np.asarray(epochs, np.float32),
        None if transition_matrix is None else np.asarray(transition_matrix, np.float32),
    )


class Batch(NamedTuple):
    """One device's share of a batch, n examples, and what goes with it.

    Attributes:
      inputs: `[n, ...]`, augmented and standardised.
      labels: int32 `[n]`, observed labels; 0 and 1 `[n, C]` for several labels an example.
      where: bool `[n]`, False for padding.
      noise_robust_logits: float32 `[n, C]`, f_N's logits (softmax is its prediction), or None.
      imbalance_robust_logits: float32 `[n, C]`, the same of f_L, or None.
      second_view: the same inputs under other draws of the augmentation, for methods that ask for it.
      meta_inputs: `[K, ...]`, the meta set, class by class, not augmented; the same on all devices. None
        unless the method has one.
      meta_labels: int32 `[K]`.
      prepared: what the networks are fed, if the method made something else of the inputs: an array
        `[m, ...]` or, for several networks, a tuple with one for each.
      extra: whatever the method wants to tell its `loss` about that.
    """

    inputs: jax.Array
    labels: jax.Array
    where: jax.Array
    noise_robust_logits: jax.Array | None = None
    imbalance_robust_logits: jax.Array | None = None
    second_view: jax.Array | None = None
    meta_inputs: jax.Array | None = None
    meta_labels: jax.Array | None = None
    prepared: Any = None
    extra: Any = None


class Context(NamedTuple):
    """Where a training is, and what is known of the data.

    Attributes:
      facts: of the training set.
      epoch: float32 `[]`, epochs done so far, with the fraction within the epoch.
      shared_state: what the method knows of the whole training set; see `hooks.LooksAtTrainingSet`.
      axis_name: mapped axis over which the batch is split, or None.
    """

    facts: TrainingFacts
    epoch: Any = 0.0
    shared_state: Any = ()
    axis_name: str | None = None


class MethodLoss(NamedTuple):
    """What a method's `loss` returns.

    Attributes:
      values: float32 `[n]`, loss of each example; the step averages over the valid rows of all devices.
      example_state: pytree of `[n, ...]`, the new rows of the per-example state.
      metrics: named diagnostics: `[n]` values are averaged like the loss, scalars must already be equal on
        all devices.
      predictions: logits `[n, C]` to measure the training accuracy by, where `predict` of the logits is not
        the prediction of the n inputs.
    """

    values: jax.Array
    example_state: Any = ()
    metrics: Mapping[str, jax.Array] = {}
    predictions: jax.Array | None = None


class Options:
    """What methods and distillation terms share: options that can be checked, listed and changed by name.

    Class attributes:
      static: options that are numbers and that programs are compiled for all the same.
    """

    static: ClassVar[tuple[str, ...]] = ()

    def check(self, check: Callable[..., None], option: str, *bounds: Any, **how: Any) -> None:
        """Checks the range of an option when the object is built.

        Raises:
          InputError: naming the option.
        """
        value = getattr(self, option)
        try:
            check(value, option, *bounds, **how)
            if isinstance(value, float):  # what programs compute with must be within the bounds too
                check(float(np.float32(value)), option, *bounds, **how)
        except ValueError as error:
            raise InputError(str(error)) from None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn asks for them."""
        del deep
        return {field.name: getattr(self, field.name) for field in option_fields(type(self))}

    def set_params(self, **changes: Any) -> Self:
        """Changes options in place, as scikit-learn's searches do with `noise_method__momentum`.

        Raises:
          InputError: for an unknown option, or one that is out of range.
        """
        for name in changes:
            check_known("option", name, [field.name for field in option_fields(type(self))])
        dataclasses.replace(self, **changes)  # type: ignore[type-var]  # checks them
        for name, value in changes.items():
            object.__setattr__(self, name, value)
        return self


@dataclasses.dataclass(frozen=True)
class Method(Options):
    """Base of all methods: cross-entropy says `loss` alone, most others no more.

    Fields are options, all with a default. Those that are numbers may change from fit to fit and nothing is
    compiled anew: in `loss` and `predict` they are arrays. The others are static.

    Class attributes:
      networks: how many networks are trained side by side.
      needs: what a network must provide beside logits: `features`, `classifier`.
      classifier: the last layer it needs, `linear` or `cosine`.
      forward_passes: forward passes of one network for each example, in a step and between epochs, where
        cross-entropy has 1; for the list of methods.
      required: options that have no default of any meaning, with an example for each.
      several_labels: whether it is for indicators `[n, C]` of several labels an example.
      tempered: whether its option `temperature` divides the logits of predictions, with no part in training.
    """

    networks: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    classifier: ClassVar[Literal["linear", "cosine"]] = "linear"
    forward_passes: ClassVar[float] = 1
    required: ClassVar[Mapping[str, Any]] = {}
    several_labels: ClassVar[bool] = False
    tempered: ClassVar[bool] = False

    @property
    def is_balanced(self) -> bool:
        """Whether predictions are known to count all classes alike, whatever their shares."""
        return False

    def check_facts(self, facts: TrainingFacts) -> None:
        """Raises `InputError` for a training set that the method cannot learn from, before any training."""

    def init(self, num_examples: int, num_classes: int) -> Any:
        """Per-example state at the start: a pytree of `[num_examples, ...]`, or `()` for none."""
        del num_examples, num_classes
        return ()

    def loss(self, logits: jax.Array, batch: Batch, example_state: Any, context: Context) -> MethodLoss:
        """Per-example loss of one device's share of the batch.

        Args:
          logits: `[n, C]`, the network's outputs in training mode, which the gradient is taken through;
            `[m, C]` where the method prepared m inputs; `[K, n, C]` or `[K, m, C]` for K networks.
          batch: the examples, n rows.
          example_state: the rows of the per-example state that belong to the batch.
          context: where the training is.
        """
        raise NotImplementedError

    def predict(self, logits: jax.Array, facts: TrainingFacts) -> jax.Array:
        """Turns the outputs for n inputs, `[n, C]` or `[K, n, C]`, into logits `[n, C]` of the prediction."""
        del facts
        return logits if self.networks == 1 else logits.mean(0)


def option_fields(kind: type) -> list[dataclasses.Field]:
    """The options of a method's class: its fields that can be given."""
    return [field for field in dataclasses.fields(kind) if field.init]


def numbers_of(options: Any) -> dict[str, np.float32]:
    """The options of an object that are numbers to be tuned, by name, as arrays of a program.

    >>> from dsink_jax.methods.early_learning import EarlyLearningRegularization
    >>> numbers_of(EarlyLearningRegularization(weight=2.0))
    {'weight': np.float32(2.0), 'momentum': np.float32(0.7)}
    """
    if options is None:
        return {}
    fields = dataclasses.fields(options)
    return {f.name: np.float32(getattr(options, f.name)) for f in fields if _is_number(f, options)}


def with_numbers(options: Any, numbers: Mapping[str, Any]) -> Any:
    """A copy of an object with other numbers, arrays or tracers, which are not checked anew."""
    if not numbers:
        return options
    copy = object.__new__(type(options))
    for field in dataclasses.fields(options):
        value = numbers.get(field.name, getattr(options, field.name))
        object.__setattr__(copy, field.name, value)
    return copy


def static_part(options: Any) -> Any:
    """A copy of an object without its numbers: equal for all that one program serves."""
    return with_numbers(options, dict.fromkeys(numbers_of(options), 0.0))


def _is_number(field, options):
    """Integers count and bound things, floats are tuned."""
    if field.name in options.static:
        return False
    value = getattr(options, field.name)
    return isinstance(value, float | np.floating) or (field.type in (float, "float") and value is not None)
