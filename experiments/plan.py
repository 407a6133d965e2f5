"""Which models a run trains, and in what order."""

from collections.abc import Callable
from typing import NamedTuple

from dsink_jax.methods import (
    AdjustedNoiseRobust,
    DSink,
    Ensemble,
    Method,
    NaiveDistillation,
    build_method,
)
from experiments.config import (
    ADJUSTED,
    ENSEMBLE,
    NAIVE,
    NAIVE_TUNED,
    TUNED_NAIVE_ALPHA,
    TUNED_NAIVE_NOISE_WEIGHT,
    Config,
)
from experiments.problem import Problem
from experiments.weakening import Weakening

IMBALANCE_ROBUST, NOISE_ROBUST, TARGET = "imbalance_robust", "noise_robust", "target"
# The target of a study that differs from the others by nothing; the page of a run shows it as it does TARGET.
STUDY_TARGET = "dsink"

# Seeds of auxiliaries are drawn from streams of their own. Target and baselines share stream 0: the same
# initial parameters, order and augmentation, so that they differ by their loss alone.
_COMMON_STREAM, _IMBALANCE_STREAM, _NOISE_STREAM = 0, 1, 2


class Spec(NamedTuple):
    """One model to train, or to put together from the auxiliaries.

    Attributes:
      name: its name in results.json.
      role: `auxiliary`, `baseline` or `target`.
      label: its method in words.
      method: what it optimises, or how the auxiliaries are combined.
      stream: which stream of random numbers it draws from.
      auxiliaries: names of its f_N and f_L, if it needs them.
      weakening: how its training is made worse, if it is.
      cached: whether what its auxiliaries predict is looked up, instead of predicted for each batch.
    """

    name: str
    role: str
    label: str
    method: Method | Ensemble | AdjustedNoiseRobust
    stream: int = _COMMON_STREAM
    auxiliaries: tuple[str, str] = (NOISE_ROBUST, IMBALANCE_ROBUST)
    weakening: Weakening | None = None
    cached: bool = False

    @property
    def is_trained(self) -> bool:
        """Whether there is something to train."""
        return isinstance(self.method, Method)


def plan(problem: Problem) -> list[Spec]:
    """The models of a run in the order of training: auxiliaries, baselines, target."""
    config = problem.config
    return [
        *auxiliary_specs(problem),
        *(baseline_spec(problem, name) for name in config.baseline_names),
        target_spec(problem, config),
    ]


def auxiliary_specs(problem: Problem) -> list[Spec]:
    """f_L and f_N."""
    config = problem.config
    return [
        auxiliary_spec(problem, config.imbalance_method, IMBALANCE_ROBUST, for_noise=False),
        auxiliary_spec(problem, config.noise_method, NOISE_ROBUST, for_noise=True),
    ]


def auxiliary_spec(problem: Problem, method: str, name: str, *, for_noise: bool) -> Spec:
    """An auxiliary model called `name` by the name of its method."""
    stream = _NOISE_STREAM if for_noise else _IMBALANCE_STREAM
    return Spec(name, "auxiliary", method, _build(problem, method), stream)


def baseline_spec(problem: Problem, name: str) -> Spec:
    """A baseline by its name: one of `BASELINES` below, or a method."""
    if name in _BASELINES:
        return _BASELINES[name](problem)
    return Spec(name, "baseline", name, _build(problem, name))


def naive_spec(problem: Problem, config: Config, name: str = NAIVE) -> Spec:
    """Naive distillation with the settings of `config`."""
    base = _build(problem, config.base)
    method = NaiveDistillation(base, config.weighting(config.naive_alpha), config.naive_noise_weight)
    label = f"{config.base} + {config.naive_alpha:g} naive"
    return Spec(name, "baseline", label, method, cached=_caches(config))


def target_spec(problem: Problem, config: Config, name: str = TARGET) -> Spec:
    """D-SINK with the settings of `config`."""
    base = _build(problem, config.base)
    method = DSink(
        base,
        config.weighting(config.alpha),
        config.threshold,
        config.max_iterations,
        config.epsilon,
        config.marginal,
        queue=config.queue,
    )
    label = f"{config.base} + {config.alpha:g} D-SINK"
    return Spec(name, "target", label, method, cached=_caches(config))


def _tuned_naive_spec(problem):
    """Naive distillation with the weights that did best on other seeds."""
    config = problem.config
    alpha, noise_weight = TUNED_NAIVE_ALPHA, TUNED_NAIVE_NOISE_WEIGHT
    method = NaiveDistillation(_build(problem, config.base), config.weighting(alpha), noise_weight)
    label = f"{config.base} + {alpha:g} naive, f_N {noise_weight:g}"
    return Spec(NAIVE_TUNED, "baseline", label, method, cached=_caches(config))


def _adjusted_spec(problem):
    """f_N with its logits adjusted by a class prior."""
    kind = problem.config.posthoc_prior
    if kind == "predicted":
        prior = None
    else:
        counts = {"observed": problem.facts.observed_counts, "clean": problem.facts.clean_counts}[kind]
        prior = tuple(count / sum(counts) for count in counts)
    return Spec(ADJUSTED, "baseline", f"f_N, {kind} prior", AdjustedNoiseRobust(prior))


_BASELINES: dict[str, Callable[[Problem], Spec]] = {
    NAIVE: lambda problem: naive_spec(problem, problem.config),
    NAIVE_TUNED: _tuned_naive_spec,
    ADJUSTED: _adjusted_spec,
    ENSEMBLE: lambda problem: Spec(ENSEMBLE, "baseline", "mean of f_L and f_N", Ensemble()),
}


def _caches(config):
    return config.auxiliary_predictions == "cached"


def _build(problem, name):
    return build_method(name, problem.facts, problem.config.options)
