"""The options of all methods as flags of a command line, with what their docstrings say."""

import dataclasses
from typing import Annotated

import docstring_parser
import tyro

from dsink_jax.methods import METHODS
from dsink_jax.methods.registry import Option, all_options


def option_help(option: Option) -> str:
    """What the docstring of a method's class says about one of its options."""
    doc = METHODS[option.method].method.__doc__ or ""
    documented = docstring_parser.parse(doc, docstring_parser.Style.GOOGLE)
    said = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented.params}
    return f"{option.method}: {said[option.name]}"


# The options of all methods as flags, such as `--elr-momentum`.
MethodFlags = dataclasses.make_dataclass(
    "MethodFlags",
    [
        (
            option.full_name,
            Annotated[option.field.type, tyro.conf.arg(help=option_help(option))],
            dataclasses.field(default=option.field.default, kw_only=True),
        )
        for option in all_options()
    ],
    frozen=True,
    namespace={"__module__": __name__},
)
