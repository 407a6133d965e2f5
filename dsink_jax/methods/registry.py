"""Methods by name, as the command lines choose them."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Literal, get_args

from dsink_jax.errors import InputError
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods.base import Method, TrainingFacts
from dsink_jax.methods.single import (
    CrossEntropy,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
)

Prior = Literal["observed", "clean", "uniform"]


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """Options of the named methods.

    Attributes:
      prior: class prior of logit adjustment. `observed` counts the labels as given; `clean` counts the
        true labels, which real data does not tell; `uniform` makes it plain cross-entropy.
      tau: strength of logit adjustment, at least 0.
      gce_q: q of generalised cross-entropy, in (0, 1].
      elr_weight: strength of early-learning regularisation, at least 0.
      elr_momentum: momentum of its targets, in [0, 1].
    """

    prior: Prior = "observed"
    tau: float = 1.0
    gce_q: float = 0.7
    elr_weight: float = 3.0
    elr_momentum: float = 0.7

    def __post_init__(self):
        if self.prior not in get_args(Prior):
            raise InputError(f"Unknown prior {self.prior!r}. Known priors: {', '.join(get_args(Prior))}.")
        try:
            check_at_least(self.tau, "tau", 0)
            check_range(self.gce_q, "gce_q", 0.0, 1.0, low_open=True)
            check_at_least(self.elr_weight, "elr_weight", 0)
            check_range(self.elr_momentum, "elr_momentum", 0.0, 1.0)
        except ValueError as error:
            raise InputError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named method.

    Attributes:
      build: makes the method from what is known of the training set and the options.
      robust_to: what it is meant for: `imbalance`, `noise` or `nothing`.
      summary: one line with the source.
    """

    build: Callable[[TrainingFacts, MethodOptions], Method]
    robust_to: Literal["imbalance", "noise", "nothing"]
    summary: str


def class_prior(prior: Prior, facts: TrainingFacts) -> tuple[float, ...]:
    """Class prior, C numbers summing to 1, from observed counts, true counts or nothing."""
    counts = {
        "observed": facts.observed_counts,
        "clean": facts.clean_counts,
        "uniform": (1,) * facts.num_classes,
    }[prior]
    total = sum(counts)
    return tuple(count / total for count in counts)


METHODS: dict[str, Entry] = {
    "cross_entropy": Entry(
        lambda facts, options: CrossEntropy(), "nothing", "cross-entropy on the observed labels"
    ),
    "logit_adjustment": Entry(
        lambda facts, options: LogitAdjustment(class_prior(options.prior, facts), options.tau),
        "imbalance",
        "logit-adjusted cross-entropy (Menon et al., arXiv 2007.07314)",
    ),
    "gce": Entry(
        lambda facts, options: GeneralizedCrossEntropy(options.gce_q),
        "noise",
        "generalised cross-entropy (Zhang and Sabuncu, arXiv 1805.07836)",
    ),
    "elr": Entry(
        lambda facts, options: EarlyLearningRegularization(options.elr_weight, options.elr_momentum),
        "noise",
        "early-learning regularisation (Liu et al., arXiv 2007.00151)",
    ),
}


def check_method_name(name: str) -> None:
    """Raises `InputError` for an unknown name, with the nearest known one."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"Unknown method {name!r}.{hint} Known methods: {', '.join(METHODS)}.")


def build_method(name: str, facts: TrainingFacts, options: MethodOptions | None = None) -> Method:
    """The method called `name`, ready to train.

    Raises:
      InputError: for an unknown name.
    """
    check_method_name(name)
    return METHODS[name].build(facts, options or MethodOptions())
