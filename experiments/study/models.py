"""What a study trains, declared: each model is a name and how to make it from a problem."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dsink_jax.methods import build_method
from dsink_jax.methods.registry import all_options, option_name
from experiments import plan
from experiments.config import MethodOptions
from experiments.plan import Spec
from experiments.problem import Problem
from experiments.weakening import Weakening

DEFAULT_BASE, DEFAULT_ALPHA = "logit_adjustment", 10.0
DEFAULT_IMBALANCE, DEFAULT_NOISE = "logit_adjustment", "elr"
Options = dict[str, Any]


class Declared(NamedTuple):
    """One model of a study. Its name says all that is not default, so that studies can share it.

    Attributes:
      name: its name in results, and of its checkpoints.
      make: its specification, for the problem and the options of methods.
      needs: the auxiliaries it is made from.
      effort: roughly how many times as long as cross-entropy it trains.
    """

    name: str
    make: Callable[[Problem, MethodOptions], Spec]
    needs: tuple["Declared", ...] = ()
    effort: float = 1.0


def alone(method: str, **options: Any) -> Declared:
    """A method by itself, from the same start as the target."""

    def make(problem, known):
        return Spec(name, "baseline", method, _build(problem, method, known, options))

    name = _name(method, **options)
    return Declared(name, make, effort=_EFFORT.get(method, 1.0))


def imbalance_robust(
    method: str = DEFAULT_IMBALANCE, weakening: Weakening | None = None, **options: Any
) -> Declared:
    """An auxiliary model f_L, made worse if `weakening` says how."""
    return _auxiliary("f_L", method, weakening, options)


def noise_robust(method: str = DEFAULT_NOISE, weakening: Weakening | None = None, **options: Any) -> Declared:
    """An auxiliary model f_N, made worse if `weakening` says how."""
    return _auxiliary("f_N", method, weakening, options)


def _auxiliary(role, method, weakening, options):
    def make(problem, known):
        spec = plan.auxiliary_spec(problem, "cross_entropy", name, for_noise=role == "f_N")
        seen = problem if weakening is None else weakening(problem)
        made = _build(seen, method, known, options)
        return spec._replace(label=method, method=made, weakening=weakening)

    worse = {} if weakening is None else _not_default(weakening)
    name = _name(f"{role}-{method}", **options, **worse)
    return Declared(name, make, effort=_EFFORT.get(method, 1.0))


def dsink(
    base: str = DEFAULT_BASE,
    alpha: float = DEFAULT_ALPHA,
    f_L: Declared | None = None,
    f_N: Declared | None = None,
    **changes: Any,
) -> Declared:
    """D-SINK on a base, with its auxiliaries; `changes` are further settings of a run."""
    pair = _pair(f_N, f_L)

    def make(problem, known):
        config = dataclasses.replace(
            problem.config, base=base, alpha=alpha, options=_only(known, base), **changes
        )
        spec = plan.target_spec(dataclasses.replace(problem, config=config), config, name)
        return spec._replace(auxiliaries=tuple(one.name for one in pair))

    name = _name(plan.STUDY_TARGET, **_other(base, alpha, pair), **changes)
    return Declared(name, make, pair, 1.35 * _EFFORT.get(base, 1.0))


def naive(
    base: str = DEFAULT_BASE,
    alpha: float = DEFAULT_ALPHA,
    noise_weight: float = 0.5,
    f_L: Declared | None = None,
    f_N: Declared | None = None,
) -> Declared:
    """Naive distillation: the mean of f_N and f_L with fixed weights as the labels."""
    pair = _pair(f_N, f_L)

    def make(problem, known):
        config = dataclasses.replace(
            problem.config,
            base=base,
            naive_alpha=alpha,
            naive_noise_weight=noise_weight,
            options=_only(known, base),
        )
        spec = plan.naive_spec(dataclasses.replace(problem, config=config), config, name)
        return spec._replace(auxiliaries=tuple(one.name for one in pair))

    changes = {} if noise_weight == 0.5 else {"noise_weight": noise_weight}
    name = _name("naive", **_other(base, alpha, pair), **changes)
    return Declared(name, make, pair, 1.3 * _EFFORT.get(base, 1.0))


def ensemble() -> Declared:
    """The mean of f_L and f_N; trains nothing."""
    return Declared(plan.ENSEMBLE, lambda problem, _: _paired(problem, plan.ENSEMBLE), _pair(None, None), 0.0)


def adjusted() -> Declared:
    """f_N with its logits adjusted by its own class prior; trains nothing."""
    return Declared(plan.ADJUSTED, lambda problem, _: _paired(problem, plan.ADJUSTED), _pair(None, None), 0.0)


def with_needs(models: Iterable[Declared]) -> list[Declared]:
    """The models and what they are made from, each once and after what it needs."""
    found = {}
    for model in models:
        for one in (*model.needs, model):
            found.setdefault(one.name, one)
    return list(found.values())


# Time of a training next to cross-entropy's, measured on digits; 1 where nothing stands.
_EFFORT = {
    **dict.fromkeys(("crt", "tau_norm"), 1.2),
    "ot_reweighting": 2.0,
    "coteaching": 2.2,
    "dividemix": 12.0,
}


def _build(problem, method, known, changes):
    options = dataclasses.replace(
        known, **{option_name(method, key): value for key, value in changes.items()}
    )
    return build_method(method, problem.facts, options)


def _only(known, method):
    """The options of one method, the others as they are by default."""
    mine = [option.full_name for option in all_options() if option.method == method]
    return dataclasses.replace(MethodOptions(), **{name: getattr(known, name) for name in mine})


def _pair(f_N, f_L):
    return (f_N or noise_robust(), f_L or imbalance_robust())


def _paired(problem, name):
    """A model that is put together from the default auxiliaries."""
    return plan.baseline_spec(problem, name)._replace(
        auxiliaries=tuple(one.name for one in _pair(None, None))
    )


def _other(base, alpha, pair):
    """What is not the default, by name."""
    f_N, f_L = (one.name.partition("-")[2] for one in pair)
    given = {"base": (base, DEFAULT_BASE), "alpha": (alpha, DEFAULT_ALPHA)}
    given |= {"f_L": (f_L, DEFAULT_IMBALANCE), "f_N": (f_N, DEFAULT_NOISE)}
    return {key: value for key, (value, default) in given.items() if value != default}


def _name(start, **changes):
    """Such as `dsink-base=elr-alpha=3`."""
    return "-".join([start, *(f"{key}={_short(value)}" for key, value in changes.items())])


def _not_default(settings):
    """The fields of a dataclass that differ from their defaults."""
    given = {
        field.name: (getattr(settings, field.name), field.default) for field in dataclasses.fields(settings)
    }
    return {name: value for name, (value, default) in given.items() if value != default}


def _short(value):
    return f"{value:g}" if isinstance(value, float) else str(value)
