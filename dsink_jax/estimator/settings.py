"""What a person may choose about a fit, and what is chosen for those who do not."""

import copy
import dataclasses
import numbers
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from dsink_jax.data import Preprocess
from dsink_jax.errors import InputError, check_known
from dsink_jax.methods import (
    SEVERAL_LABELS,
    Distillation,
    DSink,
    Method,
    MethodLike,
    MultilabelDSink,
    OpenSetDSink,
    TrainingFacts,
    build_method,
    check_method_name,
)
from dsink_jax.methods.registry import all_options
from dsink_jax.models import MODELS, Model, Network, check_model_name, check_model_takes, make_model
from dsink_jax.open_set import ESTIMATED
from dsink_jax.recipe import TARGET, AuxiliaryPredictions, ModelSpec, auxiliary_specs
from dsink_jax.training import OptimizerSettings, TrainingSettings
from dsink_jax.training.optimizer import OptimizerLike

AUTO = "auto"  # a method that is left open
_NOISE_METHOD_OF_SEVERAL = "binary_gce"
NOISE_METHOD, _WEIGHT_DECAY = "elr", 5e-4  # where nothing is chosen
# Of heads where examples may be of no class: more makes logits alike, and energies tell them less.
_OPEN_SET_WEIGHT_DECAY = 1e-4
EPOCHS, _LEAST_STEPS, _ALPHA = 30, 1000, 10.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """How D-SINK is fitted to arrays.

    Attributes:
      model: the network: a name of `dsink_jax.models`; a Flax Linen or NNX module; a function that makes one,
        given those of num_classes, classifier, axis_name and rngs that it takes; or a pair of functions
        (init, apply). See `dsink_jax.models.make_model`. `auto` is `linear` for vectors and `wide_cnn` for
        images.
      imbalance_method: how f_L is trained: one of `dsink_jax.methods.METHODS`, a method itself, such as
        `LogitAdjustment(tau=0.5)`, or a function of the `TrainingFacts` that gives one.
      noise_method: how f_N is trained, likewise; `auto` to choose it for feature vectors, `elr` for others.
      base: what the target optimises beside the D-SINK loss, likewise.
      alpha: weight of the D-SINK loss, at least 0; None for 10, and for 100 where something is chosen by
        labels held out: the auxiliary models then know more than the labels do.
      known_share: share of the examples that are of a class, in (0, 1], where others are in the training set
        with labels all the same; `estimated` to take what the energies of f_L and f_N say; see
        `dsink_jax.open_set_dsink_loss` and `estimate_known_share`. The target learns little of the others.
      options: options of methods that are given by name, under the names that flags have, such as
        `{"coteaching_noise_rate": "estimated"}`.
      auxiliary_predictions: what the target learns from: f_N and f_L run on its own augmented inputs
        (`online`), their predictions for each input as it is (`cached`), or those of models that have not
        seen the example (`out_of_fold`, which trains f_N and f_L once more for each fold).
      folds: into how many parts examples are split for predictions out of fold.
      epochs: passes over the training set; None for 30, and for feature vectors and networks by name as many
        as 1,000 steps take if that is more.
      batch_size: examples a step.
      optimizer: `sgd`, `adamw`, or an `optax.GradientTransformation`, which has its own learning rate.
      learning_rate: highest learning rate; it falls to 0 along a cosine.
      momentum: of SGD, in [0, 1).
      weight_decay: at least 0; added to the gradient by SGD, decoupled by AdamW. None to choose it for
        feature vectors, 1e-4 for those where `known_share` is not 1, 5e-4 for others.
      selection: whether what is left open of `noise_method` and `weight_decay` is chosen by labels held out,
        for feature vectors and networks by name; see `dsink_jax.estimator.selection`. False for the method as
        published: f_N by ELR, weight decay 5e-4.
      preprocess: augmentation of training inputs, `(key, batch) -> batch`, such as
        `dsink_jax.data.RandomFlip()`; None for none. What was compiled for an object is used as long as it
        is the same object: make another instead of changing it.
      standardize: whether features and channels are brought to mean 0 and standard deviation 1; False leaves
        inputs as they are, integers too.
      average_decay: share of a moving average of the target's parameters that is kept a step, such as 0.99,
        by which it then predicts; None for no average.
      on_nan: what to do with a step whose loss or gradient is not finite: `stop` the training, or `skip` the
        step, which then changes nothing.
      seed: decides initial parameters, order and augmentation.
    """

    model: Network = "auto"
    imbalance_method: MethodLike = "logit_adjustment"
    noise_method: MethodLike = AUTO
    base: MethodLike = "logit_adjustment"
    alpha: float | None = None
    known_share: float | Literal["estimated"] = 1.0
    options: Mapping[str, Any] | None = None
    auxiliary_predictions: AuxiliaryPredictions = "online"
    folds: int = 5
    epochs: int | None = None
    batch_size: int = 128
    optimizer: OptimizerLike = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float | None = None
    selection: bool = True
    preprocess: Preprocess | None = None
    standardize: bool = True
    average_decay: float | None = None
    on_nan: Literal["stop", "skip"] = "stop"
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.model, str) and self.model != "auto":
            check_model_name(self.model)
        for name in ("imbalance_method", "noise_method", "base"):
            method = getattr(self, name)
            if isinstance(method, str):
                if not (name == "noise_method" and method == AUTO) and method not in SEVERAL_LABELS:
                    check_method_name(method)
            elif isinstance(method, Method):  # `set_params` of the one given is to change no fitted model
                object.__setattr__(self, name, copy.copy(method))
        if not isinstance(self.options, Mapping | types.NoneType):
            raise InputError(f"options must be a dictionary, got {type(self.options).__name__}.")
        methods = {one.full_name: one.method for one in all_options()}
        given = {name: getattr(self, name) for name in ("imbalance_method", "noise_method", "base")}
        for option in self.options or {}:
            check_known("option", option, list(methods))
            if methods[option] not in (*given.values(), NOISE_METHOD if self.noise_method == AUTO else None):
                raise InputError(
                    f"The option {option} is one of {methods[option]}, and "
                    f"{', '.join(f'{name} is {value!r}' for name, value in given.items())}: it would do "
                    "nothing. Give the method by that name too."
                )
        check_known("auxiliary_predictions", self.auxiliary_predictions, get_args(AuxiliaryPredictions))
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed < 2**32:
            raise InputError(f"The seed must be an integer in [0, 2^32), got {self.seed!r}.")
        if self.alpha is not None and (
            not isinstance(self.alpha, numbers.Real) or not 0 <= self.alpha < float("inf")
        ):
            raise InputError(f"alpha must be at least 0, got {self.alpha!r}.")
        share = self.known_share
        if isinstance(share, bool) or (
            not 0 < share <= 1 if isinstance(share, numbers.Real) else share != ESTIMATED
        ):
            raise InputError(f"known_share must be in (0, 1] or {ESTIMATED!r}, got {share!r}.")
        if self.model is None or isinstance(self.model, int | float):
            raise InputError(
                f"model must be a name ({', '.join(MODELS)}), a module, or a function that makes one, "
                f"got {self.model!r}."
            )
        if self.batch_size == 0:
            raise InputError("batch_size must be an integer of at least 1, got 0.")
        _ = self.training(self.batch_size)  # checks its own ranges

    def training(self, batch_size: int, steps_in_epoch: int = 0) -> TrainingSettings:
        """How long and in what steps to train.

        Args:
          batch_size: one that goes with devices and data.
          steps_in_epoch: where a number of steps is to be reached if `epochs` are left open, or 0.
        """
        weight_decay = _WEIGHT_DECAY if self.weight_decay is None else self.weight_decay
        optimizer = OptimizerSettings(
            self.optimizer, self.learning_rate, "cosine", self.momentum, False, weight_decay
        )
        epochs = self.epochs
        if epochs is None:
            epochs = max(EPOCHS, -(-_LEAST_STEPS // steps_in_epoch) if steps_in_epoch else 0)
        return TrainingSettings(epochs, batch_size, optimizer, self.preprocess, on_nan=self.on_nan)

    def model_for(self, num_classes: int, shape: tuple[int, ...]) -> Callable[[Method], Model]:
        """The network for a method, of C classes and examples of a shape.

        Raises:
          InputError: if there is no network by name for such examples.
        """
        network = self.model
        if isinstance(network, str):
            if network == "auto":
                network = "linear" if len(shape) == 1 else "wide_cnn"
            check_model_takes(network, (1, *shape))
        return lambda method: make_model(
            network, num_classes, classifier=method.classifier, networks=method.networks
        )

    @property
    def leaves_noise_method_open(self) -> bool:
        """Whether f_N's method is to be chosen: options of ELR among `options` choose it."""
        return self.noise_method == AUTO and not any(
            option.startswith(f"{NOISE_METHOD}_") for option in self.options or {}
        )

    def selects(self, shape: tuple[int, ...]) -> bool:
        """Whether something is to be chosen by labels held out, for examples of a shape."""
        open_to_choice = self.leaves_noise_method_open or self.weight_decay is None
        steps_by_name = isinstance(self.optimizer, str)
        return self.selection and open_to_choice and steps_by_name and self.trains_heads(shape)

    @property
    def weight_decay_of_heads(self) -> float | None:
        """Weight decay where something is chosen by labels held out; None if that is to be chosen too."""
        if self.weight_decay is None and self.is_open_set:
            return _OPEN_SET_WEIGHT_DECAY
        return self.weight_decay

    def trains_heads(self, shape: tuple[int, ...]) -> bool:
        """Whether a network by name is trained on feature vectors."""
        return isinstance(self.model, str) and len(shape) == 1

    @property
    def is_open_set(self) -> bool:
        """Whether some examples may be of no class."""
        return self.known_share != 1

    def _term(self, alpha, several_labels) -> Distillation:
        if several_labels:
            return MultilabelDSink(alpha)
        if not self.is_open_set:
            return DSink(alpha)
        share = self.known_share
        # An estimate needs the auxiliary models; it takes the place of the 1 when they are there.
        return OpenSetDSink(alpha, known_share=1.0 if isinstance(share, str) else float(share))

    def _options_of(self, method):
        """The options of a method that is given by name."""
        own = {one.full_name: one.name for one in all_options() if one.method == method}
        return {own[name]: value for name, value in (self.options or {}).items() if name in own}

    def specs(self, facts: TrainingFacts, target: bool, *, several_labels: bool = False) -> list[ModelSpec]:
        """f_L, f_N and, if it is wanted, the target.

        Args:
          facts: what is known of the training set.
          target: whether the target is wanted.
          several_labels: whether an example may have several.

        Raises:
          InputError: for an option that is out of range, or one that has to be given and is not.
        """
        given = {name: getattr(self, name) for name in ("imbalance_method", "noise_method", "base")}
        if given["noise_method"] == AUTO:
            given["noise_method"] = _NOISE_METHOD_OF_SEVERAL if several_labels else NOISE_METHOD
        methods = {
            name: build_method(method, self._options_of(method), facts, several_labels=several_labels)
            for name, method in given.items()
        }
        labels = {name: _in_words(method) for name, method in given.items()}
        specs = auxiliary_specs(
            noise_robust=methods["noise_method"],
            imbalance_robust=methods["imbalance_method"],
            labels={"noise_robust": labels["noise_method"], "imbalance_robust": labels["imbalance_method"]},
        )
        if target:
            own = ModelSpec(
                TARGET,
                methods["base"],
                "target",
                self._term(_ALPHA if self.alpha is None else float(self.alpha), several_labels),
                auxiliary_predictions=self.auxiliary_predictions,
                average_decay=self.average_decay,
                label=labels["base"],
            )
            specs.append(own)
        return specs


def _in_words(method):
    return method if isinstance(method, str) else type(method).__name__ if isinstance(method, Method) else ""


def changed(settings: Settings | None, changes: dict[str, Any]) -> Settings:
    """Settings, the default ones if there are none, with fields changed by name.

    Raises:
      InputError: for a name that is no field, or a value out of range.
    """
    known = sorted(field.name for field in dataclasses.fields(Settings))
    for name in changes:
        check_known("setting", name, known)
    return dataclasses.replace(settings or Settings(), **changes)
