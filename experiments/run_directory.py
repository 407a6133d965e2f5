"""The files of one run. Everything a run leaves behind is written here."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax

from dsink_jax.data.corruption import Corruption, load_corruption, save_corruption
from dsink_jax.errors import InputError
from experiments.config import PLACE, Config

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint", "numpy")


class RunDirectory:
    """The directory of one run: config.json, corruption.npz, metrics.jsonl, results.json, checkpoints/."""

    def __init__(self, config: Config):
        """Makes the directory, or opens one that holds the same configuration.

        Raises:
          InputError: if it holds another configuration, or is not a directory that can be written.
        """
        self.path = config.directory
        self._config = config
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_same(config.settings())
        except OSError as error:
            raise InputError(
                f"The run directory {self.path} cannot be written: {error.strerror}. Give another --run-dir."
            ) from None

    def _check_same(self, settings):
        stored = _read_json(self.path / "config.json")
        if stored is None:
            if (self.path / "results.json").exists():
                raise InputError(f"{self.path} has results but no config.json. Give another --run-dir.")
            return
        there = stored.get("settings", {})
        different = [
            f"{name} is {there.get(name)} there and {settings.get(name)} here"
            for name in sorted({*settings, *there} - set(PLACE))
            if there.get(name) != settings.get(name)
        ]
        if different:
            raise InputError(
                f"{self.path} holds a run with another configuration: {'; '.join(different[:3])}.\n"
                "Give another --run-dir, or remove that one."
            )

    def start(self, corruption: Corruption) -> None:
        """Writes config.json and corruption.npz when the settings have proved to fit, before any training.

        A run that is continued keeps what it was started with; other versions or another device are added
        under `continued`.
        """
        path = self.path / "config.json"
        now = {"versions": versions(), "device": device_description(self._config.local_devices())}
        stored = _read_json(path)
        if stored is None:
            save_corruption(self.path / "corruption.npz", corruption)
            _write_json(path, {"settings": self._config.settings(), **now})
        elif now not in [{name: stored[name] for name in now}, *stored.get("continued", [])]:
            _write_json(path, {**stored, "continued": [*stored.get("continued", []), now]})

    def corruption(self) -> Corruption | None:
        """The corrupted set of this run if it was started already."""
        if not (self.path / "config.json").exists():
            return None
        return load_corruption(self.path / "corruption.npz")

    def checkpoints(self, model: str) -> pathlib.Path:
        """Where the checkpoints of a model are."""
        return self.path / "checkpoints" / model

    def results(self) -> dict[str, Any]:
        """What is known so far: `models` by name, and `data`."""
        return _read_json(self.path / "results.json") or {"models": {}, "data": {}}

    def save_results(self, results: dict[str, Any]) -> None:
        """Writes the results, whole or not at all."""
        _write_json(self.path / "results.json", results)

    def log(self, model: str, record: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"model": model, **record}, allow_nan=False) + "\n")

    def forget_after(self, model: str, epoch: int) -> None:
        """Takes back the lines of a model's epochs after `epoch`, which will be trained again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a line cut short when the run was stopped
            if record["model"] != model or record["epoch"] <= epoch:
                kept.append(line + "\n")
        _write_text(path, "".join(kept))


def known(number: float) -> float | None:
    """JSON has no NaN: a share of nothing is null."""
    return None if number != number else number


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of what it computes with."""
    found = {"python": platform.python_version()}
    for package in ("dsink-jax", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_description(devices: Sequence[jax.Device]) -> str:
    """The devices in words, such as `1 x cpu (x86_64, 2 cores)`."""
    device = devices[0]
    detail = (
        f"{platform.machine()}, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    )
    return f"{len(devices)} x {device.platform} ({detail})"


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"{path} is damaged. Remove it, or give another --run-dir.") from None


def _write_json(path, value):
    _write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _write_text(path, text):
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
