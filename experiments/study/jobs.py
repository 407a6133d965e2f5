"""Cells of a study in several processes at once, each with its own share of the machine."""

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence

from dsink_jax.training.loop import TrainingStoppedError
from experiments.interruption import StopRequest

_POLL_SECONDS = 2.0


def run_all(
    commands: Sequence[tuple[pathlib.Path, list[str]]],
    jobs: int,
    should_stop: StopRequest,
    on_change: Callable[[], None],
) -> list[str]:
    """Runs commands, `jobs` at a time.

    A job has its share of the CPU cores, and one GPU where there are any. When one fails, the others are run
    all the same.

    Args:
      commands: where the output goes, and what to run, in order.
      jobs: how many at a time.
      should_stop: asked between; the jobs are then told to save and end.
      on_change: called from time to time.

    Returns:
      For each job that failed its log file and the end of its output.

    Raises:
      TrainingStoppedError: if `should_stop` said so.
    """
    waiting, running, failed = list(commands), {}, []
    try:
        while running or waiting:
            while waiting and len(running) < jobs:
                slot = next(i for i in range(jobs) if i not in running)
                log, command = waiting.pop(0)
                running[slot] = (_start(command, log, slot, jobs), log)
            time.sleep(_POLL_SECONDS)
            for slot, (process, log) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    if process.returncode:
                        failed.append(log)
            on_change()
            if should_stop(0):
                raise TrainingStoppedError("all jobs")
    finally:
        for process, _ in running.values():
            process.terminate()  # saves and ends
        for process, _ in running.values():
            process.wait()
    return [f"{log}: {_end_of(log)}" for log in failed]


def _end_of(log):
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-2:]
    return " ".join(lines or ["no output"])


def _start(command, log, slot, jobs):
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_gpu(slot, jobs)},
            # Ctrl-C reaches the jobs through us, once.
            start_new_session=True,
        )
    _give_cores(process, slot, jobs)
    return process


def _give_cores(process, slot, jobs):
    """Keeps a process on its share of the cores, before it starts threads: each job would use all of them."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(process.pid, cores[slot % len(cores) :: jobs] or cores)


def _gpu(slot, jobs):
    """One GPU for each job, and a part of its memory if jobs share one."""
    count = len(list(pathlib.Path("/dev").glob("nvidia[0-9]*")))
    if not count:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    sharing = -(-jobs // len(visible))
    return {
        "CUDA_VISIBLE_DEVICES": visible[slot % len(visible)],
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / sharing:.2f}",
    }
