"""Cells of a study in several processes: shares of the machine, failures, and being told to stop."""

import json
import os
import sys

import pytest

from dsink_jax.errors import InputError
from dsink_jax.training.loop import TrainingStoppedError
from experiments.study import jobs

NEVER = lambda _: False  # noqa: E731


def script(text):
    return [sys.executable, "-c", text]


def test_jobs_run_side_by_side_on_their_share(tmp_path):
    commands = [
        (
            tmp_path / f"{i}.log",
            script("import os, time; print(sorted(os.sched_getaffinity(0))); time.sleep(1)"),
        )
        for i in range(3)
    ]
    jobs.run_all(commands, 2, NEVER, lambda: None)
    shares = [json.loads(log.read_text()) for log, _ in commands]
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(shares[0]) & set(shares[1])
    assert set(shares[0]) | set(shares[1]) == os.sched_getaffinity(0)


def test_a_failed_job_lets_the_others_end_and_is_named(tmp_path):
    ended = tmp_path / "ended"
    commands = [
        (tmp_path / "bad.log", script("import sys; print('error: no such data'); sys.exit(2)")),
        (tmp_path / "good.log", script(f"import time; time.sleep(4); open({str(ended)!r}, 'w')")),
        (tmp_path / "never.log", script("print('begun')")),
    ]
    with pytest.raises(InputError, match=r"bad\.log: error: no such data"):
        jobs.run_all(commands, 2, NEVER, lambda: None)
    assert ended.exists() and not (tmp_path / "never.log").exists()


def test_jobs_are_told_to_stop_and_waited_for(tmp_path):
    saved = tmp_path / "saved"
    text = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), open({str(saved)!r}, 'w'), sys.exit(0)))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    log = tmp_path / "one.log"
    with pytest.raises(TrainingStoppedError):
        jobs.run_all([(log, script(text))], 1, lambda _: "ready" in log.read_text(), lambda: None)
    assert saved.exists()
