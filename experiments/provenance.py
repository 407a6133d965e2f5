"""Where numbers come from: the versions that computed them, and the device."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint", "numpy")
_ROOT = pathlib.Path(__file__).parents[1]
_CODE = ("dsink_jax", "experiments")


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, of this library, of what it computes with, and of `more` packages.

    That of the library has the commit of a checkout, such as `0.1.0+g84b9e9d0ab`, and ends with `.changed`
    where its code differs from the commit's.
    """
    found = {"python": platform.python_version()}
    for package in ("dsink-jax", *_PACKAGES, *more):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["dsink-jax"] += revision(_ROOT)
    return found


@functools.cache
def revision(root: pathlib.Path) -> str:
    """The commit of a checkout as the local part of a version; nothing where there is none to be told."""

    def git(*arguments):
        command = ["git", "-C", os.fspath(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)

    if not (root / ".git").exists():
        return ""
    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        same = git("diff", "--quiet", "HEAD", "--", *_CODE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if commit.returncode or same.returncode not in (0, 1):
        return ""
    return f"+g{commit.stdout.strip()}{'.changed' * same.returncode}"


def versions_in_words(*more: str) -> str:
    """The same on one line."""
    return ", ".join(f"{name} {version}" for name, version in versions(*more).items())


def device_description(devices: Sequence[jax.Device]) -> str:
    """The devices in words, such as `1 x cpu (x86_64, 2 cores)`; with its model where the system tells it."""
    device = devices[0]
    detail = f"{_cpu()}, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    return f"{len(devices)} x {device.platform} ({detail})"


@functools.cache
def _cpu():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, models), platform.machine())
