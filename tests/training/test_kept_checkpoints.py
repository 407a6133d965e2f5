"""Which checkpoints are kept, whatever happens while one is written or removed."""

import contextlib
import errno
import pathlib
import shutil

import pytest

from dsink_jax.errors import StorageError
from dsink_jax.methods import CrossEntropy
from dsink_jax.training import Checkpointer, TrainingStoppedError, integrity
from tiny_training import files_of, stop_at, train

EPOCHS = 4
STEPS = 4  # 60 examples in batches of 16


def test_the_only_checkpoint_is_kept_until_the_next_is_sealed(small_data, cpus, tmp_path, monkeypatch):
    """What a kill would leave just before a checkpoint is sealed, and in the middle of removing the last."""
    directory, seal, remove = tmp_path / "checkpoints", integrity.seal, shutil.rmtree
    whole = train(CrossEntropy(), small_data, cpus[:1], EPOCHS)

    def seal_after_copy(folder):
        shutil.copytree(directory, tmp_path / f"before-{folder.name}")
        seal(folder)

    def remove_after_copy(folder, **options):
        if pathlib.Path(folder).parent == directory:
            copy = tmp_path / f"between-{max(steps(directory))}"
            shutil.copytree(directory, copy)
            files_of(copy / folder.name)[0].unlink()
        remove(folder, **options)

    monkeypatch.setattr(integrity, "seal", seal_after_copy)
    monkeypatch.setattr(shutil, "rmtree", remove_after_copy)
    train(CrossEntropy(), small_data, cpus[:1], EPOCHS, checkpointer=Checkpointer(directory, keep=1))
    monkeypatch.undo()
    assert steps(directory) == [16]
    told = []
    for folder, newest in (("before-12", "epoch 2"), ("between-12", "epoch 3"), ("before-16", "epoch 3")):
        checkpointer = Checkpointer(tmp_path / folder, keep=1, tell=told.append)
        assert checkpointer.newest() == newest
        resumed = train(CrossEntropy(), small_data, cpus[:1], EPOCHS, checkpointer=checkpointer)
        assert resumed.history == whole.history
        assert steps(tmp_path / folder) == [16]
    assert [text.rsplit("/", 1)[1] for text in told] == [
        f"{step} was not finished and is not used." for step in (12, 16)
    ]


def test_disk_full_while_sealing_leaves_the_only_checkpoint(small_data, cpus, tmp_path, monkeypatch):
    def refuse(folder):
        if folder.name == "8":
            raise OSError(errno.ENOSPC, "No space left on device")
        seal(folder)

    seal = integrity.seal
    monkeypatch.setattr(integrity, "seal", refuse)
    with pytest.raises(
        StorageError, match=r"No space left on device\. The earlier one, of epoch 1, is whole"
    ):
        train(CrossEntropy(), small_data, cpus[:1], 2, checkpointer=Checkpointer(tmp_path, keep=1))
    assert Checkpointer(tmp_path).newest() == "epoch 1"


def test_what_cannot_be_removed_stops_nothing(small_data, cpus, tmp_path, monkeypatch):
    """As where a network file system keeps a file that is open."""

    def refuse(folder, **options):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    train(CrossEntropy(), small_data, cpus[:1], EPOCHS, checkpointer=Checkpointer(tmp_path, keep=1))
    monkeypatch.undo()
    told = []
    assert Checkpointer(tmp_path, tell=told.append).newest() == "epoch 4"
    assert steps(tmp_path) == [16] and not told


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_newest_checkpoints_and_the_best_by_validation_are_kept(small_data, cpus, tmp_path):
    scores = iter([0.1, 0.7, 0.3, 0.2, 0.6, 0.5])
    for stop in (4 * STEPS, None):  # and gone on with
        with contextlib.suppress(TrainingStoppedError):
            train(
                *(CrossEntropy(), small_data, cpus[:1], 6),
                checkpointer=Checkpointer(tmp_path, keep=2, keep_best=True),
                evaluate=lambda trained: {"validation_accuracy": next(scores)},
                should_stop=stop_at(*([stop] if stop else [])),
            )
    assert steps(tmp_path) == [2 * STEPS, 5 * STEPS, 6 * STEPS]
    again = Checkpointer(tmp_path, keep=1)
    assert again.newest() == "epoch 6"
