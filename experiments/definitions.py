"""What a model was trained as, in results.json: a run goes on only with the same."""

import dataclasses
from typing import Any


def definition(value: Any) -> Any:
    """A method with all its settings as JSON holds it: an object with the name of its class, for each level.

    >>> from dsink_jax.methods import LogitAdjustment
    >>> definition(LogitAdjustment((2, 1)))
    {'class': 'LogitAdjustment', 'class_prior': [2, 1], 'tau': 1.0}
    """
    if dataclasses.is_dataclass(value):
        fields = {field.name: definition(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [definition(one) for one in value]
    return value


def is_same(stored: Any, value: Any) -> bool:
    """Whether `stored` is the definition of `value`; a setting that is new since then had its default."""
    if not dataclasses.is_dataclass(value):
        return stored == definition(value)
    if not isinstance(stored, dict) or stored.get("class") != type(value).__name__:
        return False
    fields = {field.name: field for field in dataclasses.fields(value)}
    if not stored.keys() <= {"class", *fields}:
        return False
    return all(
        is_same(stored[name], getattr(value, name))
        if name in stored
        else getattr(value, name) == field.default
        for name, field in fields.items()
    )
