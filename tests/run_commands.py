"""Runs of the command line as a user starts them: what tests of whole runs share."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# A run of some seconds, on one device.
QUICK = ("--epochs", "5", "--checkpoint-every", "1", "--devices", "1", "--baselines", "none")


def command(*arguments, module="experiments.digits"):
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(*arguments, module="experiments.digits", timeout=600, **environment):
    return subprocess.run(
        command(*arguments, module=module),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def without_times(results):
    for entry in results["models"].values():
        entry.pop("seconds")
    return results


def read(directory):
    return without_times(json.loads((directory / "results.json").read_text()))
