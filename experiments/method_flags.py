"""The options of all methods as flags of a command line, with what their docstrings say."""

import dataclasses
from typing import Annotated

import tyro

from dsink_jax.methods import METHODS
from dsink_jax.methods.docstrings import attribute_help
from dsink_jax.methods.registry import all_options


def _help(option):
    said = attribute_help(METHODS[option.method].method)[option.name]
    return f"{option.method}: {said}"


# Name, type and default of the field of each, such as `elr_momentum`.
METHOD_FLAGS = [
    (
        option.full_name,
        Annotated[option.field.type, tyro.conf.arg(help=_help(option))],
        dataclasses.field(default=option.field.default),
    )
    for option in all_options()
]
