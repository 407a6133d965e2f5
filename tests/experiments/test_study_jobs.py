"""Cells of a study in several processes: shares of the machine, failures, and being told to stop."""

import json
import os
import pathlib
import re
import sys

import pytest

from dsink_jax.training.loop import TrainingStoppedError
from experiments.study import __main__ as study
from experiments.study import jobs, records

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


def test_a_failed_job_is_named_and_the_others_are_run(tmp_path):
    ended, begun = tmp_path / "ended", tmp_path / "begun"
    commands = [
        (tmp_path / "bad.log", script("import sys; print('error: no such data'); sys.exit(2)")),
        (tmp_path / "good.log", script(f"import time; time.sleep(4); open({str(ended)!r}, 'w')")),
        (tmp_path / "later.log", script(f"open({str(begun)!r}, 'w')")),
    ]
    failed = jobs.run_all(commands, 2, NEVER, lambda: None)
    assert failed == [f"{tmp_path / 'bad.log'}: error: no such data"]
    assert ended.exists() and begun.exists()


@pytest.mark.parametrize(
    ("gpus", "visible", "at_once", "expected"),
    [
        (0, None, 2, [{}, {}]),
        (2, None, 2, [("0", "0.90"), ("1", "0.90")]),
        (4, None, 2, [("0", "0.90"), ("1", "0.90")]),
        (2, None, 3, [("0", "0.45"), ("1", "0.45"), ("0", "0.45")]),
        (8, "5,7", 3, [("5", "0.45"), ("7", "0.45"), ("5", "0.45")]),
        (4, "GPU-3c", 1, [("GPU-3c", "0.90")]),
    ],
)
def test_jobs_have_a_gpu_each_or_a_part_of_one(monkeypatch, gpus, visible, at_once, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    files = [pathlib.Path(f"/dev/nvidia{i}") for i in range(gpus)]
    monkeypatch.setattr(jobs.pathlib.Path, "glob", lambda _, pattern: iter(files))
    names = ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    wanted = [one and dict(zip(names, one, strict=True)) for one in expected]
    assert [jobs._gpu(slot, at_once) for slot in range(at_once)] == wanted


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


_TWO_EPOCHS = """
import dataclasses
from experiments.study import __main__ as study, budgets
small = budgets.BUDGETS["small"]
preset = dataclasses.replace(small.preset, epochs=2, evaluate_every=1, devices=1)
budgets.BUDGETS["small"] = dataclasses.replace(small, preset=preset)
study.main()
"""


@pytest.mark.slow
def test_a_study_of_two_jobs_tells_how_far_it_is_and_ends_with_all_rows(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    whole = study._command

    def command(flags, cell):
        log, (python, _, _, *arguments) = whole(flags, cell)
        return log, [python, "-c", _TWO_EPOCHS, *arguments]

    monkeypatch.setattr(study, "_command", command)
    places = ["--runs-dir", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    asked = ["correction", "--settings", "digits-ratio-10-symmetric-0.4", "--seeds", "7", "8", "--jobs", "2"]
    monkeypatch.setattr(sys, "argv", ["study", *asked, *places])
    study.main()
    said = re.findall(
        r"^\d\d:\d\d  (\d) of 8 models trained; about \d+ min left$", capsys.readouterr().out, re.M
    )
    assert said == sorted(set(said)) and said[0] == "0" and said[-1] == "8" and len(said) > 2
    rows = records.read(tmp_path / "results" / "correction", "results.csv")
    assert rows["seed"].tolist() == [7] * 4 + [8] * 4
    assert rows["model"].nunique() == 4
    assert (tmp_path / "results" / "correction" / "README.md").exists()
