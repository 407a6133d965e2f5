"""Which models a run trains, and in what order."""

import dataclasses
from collections.abc import Callable

from dsink_jax.methods import (
    AdjustedNoiseRobust,
    DSink,
    Ensemble,
    Method,
    NaiveDistillation,
    build_method,
)
from dsink_jax.recipe import IMBALANCE_ROBUST, IMBALANCE_STREAM, NOISE_ROBUST, NOISE_STREAM, TARGET, ModelSpec
from experiments.config import (
    ADJUSTED,
    ENSEMBLE,
    NAIVE,
    NAIVE_TUNED,
    TUNED_NAIVE_ALPHA,
    TUNED_NAIVE_NOISE_WEIGHT,
    Config,
)
from experiments.weakening import Weakening

# The target of a study that differs from the others by nothing; the page of a run shows it as it does TARGET.
STUDY_TARGET = "dsink"


@dataclasses.dataclass(frozen=True, eq=False)
class Spec(ModelSpec):
    """A model of a run.

    Attributes:
      weakening: how its training is made worse on purpose, if it is.
    """

    weakening: Weakening | None = None


def run_specs(config: Config) -> list[Spec]:
    """The models of a run in the order of training: auxiliaries, baselines, target."""

    def method(name):
        return build_method(name, config.options_of(name))

    f_L, f_N = config.imbalance_method, config.noise_method
    return [
        auxiliary_spec(IMBALANCE_ROBUST, method(f_L), f_L, for_noise=False),
        auxiliary_spec(NOISE_ROBUST, method(f_N), f_N, for_noise=True),
        *(baseline_spec(config, name, method) for name in config.baseline_names),
        target_spec(config, method(config.base)),
    ]


def auxiliary_spec(name: str, method: Method, label: str, *, for_noise: bool) -> Spec:
    """An auxiliary model called `name`."""
    return Spec(
        name, method, "auxiliary", stream=NOISE_STREAM if for_noise else IMBALANCE_STREAM, label=label
    )


def baseline_spec(config: Config, name: str, method: Callable[[str], Method]) -> Spec:
    """A baseline by its name, with its method or that of its base made by name."""
    if name in (ENSEMBLE, ADJUSTED):
        return combined_spec(config, name)
    if name == NAIVE:
        return naive_spec(config, method(config.base))
    if name == NAIVE_TUNED:  # with the weights that did best on other seeds
        config = dataclasses.replace(
            config, naive_alpha=TUNED_NAIVE_ALPHA, naive_noise_weight=TUNED_NAIVE_NOISE_WEIGHT
        )
        return naive_spec(config, method(config.base), name)
    return Spec(name, method(name), label=name)


def combined_spec(config: Config, name: str) -> Spec:
    """A baseline that combines both auxiliaries and trains nothing."""
    if name == ENSEMBLE:
        return Spec(name, Ensemble(), label="mean of f_L and f_N")
    prior = config.posthoc_prior
    return Spec(name, AdjustedNoiseRobust(prior), label=f"f_N, {prior} prior")


def naive_spec(config: Config, base: Method, name: str = NAIVE) -> Spec:
    """Naive distillation on a base."""
    alpha, weight = config.naive_alpha, config.naive_noise_weight
    shown = f"{config.base} + {alpha:g} naive" + ("" if weight == 0.5 else f", f_N {weight:g}")
    term = NaiveDistillation(**config.term_settings(alpha), noise_weight=weight)
    return Spec(name, base, "baseline", term, auxiliary_predictions=config.auxiliary_predictions, label=shown)


def target_spec(config: Config, base: Method, name: str = TARGET) -> Spec:
    """D-SINK on a base."""
    term = DSink(
        **config.term_settings(config.alpha),
        threshold=config.threshold,
        max_iterations=config.max_iterations,
        epsilon=config.epsilon,
    )
    return Spec(
        name,
        base,
        "target",
        term,
        auxiliary_predictions=config.auxiliary_predictions,
        average_decay=config.average_decay,
        label=f"{config.base} + {config.alpha:g} D-SINK",
    )
