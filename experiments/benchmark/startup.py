"""Part `startup`: import, first step, compilations and memory; each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import time

from dsink_jax.errors import InputError
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, Target

IMPORTS = ("import jax", "import jax, optax", "import dsink_jax", "import torch")
IMPORT_ROUNDS = 5
GROWTH_MIB = 5.0  # below this, memory counts as not growing: the allocator's own noise


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    rows = _imports(2 if settings.quick else IMPORT_ROUNDS)
    print("  imports", flush=True)
    rows += _first_steps(settings.quick)
    print("  first steps", flush=True)
    rows += _long_run(settings.quick)
    print("  long run", flush=True)
    return rows, []


def _imports(rounds):
    code = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    seconds = {statement: [] for statement in IMPORTS}
    for number in range(rounds + 1):
        for statement in IMPORTS:
            found = float(_run("-c", code.format(statement)))
            if number:  # the first fills the disk cache
                seconds[statement].append(found)
    return [
        Row(
            "startup",
            "import dsink_jax",
            statistics.median(seconds["import dsink_jax"]),
            "s",
            other,
            statistics.median(seconds[other]),
            statistics.median(
                a / b for a, b in zip(seconds["import dsink_jax"], seconds[other], strict=True)
            ),
        )
        for other in IMPORTS
        if other != "import dsink_jax"
    ]


def _first_steps(quick):
    found = {kind: probe("first_step", kind, quick) for kind in ("dsink", "base", "torch")}
    case = "ResNet-8, batch 4" if quick else "ResNet-20, batch 128"
    rows = [
        Row(
            "startup",
            f"{case}: start of Python to end of first step",
            found["dsink"]["seconds"],
            "s",
            other,
            found[kind]["seconds"],
            found["dsink"]["seconds"] / found[kind]["seconds"],
            note="D-SINK, cached auxiliaries",
        )
        for kind, other in (("base", "base step"), ("torch", "PyTorch"))
    ]
    own, base = found["dsink"]["compile"], found["base"]["compile"]
    note = "tracing and lowering included; one process each"
    case = f"{case}: compilation before the second step"
    return [*rows, Row("startup", case, own, "s", "base step", base, own / base, note=note)]


def _long_run(quick):
    found = probe("long_run", "dsink", quick)
    case = f"small CNN, {found['epochs']} epochs"
    growth = Target("<=", GROWTH_MIB)
    note = f"{found['last']:.0f} MiB at the end, evaluation and checkpoints in every epoch"
    return [
        Row(
            "startup",
            f"{case}: compilations after the first epoch",
            found["recompilations"],
            "",
            target=Target("<=", 0),
            note=f"{found['compilations']} before",
        ),
        Row("startup", f"{case}: peak host memory", found["peak"], "MiB"),
        *(
            Row(
                "startup",
                f"{case}: growth of host memory {since}",
                growth_mib,
                "MiB",
                target=growth,
                note=note,
            )
            for since, growth_mib in (
                (f"after epoch {found['early_epoch']}", found["last"] - found["early"]),
                ("in the second half", found["last"] - found["half"]),
            )
        ),
    ]


def probe(*arguments: object) -> dict:
    """What a fresh process, `probe.py`, measured of itself."""
    words = [str(argument) for argument in arguments]
    started = time.time()
    return json.loads(_run("-m", "experiments.benchmark.probe", *words, str(started)).splitlines()[-1])


def environment() -> dict[str, str]:
    """That of a process of its own, which finds the modules that this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _run(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"A measurement in its own process failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
