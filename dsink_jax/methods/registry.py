"""Methods by name, as settings and command lines choose them, and their options by name."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax

from dsink_jax.errors import InputError, check_known
from dsink_jax.methods.base import Method, TrainingFacts, option_fields
from dsink_jax.methods.bootstrapping import HardBootstrapping, SoftBootstrapping
from dsink_jax.methods.class_balanced import ClassBalanced, Focal
from dsink_jax.methods.coteaching import CoTeaching
from dsink_jax.methods.cross_entropy import CrossEntropy, LabelSmoothing
from dsink_jax.methods.decoupled import ClassifierRetraining, TauNormalization
from dsink_jax.methods.dividemix import DivideMix
from dsink_jax.methods.early_learning import EarlyLearningRegularization
from dsink_jax.methods.forward_correction import ForwardCorrection
from dsink_jax.methods.generalized_cross_entropy import (
    GeneralizedCrossEntropy,
    SymmetricCrossEntropy,
    TruncatedGeneralizedCrossEntropy,
)
from dsink_jax.methods.ldam import LdamDrw
from dsink_jax.methods.logit_adjustment import BalancedSoftmax, LogitAdjustment, PostHocLogitAdjustment
from dsink_jax.methods.mixup import Mixup
from dsink_jax.methods.reweighting import TransportReweighting
from dsink_jax.methods.several_labels import BinaryGeneralizedCrossEntropy, BinaryLogitAdjustment
from dsink_jax.methods.tabasco import Tabasco

RobustTo = Literal["imbalance", "noise", "nothing"]
# A method as people give it: by name, as an object, or made from what is known of the training set.
MethodLike = str | Method | Callable[[TrainingFacts], Method]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named method.

    Attributes:
      method: its class.
      robust_to: what it is meant for.
      source: the paper.
    """

    method: type[Method]
    robust_to: RobustTo
    source: str


METHODS: dict[str, Entry] = {
    "cross_entropy": Entry(CrossEntropy, "nothing", "-"),
    "logit_adjustment": Entry(LogitAdjustment, "imbalance", "Menon et al., arXiv 2007.07314"),
    "posthoc_logit_adjustment": Entry(PostHocLogitAdjustment, "imbalance", "Menon et al., arXiv 2007.07314"),
    "balanced_softmax": Entry(BalancedSoftmax, "imbalance", "Ren et al., arXiv 2007.10740"),
    "ldam_drw": Entry(LdamDrw, "imbalance", "Cao et al., arXiv 1906.07413"),
    "class_balanced": Entry(ClassBalanced, "imbalance", "Cui et al., arXiv 1901.05555"),
    "focal": Entry(Focal, "imbalance", "Lin et al., arXiv 1708.02002"),
    "crt": Entry(ClassifierRetraining, "imbalance", "Kang et al., arXiv 1910.09217"),
    "tau_norm": Entry(TauNormalization, "imbalance", "Kang et al., arXiv 1910.09217"),
    "ot_reweighting": Entry(TransportReweighting, "imbalance", "Guo et al., arXiv 2208.02951"),
    "elr": Entry(EarlyLearningRegularization, "noise", "Liu et al., arXiv 2007.00151"),
    "gce": Entry(GeneralizedCrossEntropy, "noise", "Zhang and Sabuncu, arXiv 1805.07836"),
    "truncated_gce": Entry(TruncatedGeneralizedCrossEntropy, "noise", "Zhang and Sabuncu, arXiv 1805.07836"),
    "sce": Entry(SymmetricCrossEntropy, "noise", "Wang et al., arXiv 1908.06112"),
    "label_smoothing": Entry(LabelSmoothing, "noise", "Lukasik et al., arXiv 2003.02819"),
    "mixup": Entry(Mixup, "noise", "Zhang et al., arXiv 1710.09412"),
    "soft_bootstrapping": Entry(SoftBootstrapping, "noise", "Reed et al., arXiv 1412.6596"),
    "hard_bootstrapping": Entry(HardBootstrapping, "noise", "Reed et al., arXiv 1412.6596"),
    "forward_correction": Entry(ForwardCorrection, "noise", "Patrini et al., arXiv 1609.03683"),
    "coteaching": Entry(CoTeaching, "noise", "Han et al., arXiv 1804.06872"),
    "dividemix": Entry(DivideMix, "noise", "Li et al., arXiv 2002.07394"),
    "tabasco": Entry(Tabasco, "noise", "Lu et al., arXiv 2208.09833"),
}


