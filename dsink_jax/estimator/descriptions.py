"""Settings as JSON holds them: for the file of a fitted model, and to tell one fit from another."""

import dataclasses
import functools
import hashlib
import inspect
import sys
import types
from typing import Any

import jax
import numpy as np

from dsink_jax.estimator.settings import Settings
from dsink_jax.methods import Method, method_name

_PLAIN = str | int | float | bool | None


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """The settings: methods by name and options; other objects by their names, content and code.

    Code is compared of functions and classes that a person wrote, with what they close over and the global
    numbers, words, functions and classes that they use; not that of installed packages.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {**_named(values), "options": None if settings.options is None else _named(settings.options)}


def as_json(value: Any) -> Any:
    """One value likewise."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Method):
        return {"method": method_name(value), "options": _named(value.get_params()), **_code(type(value))}
    if isinstance(value, functools.partial):
        return {**as_json(value.func), "items": _listed(value.args), "options": _named(value.keywords)}
    named: dict[str, Any] = {"object": getattr(value, "__qualname__", type(value).__qualname__)}
    if isinstance(value, np.ndarray | jax.Array):
        named["content"] = _checksum(str((value.dtype, value.shape)).encode() + np.asarray(value).tobytes())
    elif isinstance(value, tuple | list):
        named["items"] = _listed(value)
    elif isinstance(value, dict):
        named["options"] = _named(value)
    elif isinstance(value, types.FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        named["items"] = _listed((*(value.__defaults__ or ()), *inside))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A Linen module's parent and name say nothing of what it does.
        names = [field.name for field in dataclasses.fields(value) if field.name not in ("parent", "name")]
        named["options"] = _named({name: getattr(value, name) for name in names})
    return named | _code(value if isinstance(value, type | types.FunctionType) else type(value))


def _named(values):
    return {str(name): as_json(value) for name, value in values.items()}


def _listed(values):
    return [as_json(value) for value in values]


def _code(written):
    """A checksum of the code of a function or class that is not of an installed package."""
    words: list[bytes] = []
    _collect(written, words, set())
    return {"code": _checksum(b"".join(words))} if words else {}


def _collect(written, words, seen):
    if id(written) in seen or (isinstance(written, type) and _is_installed(written)):
        return
    seen.add(id(written))
    if isinstance(written, type):
        for base in written.__mro__:
            for _, member in sorted(vars(base).items()) if not _is_installed(base) else ():
                member = getattr(member, "fget", getattr(member, "__func__", member))
                if isinstance(member, types.FunctionType):
                    _collect(inspect.unwrap(member), words, seen)
        return
    if isinstance(written, types.FunctionType) and not _is_installed(written):
        code = written.__code__
        words += [code.co_code, repr((code.co_names, _constants(code))).encode()]
        for name in sorted(_names(code)):
            value = written.__globals__.get(name)
            if isinstance(value, _PLAIN | tuple):
                words.append(repr((name, value)).encode())
            else:
                _collect(value, words, seen)


def _is_installed(written):
    file = getattr(sys.modules.get(written.__module__), "__file__", None) or ""
    top = written.__module__.partition(".")[0]
    if top == "__main__":  # a script or a notebook
        return False
    return "-packages" in file or top in sys.stdlib_module_names or top == "dsink_jax"


def _names(code):
    """Names that a function and the functions in it look up."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _constants(code):
    """Numbers and words in a function's code; of the functions in it, their code too."""
    return [
        (one.co_code, one.co_names, _constants(one)) if isinstance(one, types.CodeType) else one
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
