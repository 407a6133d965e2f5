"""Where and when rows of results were computed: a column `environment` beside environments.json."""

import hashlib
import json
import pathlib
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax

from dsink_jax.atomic import replacing
from dsink_jax.errors import InputError
from experiments.provenance import device_description, versions

COLUMN = "environment"
_FILE = "environments.json"
Environment = dict[str, Any]


def environment_here(*packages: str, devices: Sequence[jax.Device] | None = None) -> Environment:
    """Devices and versions of this process.

    Args:
      packages: whose versions are to be told beside those of what every run computes with.
      devices: what is computed on; all of this process if left out.
    """
    devices = jax.local_devices() if devices is None else devices
    return {"device": device_description(devices), "versions": versions(*packages)}


def identify(environment: Environment) -> str:
    """A short name, for the column of a row."""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]


def remember(
    folder: pathlib.Path, environments: Iterable[Environment], added: Collection[str] | None = None
) -> None:
    """Adds environments to environments.json, with the dates of their first and their last rows.

    Args:
      folder: of the results.
      environments: where rows come from.
      added: names of those that have new rows today; all of them if left out.

    Raises:
      OSError: if it cannot be written.
    """
    path, today = folder / _FILE, time.strftime("%Y-%m-%d")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for environment in environments:
        name = identify(environment)
        place = known.setdefault(name, {**environment, "date": today})
        if added is None or name in added:
            place["last_date"] = today
    with replacing(path) as file:
        file.write(json.dumps(known, indent=1) + "\n")


def recall(folder: pathlib.Path, names: Iterable[str]) -> list[Environment]:
    """Where rows with these names in their column come from: device, versions, first and last date.

    Raises:
      InputError: if environments.json does not tell.
    """
    path = folder / _FILE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return [known[name] for name in sorted(set(names))]
    except (OSError, ValueError, KeyError) as error:
        reason = f"nothing of {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path} does not tell where the rows beside it were computed: {reason}.\n"
            "It belongs to them: take both from where they were written."
        ) from None


def environments_in_words(folder: pathlib.Path, names: Iterable[str]) -> str:
    """The same as a text: device; versions; dates, and all that again for the next."""
    return ". ".join(
        f"{place['device']}; "
        f"{', '.join(f'{name} {version}' for name, version in place['versions'].items())}; {_dates(place)}"
        for place in recall(folder, names)
    )


def _dates(place):
    first, last = place["date"], place.get("last_date", place["date"])
    return first if first == last else f"{first} to {last}"
