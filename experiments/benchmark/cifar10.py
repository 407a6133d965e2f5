"""Part `cifar10`: host memory of a run on the whole of the real CIFAR-10, as its users start it."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from dsink_jax.errors import InputError
from experiments.benchmark.memory import peak_mib, resident_mib
from experiments.benchmark.settings import Settings
from experiments.benchmark.startup import environment
from experiments.benchmark.table import Row

PEAK_MIB = 3072
GROWTH_MIB = 30  # a hundredth of the above counts as not growing: the allocator's own noise
EPOCHS, EARLY = 10, 5
QUICK_EPOCHS, QUICK_EARLY = 3, 2
_SECONDS = 0.05  # between two looks


class Memory(NamedTuple):
    """Host memory of a run.

    Attributes:
      peak: MiB, the most that was seen.
      epochs: MiB at the end of every epoch, by model and epoch.
    """

    peak: float
    epochs: dict[str, dict[int, float]]

    def growth_after(self, early: int) -> dict[str, float]:
        """MiB by which each model's last epoch has more than the early one."""
        return {model: found[max(found)] - found[early] for model, found in self.epochs.items()}


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part; without a data folder there is only a remark."""
    if settings.data_dir is None:
        return [], ["CIFAR-10: not measured without --data-dir."]
    model, epochs, early = "medium_cnn", EPOCHS, EARLY
    if settings.quick:
        model, epochs, early = "small_cnn", QUICK_EPOCHS, QUICK_EARLY
    flags = ["--model", model, "--epochs", str(epochs), "--imbalance-ratio", "1", "--baselines", "none"]
    flags += ["--data-dir", os.fspath(settings.data_dir.absolute()), "--auxiliary-predictions", "cached"]
    flags += ["--limit-train", "200", "--limit-test", "100"] if settings.quick else []
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        memory = watch([*flags, "--run-dir", os.fspath(run)], run)
        images = json.loads((run / "results.json").read_text())["data"]["train_images"]
    growth = memory.growth_after(early)
    case = f"{images:,} images, {model}, {epochs} epochs each of {_listed(growth)}"
    each = "; ".join(f"{name} {mib:.1f}" for name, mib in growth.items())
    return [
        Row(
            "cifar10",
            f"{case}: peak host memory",
            memory.peak,
            "MiB",
            target=f"<= {PEAK_MIB}",
            note="data, training, predictions, checkpoints and report; one process",
        ),
        Row(
            "cifar10",
            f"{case}: growth of host memory after epoch {early}",
            max(growth.values()),
            "MiB",
            target=f"<= {GROWTH_MIB}",
            note=f"the largest of {each}; evaluated in every epoch",
        ),
    ], []


def watch(flags: Sequence[str], run: pathlib.Path) -> Memory:
    """Runs `python -m experiments.cifar` and looks at its memory until it ends.

    Args:
      flags: of the command.
      run: its run directory, whose metrics.jsonl tells which epochs are done.

    Raises:
      InputError: if the command fails.
    """
    command = [sys.executable, "-W", "ignore", "-m", "experiments.cifar", *flags]
    peak, epochs = 0.0, {}
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(command, env=environment(), stdout=output, stderr=output) as process:
            while process.poll() is None:
                resident = resident_mib(process.pid)
                peak = max(peak, resident, peak_mib(process.pid))
                for model, epoch in _done(run / "metrics.jsonl"):
                    epochs.setdefault(model, {}).setdefault(epoch, resident)
                time.sleep(_SECONDS)
        if process.returncode:
            output.seek(0)
            said = " ".join(output.read().strip().splitlines()[-2:])  # no error has more lines
            raise InputError(f"The run on CIFAR-10 failed: {said}")
    return Memory(peak, epochs)


def _done(metrics):
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(record["model"], record["epoch"]) for record in records]


def _listed(names):
    *others, last = names
    return f"{', '.join(others)} and {last}"
