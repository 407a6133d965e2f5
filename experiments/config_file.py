"""`--config FILE`: the flags of a run from a file, such as the config.json that a run wrote."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import flag


def with_file(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """The flags with those of the file that `--config` names before them, so that those given by hand win.

    Args:
      arguments: of the command line.
      known: names of all settings.

    Raises:
      InputError: if there is no such file, or it does not hold settings.
    """
    given = list(arguments)
    for i, argument in enumerate(given):
        name, equals, value = argument.partition("=")
        if name != "--config":
            continue
        if not equals and i + 1 == len(given):
            raise InputError("--config needs the path of a JSON file, such as a run's config.json.")
        path = pathlib.Path(value if equals else given[i + 1]).expanduser()
        rest = given[:i] + given[i + (1 if equals else 2) :]
        return [*_flags(_settings(path), known), *rest]
    return given


def _settings(path: pathlib.Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read: {getattr(error, 'strerror', error)}.") from None
    except ValueError as error:
        raise InputError(f"--config {path} is not JSON: {error}.") from None
    settings = read.get("settings", read) if isinstance(read, dict) else None
    if not isinstance(settings, dict):
        raise InputError(f'--config {path} must hold settings by name, such as {{"alpha": 3.0}}.')
    return settings


def _flags(settings: dict[str, Any], known: Sequence[str]) -> list[str]:
    found = []
    for name, value in settings.items():
        field = name.removeprefix("--").replace("-", "_")
        check_known("setting of --config", field, known)
        if isinstance(value, bool):
            found.append(flag(field) if value else f"--no-{flag(field).removeprefix('--')}")
        elif isinstance(value, dict | list):
            raise InputError(f"--config: {name} must be one value, got {value}.")
        else:
            found += [flag(field), str(value)]
    return found
