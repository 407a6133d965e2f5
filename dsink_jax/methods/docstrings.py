"""What the docstring of a class says of each attribute, for the help of command lines and for messages."""

import inspect
import itertools
import re
import textwrap


def attribute_help(documented: type) -> dict[str, str]:
    """The descriptions under `Attributes:` of a docstring in Google's style, each on one line.

    Args:
      documented: the class.

    >>> class Blur:
    ...     '''Smears.
    ...
    ...     Attributes:
    ...       width: in pixels,
    ...         at least 0.
    ...     '''
    >>> attribute_help(Blur)
    {'width': 'in pixels, at least 0.'}
    """
    section = inspect.cleandoc(documented.__doc__ or "").partition("\nAttributes:\n")[2]
    lines = itertools.takewhile(lambda line: not line or line.startswith(" "), section.splitlines())
    entries = re.findall(r"^(\w+): (.*(?:\n .*)*)", textwrap.dedent("\n".join(lines)), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
