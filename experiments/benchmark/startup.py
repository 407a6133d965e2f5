"""Part `startup`: import, first step, compilations and memory; each in a process of its own."""

import json
import os
import subprocess
import sys
import time

from dsink_jax.errors import InputError
from experiments.benchmark.loop_speed import QUICK_WORKLOAD, WORKLOAD
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, comparison

IMPORTS = ("import dsink_jax", "import jax", "import jax, optax", "import torch")  # ours first
IMPORT_ROUNDS = 5
GROWTH = "<= 5"  # MiB; below this, memory counts as not growing: the allocator's own noise


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
        for statement, found in seconds.items():
            taken = float(_run("-c", code.format(statement)))
            if number:  # the first fills the disk cache
                found.append(taken)
    own, *others = IMPORTS
    return [comparison("startup", own, seconds, own, other, unit="s") for other in others]


def _first_steps(quick):
    found = {kind: probe("first_step", kind, quick) for kind in ("cached", "none", "torch")}
    workload = f"{(QUICK_WORKLOAD if quick else WORKLOAD).case}: "

    def row(case, what, kind, other, note):
        own, against = found["cached"][what], found[kind][what]
        return Row("startup", workload + case, own, "s", other, against, own / against, note=note)

    whole, note = "start of Python to end of first step", "D-SINK, cached auxiliaries"
    compiling, inclusive = (
        "compilation before the second step",
        "tracing and lowering included; one process each",
    )
    return [
        row(whole, "seconds", "none", "base step", note),
        row(whole, "seconds", "torch", "PyTorch", note),
        row(compiling, "compile", "none", "base step", inclusive),
    ]


def _long_run(quick):
    found = probe("long_run", "cached", quick)
    case, early, last = f"small CNN, {found['epochs']} epochs: ", found["early"], found["last"]
    note = f"{last:.0f} MiB at the end, evaluation and checkpoints in every epoch"
    grown = {f"after epoch {found['early_epoch']}": last - early, "in the second half": last - found["half"]}
    count, before = found["recompilations"], f"{found['compilations']} before"
    return [
        Row("startup", f"{case}compilations after the first epoch", count, "", target="<= 0", note=before),
        Row("startup", f"{case}peak host memory", found["peak"], "MiB"),
        *(
            Row("startup", f"{case}growth of host memory {since}", mib, "MiB", target=GROWTH, note=note)
            for since, mib in grown.items()
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
