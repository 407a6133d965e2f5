"""Packages that only an extra brings: imported where they are used, and named where they are missing."""

import contextlib
from collections.abc import Iterator

from dsink_jax.errors import InputError

# What is installed under another name than it is imported by.
_INSTALLED_AS = {"PIL": "pillow", "ot": "POT", "tensorflow_datasets": "tensorflow-datasets"}


class MissingExtraError(InputError):
    """Raised where a package is missing that an extra brings; the message says what to install."""


@contextlib.contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Goes around the imports of packages that an extra brings.

    Args:
      extra: its name in pyproject.toml.
      purpose: what they are needed for, the beginning of the message.

    Raises:
      MissingExtraError: if one of them is not installed, in one line.

    >>> with needs("report", "Drawing"):
    ...     import no_such_package
    Traceback (most recent call last):
        ...
    dsink_jax.extras.MissingExtraError: Drawing needs no_such_package: pip install "dsink-jax[report]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "a package").partition(".")[0]
        raise MissingExtraError(
            f'{purpose} needs {_INSTALLED_AS.get(name, name)}: pip install "dsink-jax[{extra}]"'
        ) from None
