"""Several processes on one machine, each with its own devices, as several machines would be."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dsink_jax.errors import InputError
from dsink_jax.training import processes
from experiments.command_line import is_loss
from run_commands import ROOT, command, read

SCRIPT = pathlib.Path(__file__).with_name("one_process.py")


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(**more):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", **more}


def start(count, devices, place, pause=0.0, more=()):
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (index, count, devices, port, place, pause)), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for index in range(count)
    ]


def finish(started):
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def end(place, index=0):
    with np.load(place / f"end-{index}.npz") as file:
        leaves = [file[name] for name in file.files]
    return leaves, json.loads((place / f"end-{index}.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with four devices."""
    place = tmp_path_factory.mktemp("alone")
    finish(start(1, 4, place))
    return end(place)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_several_processes_train_what_one_does(count, devices, alone, tmp_path):
    """12 steps with per-example state; every process ends with the same parameters, bit for bit."""
    finish(start(count, devices, tmp_path))
    leaves, ends = end(tmp_path)
    assert ends["devices"] == 4 and ends["told"] == {"process": 0}
    for ours, theirs in zip(leaves, alone[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for record, expected in zip(ends["history"], alone[1]["history"], strict=True):
        assert record["train"] == pytest.approx(expected["train"], abs=1e-5)
    for index in range(1, count):
        others, told = end(tmp_path, index)
        assert told["told"] == {"process": 0} and told["history"] == ends["history"]
        for ours, theirs in zip(others, leaves, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_processes_solve_for_the_labels_of_their_common_batch(tmp_path):
    """D-SINK's Q is of both shares together, gathered by each process or solved where the rows are.

    And what the first process tells may come in pieces.
    """
    for name, count, devices, words in (
        ("alone", 1, 4, ["dsink"]),
        ("gathered", 2, 2, ["dsink", "pieces"]),
        ("distributed", 2, 2, ["dsink", "distributed"]),
    ):
        (tmp_path / name).mkdir()
        finish(start(count, devices, tmp_path / name, more=words))
    leaves, ends = end(tmp_path / "alone")
    assert all(record["train"]["sinkhorn_converged"] == 1 for record in ends["history"])
    for name in ("gathered", "distributed"):
        for ours, theirs in zip(end(tmp_path / name)[0], leaves, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        for ours, theirs in zip(*(end(tmp_path / name, index)[0] for index in (0, 1)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_processes_train_a_module_of_ones_own_like_one(tmp_path):
    """Dropout, batch normalisation, inputs [M, T, D], AdamW, an average: what it is then, or predicts."""
    for name, count, devices in (("alone", 1, 2), ("two", 2, 1)):
        (tmp_path / name).mkdir()
        finish(start(count, devices, tmp_path / name, more=["own"]))
    alone, two = (end(tmp_path / name)[1] for name in ("alone", "two"))
    for record, expected in zip(two["history"], alone["history"], strict=True):
        assert record["train"] == pytest.approx(expected["train"], abs=1e-5)
    np.testing.assert_allclose(two["logits"], alone["logits"], atol=1e-4)
    for ours, theirs in zip(*(end(tmp_path / "two", index)[0] for index in (0, 1)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_several_processes_stream_what_one_has_in_memory_each_its_own_share(alone, tmp_path):
    """And the first may save in the middle of an epoch without the others."""
    finish(start(2, 2, tmp_path, more=["streamed", "minutes"]))
    leaves, ends = end(tmp_path)
    for ours, theirs in zip(leaves, alone[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for told in (ends, end(tmp_path, 1)[1]):
        assert told["read"] == 12 * 16 / 2 + 1  # one more to see what an image looks like


@pytest.mark.slow
def test_finished_training_is_read_by_the_first_and_known_to_all(tmp_path):
    finish(start(2, 2, tmp_path))
    before = end(tmp_path, 1)
    finish(start(2, 2, tmp_path))  # from the checkpoint of the first process
    after = end(tmp_path, 1)
    for ours, theirs in zip(after[0], before[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert after[1] == before[1]


def run_of_two(directory, *arguments):
    port = free_port()
    shared = ("--epochs", "3", "--checkpoint-every", "1", "--baselines", "none", "--run-dir", directory)
    shared += ("--coordinator", f"localhost:{port}", "--process-count", "2", *arguments)
    return [
        subprocess.Popen(
            command(*shared, "--process-index", index),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(JAX_NUM_CPU_DEVICES="1"),
        )
        for index in (0, 1)
    ]


def until(started, path):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert all(process.poll() is None for process in started) and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killing_either_process_ends_the_other_with_a_message_and_the_run_goes_on(tmp_path):
    directory = tmp_path / "run"
    for killed, after in ((0, "imbalance_robust"), (1, "noise_robust")):
        started = run_of_two(directory)
        until(started, directory / "checkpoints" / after)
        started[killed].send_signal(signal.SIGKILL)
        other = started[1 - killed]
        _, errors = other.communicate(timeout=60)
        started[killed].communicate()
        assert other.returncode != 0
        # Ours where the connection breaks, JAX's own where its service notices first.
        assert "lost another process of this run" in errors or "another task died" in errors, errors
    again = run_of_two(directory)
    outputs = [process.communicate(timeout=300) for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    assert "Report:" in outputs[0][0] and outputs[1][0].replace("\n", "").count("Report:") == 0
    assert list(read(directory)["models"]) == ["imbalance_robust", "noise_robust", "target"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Connection reset by peer"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        # As it came once out of a broadcast.
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (ValueError("shapes differ"), False),
        (OSError("UNKNOWN: disk"), False),
    ],
)
def test_how_a_lost_process_is_told_from_other_errors(error, lost):
    assert is_loss(error) is lost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to", "codes"),
    [
        (signal.SIGTERM, (1,), [0, 0]),  # one is enough: they agree on the step
        (signal.SIGINT, (0, 1), [130, 130]),  # as from a terminal
    ],
)
def test_two_processes_stop_together_when_asked(number, to, codes, tmp_path):
    directory = tmp_path / "run"
    started = run_of_two(directory, "--epochs", "500")
    until(started, directory / "metrics.jsonl")
    for index in to:
        started[index].send_signal(number)
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == codes, outputs
    assert "Stopped: imbalance_robust: epoch" in outputs[0][1]
    assert any((directory / "checkpoints" / "imbalance_robust").glob("*/checksums.json"))


@pytest.mark.slow
def test_processes_agree_when_to_stop_though_one_has_saved_and_is_ahead(tmp_path):
    """Orbax asks JAX too, with a count of its own: then one process would stop and the others wait for it."""
    port = free_port()
    arguments = [sys.executable, SCRIPT.with_name("stopped_together.py")]
    started = [
        subprocess.Popen([*arguments, str(index), str(port), tmp_path], env=environment()) for index in (0, 1)
    ]
    assert [process.wait(timeout=100) for process in started] == [0, 0]
    stopped = {(tmp_path / f"asked-{index}").read_text() for index in (0, 1)}
    assert len(stopped) == 1 and stopped != {"100"}


def test_processes_that_slurm_started_find_each_other():
    """By what `srun` sets in the environment of each task, and nothing else."""
    code = (
        "from dsink_jax.training import processes; processes.join(None, None, None); "
        "told = processes.from_first(lambda: 'a job'); import jax; "
        "print(jax.process_index(), jax.process_count(), told)"
    )
    # JAX takes the port from the job's number.
    shared = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(**shared, SLURM_PROCID=str(index), SLURM_LOCALID=str(index)),
        )
        for index in (0, 1)
    ]
    outputs = [process.communicate(timeout=100)[0].splitlines()[-1:] for process in started]
    assert outputs == [["0 2 a job"], ["1 2 a job"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, None), "go together"),
        (("localhost:1", 2, None), "go together"),
        (("localhost:1", 2, 2), r"must be in \[0, 2\)"),
    ],
)
def test_half_given_processes_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        processes.join(*given)
    assert processes.is_first() and processes.from_first(lambda: 3) == 3
