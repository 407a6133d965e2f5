"""What a person's own function or module is called with: what its signature takes of what there is."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

# Names for the mode that are in use, and whether they mean evaluation.
_MODES = {"train": False, "training": False, "is_training": False, "deterministic": True}


def parameters(call: Callable) -> dict[str, inspect.Parameter]:
    """Parameters that may be given by name and are not bound yet; none where Python cannot tell."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    bound = call.keywords if isinstance(call, functools.partial) else {}
    return {
        parameter.name: parameter
        for parameter in _signature(call)
        if parameter.kind in by_name and parameter.name not in bound
    }


def takes_any(call: Callable) -> bool:
    """Whether it takes arguments of any name."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in _signature(call))


def taken(call: Callable, **offered: Any) -> dict[str, Any]:
    """Those of the offered arguments that its signature names."""
    names = parameters(call)
    return {name: value for name, value in offered.items() if name in names}


def mode(call: Callable, train: bool) -> dict[str, bool]:
    """Training or evaluation mode under the names that it has for it; none if it has none."""
    names = parameters(call)
    return {name: train != inverted for name, inverted in _MODES.items() if name in names}


def _signature(call):
    # A class is asked for its own `__init__`: that of an NNX module is hidden behind its metaclass.
    made = call.func if isinstance(call, functools.partial) else call
    if isinstance(made, type):
        bound = call if isinstance(call, functools.partial) else functools.partial(made)
        begin: Any = inspect.getattr_static(made, "__init__")
        call = functools.partial(begin, None, *bound.args, **bound.keywords)
    try:
        return list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return []
