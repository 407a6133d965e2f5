"""Runs of the command line that are killed, or asked to stop."""

import random
import signal
import subprocess
import time

import pytest

from run_commands import QUICK, ROOT, command, read, run

# Predictions out of fold, and all that decides when checkpoints are written.
FOLDS = (
    *("--auxiliary-predictions", "out_of_fold", "--folds", "3", "--epochs", "2", "--limit-train", "500"),
    *("--optimizer", "adamw", "--learning-rate", "0.003", "--average-decay", "0.99"),
    *("--checkpoint-minutes", "0.002", "--steps-per-dispatch", "3"),
)


def start(directory, *more):
    return subprocess.Popen(
        command(*QUICK, *more, "--run-dir", directory),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_killed(kills, reference, folder, *more):
    """Runs are killed at random moments until there were so many kills; all end as the reference did."""
    moments, longest, runs = random.Random(0), 10.0, 0
    while kills:
        directory = folder / f"run-{runs}"
        began = time.monotonic()
        process = start(directory, *more)
        try:
            process.wait(timeout=moments.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills -= 1
            continue
        assert process.returncode == 0, process.stderr.read()
        longest = max(time.monotonic() - began, 2.0)
        runs += 1
    done = run(*QUICK, *more, "--run-dir", folder / f"run-{runs}")
    assert done.returncode == 0, done.stderr
    for number in range(runs + 1):
        assert read(folder / f"run-{number}") == read(reference)
        metrics = (folder / f"run-{number}" / "metrics.jsonl").read_text()
        assert metrics == (reference / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_results_are_bit_identical(undisturbed, tmp_path):
    check_killed(20, undisturbed, tmp_path)


@pytest.mark.slow
def test_killed_among_folds_the_results_are_bit_identical(tmp_path):
    reference = tmp_path / "reference"
    done = run(*QUICK, *FOLDS, "--run-dir", reference)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (reference / "checkpoints").iterdir()}
    assert names >= {f"noise_robust_fold_{number}" for number in (1, 2, 3)}
    check_killed(3, reference, tmp_path, *FOLDS)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(number, code, undisturbed, tmp_path):
    directory = tmp_path / "run"
    process = start(directory)
    deadline = time.monotonic() + 300
    while not (directory / "checkpoints" / "noise_robust").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    said = errors.strip().splitlines()
    assert number.name in said[0]
    assert said[-2].startswith("Stopped: ") and "saved" in said[-2]
    assert (
        said[-1].strip() == f"python -m experiments.digits {' '.join(map(str, QUICK))} --run-dir {directory}"
    )
    trained = (directory / "checkpoints" / "imbalance_robust").stat().st_mtime_ns
    done = run(*QUICK, "--run-dir", directory)
    assert done.returncode == 0, done.stderr
    assert "imbalance_robust (logit_adjustment)" not in done.stdout, "the first auxiliary was trained again"
    assert (directory / "checkpoints" / "imbalance_robust").stat().st_mtime_ns == trained
    assert read(directory) == read(undisturbed)
