"""Runs of the command line that are started twice, whose disk is full, or whose files are damaged."""

import dataclasses
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from dsink_jax.data import Selected, load_corruption
from experiments import dataset
from experiments.config import DIGITS
from experiments.run_directory import RunDirectory
from run_commands import QUICK, ROOT, command, read, run


@pytest.mark.slow
def test_second_process_on_a_run_directory_refuses(undisturbed):
    before = read(undisturbed)
    with RunDirectory(config_of(undisturbed)):
        refused = run(*QUICK, "--run-dir", undisturbed)
    assert refused.returncode == 2
    assert f"is in use by process {os.getpid()} on" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 2
    assert read(undisturbed) == before


def config_of(directory):
    return dataclasses.replace(
        DIGITS, epochs=5, checkpoint_every=1, devices=1, baselines="none", run_dir=directory
    )


@pytest.fixture
def copied(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "copy")


@pytest.mark.slow
def test_line_cut_short_is_named_and_left_out(copied, undisturbed, capsys):
    path = copied / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    with RunDirectory(config_of(copied)):
        pass
    assert "line 15 is not whole and is left out" in capsys.readouterr().err
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 14


@pytest.mark.slow
def test_damaged_corrupted_set_is_refused(copied, capsys):
    path = copied / "corruption.npz"
    content = dict(np.load(path))
    content["noisy_labels"][0] = (content["noisy_labels"][0] + 1) % 10
    np.savez_compressed(path, **content)
    refused = run(*QUICK, "--run-dir", copied)
    assert refused.returncode == 2
    assert "does not match its digest" in refused.stderr and "Traceback" not in refused.stderr
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="is not a readable corrupted set"):
        load_corruption(path)


@pytest.mark.slow
def test_damaged_results_are_refused(copied):
    path = copied / "results.json"
    path.write_text(path.read_text()[:-40])
    refused = run(*QUICK, "--run-dir", copied)
    assert refused.returncode == 2 and "is damaged" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here to mount a read-only place with")
def test_read_only_run_directory_is_said(copied):
    mount = f"mount --bind {copied} {copied} && mount -o remount,bind,ro {copied}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no right to mount a read-only place here")
    line = " ".join(command(*QUICK, "--run-dir", copied))
    refused = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {line}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert refused.returncode == 2, refused.stderr
    assert "cannot be written: Read-only file system" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here to mount a small disk with")
def test_full_disk_ends_the_run_in_two_lines_and_it_goes_on_when_there_is_room(undisturbed, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=600k tmpfs {place}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    line = " ".join(command(*QUICK, "--run-dir", place / "run"))
    again = f"mount -o remount,size=8m {place} && {line} && cp -r {place}/run {tmp_path}/kept"
    script = f"{mount} && {line}; echo code $? >&2; {again}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    said = done.stderr.strip().splitlines()
    assert "code 1" in said, done.stderr
    assert "Traceback" not in done.stderr
    assert any(text.startswith("error: ") and "No space left on device" in text for text in said)
    assert done.returncode == 0
    assert read(tmp_path / "kept") == read(undisturbed)


@pytest.mark.slow
def test_settings_that_came_later_leave_old_runs_usable(copied):
    path = copied / "config.json"
    stored = json.loads(path.read_text())
    del stored["settings"]["on_nan"]
    path.write_text(json.dumps(stored))
    with RunDirectory(config_of(copied)):
        pass


@pytest.mark.slow
def test_streamed_run_has_the_same_results(undisturbed, tmp_path):
    directory = tmp_path / "run"
    done = run(*QUICK, "--run-dir", directory, "--streaming", "on")
    assert done.returncode == 0, done.stderr
    assert read(directory) == read(undisturbed)


def test_images_are_streamed_where_they_do_not_fit(monkeypatch, cpus, tmp_path):
    config = dataclasses.replace(DIGITS, run_dir=tmp_path / "run")
    with RunDirectory(config) as directory:
        loaded = dataset.load_dataset(config, directory, cpus[:1])
    size = loaded.images.nbytes
    for memory, streams in ((size, False), (size - 1, True)):
        monkeypatch.setattr(dataset, "memory_for_data", lambda devices, memory=memory: memory)
        asked = dataclasses.replace(loaded)  # images are remembered
        assert asked.streams is streams
        assert isinstance(asked.images, Selected if streams else np.ndarray)


@pytest.mark.slow
def test_held_out_images_choose_a_checkpoint(undisturbed, tmp_path):
    directory = tmp_path / "run"
    done = run(*QUICK, "--run-dir", directory, "--validation-share", "0.2", "--keep-checkpoints", "1")
    assert done.returncode == 0, done.stderr
    results = read(directory)
    assert (results["data"]["train_images"], results["data"]["validation_images"]) == (435, 109)
    assert results["data"]["sha256"] == read(undisturbed)["data"]["sha256"], "the same corrupted set"
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for name, entry in results["models"].items():
        records = [line for line in lines if line["model"] == name]
        best = max(records, key=lambda record: record["validation_accuracy"])
        assert entry["accuracy"]["at_best_validation"] == best["accuracy"]
        folders = (directory / "checkpoints" / name).iterdir()
        kept = {int(path.name) // 7 for path in folders if path.name.isdigit()}  # 7 steps an epoch
        assert 5 in kept and len(kept) <= 2
        scores = [record["validation_accuracy"] for record in records if record["epoch"] in kept]
        assert max(scores) == best["validation_accuracy"]
