"""Methods by name, as the command lines choose them, and their options by name."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax

from dsink_jax.errors import InputError, check_known
from dsink_jax.methods.base import Method, TrainingFacts
from dsink_jax.methods.bootstrapping import HardBootstrapping, SoftBootstrapping
from dsink_jax.methods.class_balanced import ClassBalanced, Focal
from dsink_jax.methods.coteaching import CoTeaching
from dsink_jax.methods.cross_entropy import CrossEntropy, LabelSmoothing
from dsink_jax.methods.decoupled import ClassifierRetraining, TauNormalization
from dsink_jax.methods.dividemix import DivideMix
from dsink_jax.methods.docstrings import attribute_help
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

Role = Literal["imbalance", "noise", "nothing"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named method.

    Attributes:
      method: its class.
      robust_to: what it is meant for.
      source: the paper.
    """

    method: type[Method]
    robust_to: Role
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
}


def method_options(name: str) -> dict[str, dataclasses.Field]:
    """The options of a method: its fields that have a default and can be given."""
    fields = dataclasses.fields(METHODS[name].method)
    return {f.name: f for f in fields if f.default is not dataclasses.MISSING and f.init}


def option_name(method: str, option: str) -> str:
    """The name of a method's option among those of all methods."""
    return f"{method}_{option}"


def option_help(name: str) -> dict[str, str]:
    """What the docstring of a method's class says about each attribute, on one line."""
    return attribute_help(METHODS[name].method)


class Option(NamedTuple):
    """An option of a method.

    Attributes:
      method: name of the method.
      name: of the option, as the method has it.
      full_name: its name among the options of all methods.
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
            yield Option(method, name, option_name(method, name), field)


# Options of all methods in one flat dataclass, such as `elr_momentum` for the momentum of elr: flags of a
# command line come from its fields.
MethodOptions = dataclasses.make_dataclass(
    "MethodOptions",
    [
        (option.full_name, option.field.type, dataclasses.field(default=option.field.default))
        for option in all_options()
    ],
    frozen=True,
    namespace={"__module__": __name__},
)
MethodOptions.__doc__ = "Options of all named methods."


def check_method_name(name: str) -> None:
    """Raises `InputError` for an unknown name, with the nearest known one."""
    check_known("method", name, METHODS)


def build_method(name: str, facts: TrainingFacts, options: Any = None) -> Method:
    """The method called `name`, ready to train.

    Args:
      name: one of `METHODS`.
      facts: what is known of the training set.
      options: `MethodOptions`; defaults if left out.

    Raises:
      InputError: for an unknown name, an option that is out of range, or one that has to be told and is not.
    """
    check_method_name(name)
    options = options or MethodOptions()
    chosen = {option: getattr(options, option_name(name, option)) for option in method_options(name)}
    method = METHODS[name].method
    for option, example in method.told.items():
        if chosen[option] is None:
            full = option_name(name, option)
            flag = "--" + full.replace("_", "-")
            raise InputError(
                f"{name} must be told its {option.replace('_', ' ')}: {flag}, such as {flag} {example}.\n"
                f"Meaning: {option_help(name)[option]} In Python: options={{{full!r}: {example!r}}}."
            )
    try:
        return method.from_facts(facts, **chosen)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def unused_options(options: Any, names: set[str]) -> list[tuple[str, str]]:
    """Options that differ from their defaults although their method is none of `names`: (option, method)."""
    return [
        (option.full_name, option.method)
        for option in all_options()
        if option.method not in names and getattr(options, option.full_name) != option.field.default
    ]


def bytes_per_example(method: Method, num_classes: int, item_bytes: int = 4) -> int:
    """Bytes of state that a method keeps for each training example."""
    state = jax.eval_shape(lambda: method.init(1, num_classes))
    return item_bytes * sum(leaf.size for leaf in jax.tree.leaves(state))
