"""What a study trains, declared: each model is a name and how to make it for a data set."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from dsink_jax.methods import METHODS, build_method
from experiments import models
from experiments.dataset import Dataset
from experiments.models import Spec
from experiments.weakening import Weakening

DEFAULT_BASE, DEFAULT_ALPHA = "logit_adjustment", 10.0
DEFAULT_IMBALANCE, DEFAULT_NOISE = "logit_adjustment", "elr"


Options = Mapping[str, Any]


class Declared(NamedTuple):
    """One model of a study. Its name says all that is not default, so that studies can share it.

    Attributes:
      name: its name in results, and of its checkpoints.
      make: its specification, for the data set of a run and the options that methods must be given, by
        their full names.
      needs: the auxiliaries it is made from, f_N first.
      effort: roughly how many times as long as cross-entropy it trains.
    """

    name: str
    make: Callable[[Dataset, Options], Spec]
    needs: tuple["Declared", ...] = ()
    effort: float = 1.0


def alone(method: str, **options: Any) -> Declared:
    """A method by itself, from the same start as the target."""
    name = _name(method, **options)

    def make(dataset, required):
        del dataset
        return Spec(name, _method(method, required, options), label=method)

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
    def make(dataset, required):
        config, made = dataset.config, _method(method, required, options)
        spec = models.auxiliary_spec(name, made, method, for_noise=role == "f_N")
        if weakening is None:
            return spec
        return dataclasses.replace(
            spec,
            weakening=weakening,
            training_set=weakening.training_set(dataset.training_set, config.data_seed),
            epochs=weakening.epochs_of(config.epochs),
        )

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

    def make(dataset, required):
        config = _with_base(dataset, base, required, alpha=alpha, **changes)
        return _made_from(pair, models.target_spec(config, _method(base, required), name))

    name = _name(models.STUDY_TARGET, **_other(base, alpha, pair), **changes)
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

    def make(dataset, required):
        config = _with_base(dataset, base, required, naive_alpha=alpha, naive_noise_weight=noise_weight)
        return _made_from(pair, models.naive_spec(config, _method(base, required), name))

    changes = {} if noise_weight == 0.5 else {"noise_weight": noise_weight}
    name = _name("naive", **_other(base, alpha, pair), **changes)
    return Declared(name, make, pair, 1.3 * _EFFORT.get(base, 1.0))


def ensemble() -> Declared:
    """The mean of f_L and f_N; trains nothing."""
    return _combined(models.ENSEMBLE)


def adjusted() -> Declared:
    """f_N with its logits adjusted by its own class prior; trains nothing."""
    return _combined(models.ADJUSTED)


def _combined(name):
    pair = _pair(None, None)

    def make(dataset, required):
        del required
        return _made_from(pair, models.combined_spec(dataset.config, name))

    return Declared(name, make, pair, 0.0)


def with_needs(declared: Iterable[Declared]) -> list[Declared]:
    """The models and what they are made from, each once and after what it needs."""
    found = {}
    for model in declared:
        for one in (*model.needs, model):
            found.setdefault(one.name, one)
    return list(found.values())


# Time of a training next to cross-entropy's, measured on digits; 1 where nothing stands.
_EFFORT = {
    **dict.fromkeys(("crt", "tau_norm"), 1.2),
    "ot_reweighting": 2.0,
    "coteaching": 2.2,
    **dict.fromkeys(("dividemix", "tabasco"), 12.0),
}


def _method(name, required, options=None):
    """A method by its name, with what it must be given and other options."""
    own = {option: required[f"{name}_{option}"] for option in METHODS[name].method.required}
    return build_method(name, own | dict(options or {}))


def _with_base(dataset, base, required, **changes):
    """The settings of a run with a base, what that must be given, and other changes."""
    own = {f"{base}_{option}" for option in METHODS[base].method.required}
    given = {name: value for name, value in required.items() if name in own}
    return dataclasses.replace(dataset.config, base=base, **given, **changes)


def _made_from(pair, spec):
    """A model that is made from these auxiliaries."""
    f_N, f_L = pair
    return dataclasses.replace(spec, noise_robust=f_N.name, imbalance_robust=f_L.name)


def _pair(f_N, f_L):
    return (f_N or noise_robust(), f_L or imbalance_robust())


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
