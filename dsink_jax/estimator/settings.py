"""What a person may choose about a fit, and what is chosen for those who do not."""

import dataclasses
import inspect
import numbers
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from dsink_jax.errors import InputError, check_known
from dsink_jax.methods import MethodOptions, check_method_name
from dsink_jax.models import MODELS, check_model_name

MakeModule = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How D-SINK is fitted to arrays.

    Attributes:
      model: name of a network of `dsink_jax.models`; or a function `(num_classes=..., classifier=...,
        axis_name=...)` that gives a Flax Linen module called as `module(inputs, train=...)`, inputs `[N, D]`
        or `[N, H, W, channels]`, which returns logits `[N, C]`. `auto` is `linear` for vectors and `wide_cnn`
        for images.
      imbalance_method: how f_L is trained, one of `dsink_jax.methods.METHODS`.
      noise_method: how f_N is trained.
      base: what the target optimises beside the D-SINK loss.
      alpha: weight of the D-SINK loss, at least 0.
      options: options of these methods, `dsink_jax.methods.MethodOptions` or a dictionary of its fields, such
        as `{"coteaching_noise_rate": "estimated"}`.
      epochs: passes over the training set.
      batch_size: examples a step.
      learning_rate: highest learning rate; it falls to 0 along a cosine.
      momentum: in [0, 1).
      weight_decay: added to the gradient, at least 0.
      crop_padding: zero pixels on every side before a random crop of each training image; 0 for none.
      flip: whether training images are mirrored at random.
      seed: decides initial parameters, order and augmentation.
    """

    model: str | MakeModule = "auto"
    imbalance_method: str = "logit_adjustment"
    noise_method: str = "elr"
    base: str = "logit_adjustment"
    alpha: float = 10.0
    options: Any = dataclasses.field(default_factory=MethodOptions)
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop_padding: int = 0
    flip: bool = False
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.model, str) and self.model != "auto":
            check_model_name(self.model)
        elif not isinstance(self.model, str) and not callable(self.model):
            raise InputError(
                f"model must be a name ({', '.join(MODELS)}) or a function that makes a Flax module, "
                f"got {self.model!r}."
            )
        if not isinstance(self.model, str):
            _check_maker(self.model)
        for name in (self.imbalance_method, self.noise_method, self.base):
            check_method_name(name)
        if isinstance(self.options, dict):
            object.__setattr__(self, "options", _options(self.options))
        if not isinstance(self.options, MethodOptions):
            raise InputError(
                "options must be a dictionary or dsink_jax.methods.MethodOptions, got "
                f"{type(self.options).__name__}."
            )
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed < 2**32:
            raise InputError(f"The seed must be an integer in [0, 2^32), got {self.seed!r}.")
        if not isinstance(self.alpha, numbers.Real) or not 0 <= self.alpha < float("inf"):
            raise InputError(f"alpha must be at least 0, got {self.alpha!r}.")
        if not isinstance(self.crop_padding, numbers.Integral) or self.crop_padding < 0:
            raise InputError(f"crop_padding must be an integer of at least 0, got {self.crop_padding!r}.")


def _check_maker(make):
    """Raises `InputError` for a module itself, or a function of other arguments."""
    how = "lambda num_classes, classifier, axis_name: MyModule(num_classes)"
    if isinstance(make, nn.Module):
        raise InputError(
            f"model must be a function that makes a Flax Linen module, got a {type(make).__name__} itself: "
            f"give model={how}."
        )
    try:
        signature = inspect.signature(make)
    except ValueError:  # of what is not written in Python
        return
    try:
        signature.bind(num_classes=2, classifier="linear", axis_name=None)
    except TypeError as error:
        raise InputError(
            f"model must take num_classes, classifier and axis_name by name ({error}), such as\nmodel={how}."
        ) from None


def _options(given):
    """Options by name."""
    known = sorted(field.name for field in dataclasses.fields(MethodOptions))
    for name in given:
        check_known("option", name, known)
    return MethodOptions(**given)


def changed(settings: Settings | None, changes: dict[str, Any]) -> Settings:
    """Settings, the default ones if there are none, with fields changed by name.

    Raises:
      InputError: for a name that is no field, or a value out of range.
    """
    known = sorted(field.name for field in dataclasses.fields(Settings))
    for name in changes:
        check_known("setting", name, known)
    return dataclasses.replace(settings or Settings(), **changes)
