"""Training that is stopped, damaged on disk or out of room."""

import contextlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dsink_jax.errors import InputError, StorageError
from dsink_jax.methods import CrossEntropy
from dsink_jax.training import Checkpointer, TrainingStoppedError, load_variables
from tiny_training import assert_equal_trees, files_of, stop_at, train

EPOCHS = 4
STEPS = 4  # 60 examples in batches of 16


def truncate(folder):
    largest = max(files_of(folder), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-7])
    return largest


def flip(folder):
    largest = max(files_of(folder), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    return largest


def remove(folder):
    largest = max(files_of(folder), key=lambda p: p.stat().st_size)
    largest.unlink()
    return largest


@pytest.mark.parametrize("hurt", [truncate, flip, remove])
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(hurt, small_data, cpus, tmp_path):
    whole = train(CrossEntropy(), small_data, cpus[:1], EPOCHS)
    with pytest.raises(TrainingStoppedError):
        train(
            CrossEntropy(),
            small_data,
            cpus[:1],
            EPOCHS,
            checkpointer=Checkpointer(tmp_path),
            should_stop=stop_at(3 * STEPS),
        )
    hurt_file = hurt(tmp_path / "12")
    told = []
    checkpointer = Checkpointer(tmp_path, tell=told.append)
    assert len(told) == 1 and "damaged" in told[0] and hurt_file.name in told[0]
    assert checkpointer.newest() == "epoch 2"
    resumed = train(CrossEntropy(), small_data, cpus[:1], EPOCHS, checkpointer=checkpointer)
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)
    Checkpointer(tmp_path, tell=told.append)
    assert len(told) == 1, "told once"


def test_only_checkpoint_damaged_is_an_error_and_not_a_new_start(small_data, cpus, tmp_path):
    train(CrossEntropy(), small_data, cpus[:1], 1, checkpointer=Checkpointer(tmp_path))
    flip(tmp_path / "4")
    with pytest.raises(InputError, match=r"(?s)is damaged: .*\nNo other is left: remove"):
        Checkpointer(tmp_path)
    assert (tmp_path / "4").is_dir()


def test_parameters_are_read_from_the_newest_whole_checkpoint(small_data, cpus, tmp_path):
    ends = []
    for epochs in (1, 2):  # as one schedule, stopped after the first epoch
        stop = {"should_stop": stop_at(STEPS)} if epochs == 1 else {}
        with contextlib.suppress(TrainingStoppedError):
            train(CrossEntropy(), small_data, cpus[:1], 2, checkpointer=Checkpointer(tmp_path), **stop)
        ends.append(load_variables(tmp_path))
    whole = train(CrossEntropy(), small_data, cpus[:1], 2)
    assert_equal_trees(ends[1], whole.variables)
    assert not np.array_equal(
        ends[0]["params"]["classifier"]["bias"], ends[1]["params"]["classifier"]["bias"]
    )
    flip(tmp_path / "8")
    assert_equal_trees(load_variables(tmp_path), ends[0])
    (tmp_path / "4" / "checksums.json").unlink()
    with pytest.raises(InputError, match=r"no whole checkpoint in .*\nGive the folder of one model"):
        load_variables(tmp_path)
    with pytest.raises(InputError, match=r"There is no folder .*elsewhere"):
        load_variables(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=rf"is one checkpoint of a model\.\n.*: here {re.escape(str(tmp_path))}."
    ):
        load_variables(tmp_path / "8")
    assert (tmp_path / "8").is_dir() and (tmp_path / "4").is_dir(), "nothing is changed"


def test_unfinished_checkpoint_is_named_and_not_used(small_data, cpus, tmp_path):
    train(CrossEntropy(), small_data, cpus[:1], 2, checkpointer=Checkpointer(tmp_path))
    (tmp_path / "8" / "checksums.json").unlink()  # as a kill between the two writes leaves it
    (tmp_path / "12").mkdir()
    shutil.copytree(tmp_path / "4/state", tmp_path / "12/state.orbax-checkpoint-tmp")  # during the first
    told = []
    checkpointer = Checkpointer(tmp_path, tell=told.append)
    assert told == [f"{tmp_path / '12'} was not finished and is not used."]
    assert checkpointer.newest() == "epoch 1"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["4"]


_FULL_DISK = """
import os, pathlib, sys
import jax
sys.path.insert(0, "tests")
import numpy as np
from dsink_jax.errors import StorageError
from dsink_jax.methods import CrossEntropy
from dsink_jax.training import Checkpointer, DeviceData
from tiny_training import train

place = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(0)
inputs, labels = rng.integers(0, 255, (60, 8, 8, 1)), rng.integers(0, 4, 60)
data = DeviceData(inputs.astype(np.uint8), labels.astype(np.int32))
devices = jax.devices()[:1]
whole = train(CrossEntropy(), data, devices, 4)

def fill(record):
    if record["epoch"] == 3:
        with open(place / "filler", "wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(1024))
            except OSError:
                pass

try:
    train(CrossEntropy(), data, devices, 4, checkpointer=Checkpointer(place / "run"), on_record=fill)
except StorageError as error:
    print("MESSAGE", str(error).replace(chr(10), " / "))
(place / "filler").unlink()
resumed = train(CrossEntropy(), data, devices, 4, checkpointer=Checkpointer(place / "run"))
print("SAME", resumed.history == whole.history)
"""


def in_a_namespace(mount, command, cwd):
    """Runs a command where a file system may be mounted; None where that is not allowed."""
    script = f"{mount} && {command}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, cwd=cwd)
    if probe.returncode:
        return None
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=300, cwd=cwd
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here to mount a small disk with")
def test_full_disk_is_said_and_the_earlier_checkpoint_stays_whole(tmp_path, request):
    script = tmp_path / "full_disk.py"
    script.write_text(_FULL_DISK)
    place = tmp_path / "disk"
    place.mkdir()
    done = in_a_namespace(
        f"mount -t tmpfs -o size=1m tmpfs {place}",
        f"{sys.executable} {script} {place}",
        request.config.rootpath,
    )
    if done is None:
        pytest.skip("no right to mount a small disk here")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert "No space left on device" in lines["MESSAGE"]
    assert "The earlier one, of epoch 2, is whole." in lines["MESSAGE"]
    assert lines["SAME"] == "True"
    assert "Traceback" not in done.stderr


def test_place_that_cannot_be_a_directory_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written to"):
        Checkpointer(tmp_path / "file" / "run")


def test_history_survives_as_json(small_data, cpus, tmp_path):
    train(CrossEntropy(), small_data, cpus[:1], 2, checkpointer=Checkpointer(tmp_path))
    record = json.loads((tmp_path / "8" / "record").read_text())
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
