"""Settings as JSON holds them: for the file of a fitted model, and to tell one fit from another."""

import dataclasses
import functools
import hashlib
import types
from typing import Any

import jax
import numpy as np

from dsink_jax.estimator.settings import Settings
from dsink_jax.methods import Method, method_name


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """The settings: methods by name and options; other objects by their names and by what can be compared.

    Of a function that is its code and what it closes over, so that two Optax transformations differ where
    their numbers do.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {**_named(values), "options": None if settings.options is None else _named(settings.options)}


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Method):
        return {"method": method_name(value), "options": _named(value.get_params())}
    if isinstance(value, functools.partial):
        return {**_as_json(value.func), "items": _listed(value.args), "options": _named(value.keywords)}
    named: dict[str, Any] = {"object": getattr(value, "__qualname__", type(value).__qualname__)}
    if isinstance(value, np.ndarray | jax.Array):
        named["content"] = _checksum(str((value.dtype, value.shape)).encode() + np.asarray(value).tobytes())
    elif isinstance(value, tuple | list):
        named["items"] = _listed(value)
    elif isinstance(value, dict):
        named["options"] = _named(value)
    elif isinstance(value, types.FunctionType):
        named["content"] = _checksum(value.__code__.co_code + repr(_constants(value.__code__)).encode())
        inside = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        named["items"] = _listed((*(value.__defaults__ or ()), *inside))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A Linen module's parent and name say nothing of what it does.
        names = [field.name for field in dataclasses.fields(value) if field.name not in ("parent", "name")]
        named["options"] = _named({name: getattr(value, name) for name in names})
    return named


def _named(values):
    return {str(name): _as_json(value) for name, value in values.items()}


def _listed(values):
    return [_as_json(value) for value in values]


def _constants(code):
    """Numbers and words in a function's code; of the functions in it, theirs."""
    return [
        _constants(one) if isinstance(one, types.CodeType) else one
        for one in code.co_consts
        if isinstance(one, types.CodeType | str | int | float | bool | tuple)
    ]


def _is_filled(cell):
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _checksum(content):
    return hashlib.sha256(content).hexdigest()[:16]
