"""Which models a run trains, and in what order."""

from typing import NamedTuple

from dsink_jax.methods import DSink, Method, NaiveDistillation, build_method
from experiments.config import NAIVE, Config
from experiments.problem import Problem

IMBALANCE_ROBUST, NOISE_ROBUST, TARGET = "imbalance_robust", "noise_robust", "target"


class Spec(NamedTuple):
    """One model to train.

    Attributes:
      name: its name in results.json.
      role: `auxiliary`, `baseline` or `target`.
      label: its method in words.
      method: what it optimises.
    """

    name: str
    role: str
    label: str
    method: Method


def plan(problem: Problem) -> list[Spec]:
    """The models of a run in the order of training: auxiliaries, baselines, target."""
    config = problem.config
    return [
        *auxiliary_specs(problem),
        *(
            naive_spec(problem, config) if name == NAIVE else _named_spec(problem, name, "baseline", name)
            for name in config.baseline_names
        ),
        target_spec(problem, config),
    ]


def auxiliary_specs(problem: Problem) -> list[Spec]:
    """f_L and f_N."""
    config = problem.config
    return [
        _named_spec(problem, IMBALANCE_ROBUST, "auxiliary", config.imbalance_method),
        _named_spec(problem, NOISE_ROBUST, "auxiliary", config.noise_method),
    ]


def naive_spec(problem: Problem, config: Config, name: str = NAIVE) -> Spec:
    """Naive distillation with the settings of `config`."""
    base = build_method(config.base, problem.facts, config.method_options)
    method = NaiveDistillation(base, config.weighting(config.naive_alpha), config.naive_noise_weight)
    return Spec(name, "baseline", f"{config.base} + {config.naive_alpha:g} naive", method)


def target_spec(problem: Problem, config: Config, name: str = TARGET) -> Spec:
    """D-SINK with the settings of `config`."""
    base = build_method(config.base, problem.facts, config.method_options)
    method = DSink(base, config.weighting(config.alpha), config.threshold, config.max_iterations)
    return Spec(name, "target", f"{config.base} + {config.alpha:g} D-SINK", method)


def _named_spec(problem, name, role, method):
    built = build_method(method, problem.facts, problem.config.method_options)
    return Spec(name, role, method, built)