SEVERAL_LABELS: dict[str, Entry] = {
    "binary_logit_adjustment": Entry(BinaryLogitAdjustment, "imbalance", "Menon et al., arXiv 2007.07314"),
    "binary_gce": Entry(BinaryGeneralizedCrossEntropy, "noise", "Zhang and Sabuncu, arXiv 1805.07836"),
}
"""Methods for several labels an example, by name. Settings may leave `binary_` out."""


def method_options(name: str) -> dict[str, dataclasses.Field]:
    """The options of a named method by name."""
    return {field.name: field for field in option_fields((METHODS | SEVERAL_LABELS)[name].method)}


class Option(NamedTuple):
    """An option of a method.

    Attributes:
      method: name of the method.
      name: of the option, as the method has it.
      full_name: its name among the options of all methods, such as `elr_momentum`.
      field: its field, with type and default.
    """

    method: str
    name: str
    full_name: str
    field: dataclasses.Field


def all_options() -> Iterator[Option]:
    """The options of all methods, in the order of `METHODS`."""
    for method in METHODS:
        for name, field in method_options(method).items():
            yield Option(method, name, f"{method}_{name}", field)


def check_method_name(name: str) -> None:
    """Raises `InputError` for an unknown name, with the nearest known one."""
    check_known("method", name, METHODS)


def build_method(
    method: MethodLike,
    options: Mapping[str, Any] | None = None,
    facts: TrainingFacts | None = None,
    *,
    several_labels: bool = False,
) -> Method:
    """A method from what a person gave.

    Args:
      method: one of `METHODS`; or a `Method`, which is given back; or a function of the facts.
      options: options of a named method that are not to have their defaults.
      facts: what is known of the training set, held against what the method needs; None to leave that out.
      several_labels: whether a name is that of a method for several labels an example, `SEVERAL_LABELS`.

    Raises:
      InputError: for an unknown name, an option that is out of range, one that has to be given and is not, or
        a training set that the method cannot learn from.
    """
    if isinstance(method, str):
        name = _for_several(method) if several_labels else method
        if name not in SEVERAL_LABELS:
            check_method_name(name)
        made = _from_name(name, options or {})
    else:
        given: Any = method
        is_class = isinstance(given, type) and issubclass(given, Method)
        is_function = callable(given) and not is_class and not isinstance(given, Method)
        made = given(facts) if is_function else given
        if not isinstance(made, Method):
            if isinstance(method, type) and issubclass(method, Method):
                raise InputError(f"{method.__name__} is the class of a method: give {method.__name__}().")
            raise InputError(
                f"A method must be a name, a dsink_jax.methods.Method, or a function of the training facts "
                f"that gives one, got {method!r}.\nNames: {', '.join(METHODS)}."
            )
        name = method_name(made)
    if facts is not None:
        try:
            made.check_facts(facts)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return made


def _for_several(name):
    """The name of a method for several labels, which may be given as that for one."""
    for known in SEVERAL_LABELS:
        if name in (known, known.removeprefix("binary_")):
            return known
    known = ", ".join(SEVERAL_LABELS)
    raise InputError(f"The method {name!r} is for one label an example. For several there are: {known}.")


def _from_name(name, options):
    method = (METHODS | SEVERAL_LABELS)[name].method
    for option in options:
        check_known(f"option of {name}", option, method_options(name))
    for option, example in method.required.items():
        if options.get(option) is None:
            raise InputError(
                f"{name} must be given its {option.replace('_', ' ')}, such as "
                f"{method.__name__}({option}={example!r})."
            )
    try:
        return method(**options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def method_name(method: Method) -> str:
    """The name of a method among `METHODS` and `SEVERAL_LABELS`, or that of its class."""
    names = (name for name, entry in (METHODS | SEVERAL_LABELS).items() if entry.method is type(method))
    return next(names, type(method).__name__)


def bytes_per_example(method: Method, num_classes: int, item_bytes: int = 4) -> int:
    """Bytes of state that a method keeps for each training example."""
    state = jax.eval_shape(lambda: method.init(1, num_classes))
    return item_bytes * sum(leaf.size for leaf in jax.tree.leaves(state))
