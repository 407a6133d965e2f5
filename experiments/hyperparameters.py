"""What a model was trained as, in results.json: a run goes on only with the same."""

import dataclasses
from typing import Any

from experiments.models import Spec

# Fields of a specification that say what is trained, in results.json by these names.
_FIELDS = ("method", "term", "auxiliary_predictions", "average_decay", "weakening")


def hyperparameters(spec: Spec) -> dict[str, Any]:
    """All settings of a model as JSON holds them, objects with the name of their class.

    >>> from dsink_jax.methods import LogitAdjustment
    >>> hyperparameters(Spec("f_L", LogitAdjustment()))["method"]
    {'class': 'LogitAdjustment', 'tau': 1.0}
    """
    return {name: _as_json(getattr(spec, name)) for name in _FIELDS}


def is_same(stored: Any, spec: Spec) -> bool:
    """Whether `stored` are the settings of `spec`; a setting that is new since then had its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(spec)}
    return isinstance(stored, dict) and all(
        _is_same(stored[name], getattr(spec, name))
        if name in stored
        else getattr(spec, name) == defaults[name]
        for name in _FIELDS
    )


def _as_json(value):
    if dataclasses.is_dataclass(value):
        fields = {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    return value


def _is_same(stored, value):
    if not dataclasses.is_dataclass(value):
        return stored == value
    if not isinstance(stored, dict) or stored.get("class") != type(value).__name__:
        return False
    fields = {field.name: field for field in dataclasses.fields(value)}
    if not stored.keys() <= {"class", *fields}:
        return False
    return all(
        stored[name] == getattr(value, name) if name in stored else getattr(value, name) == field.default
        for name, field in fields.items()
    )
