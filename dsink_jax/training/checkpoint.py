"""Checkpoints of one model's training, written by Orbax and sealed with checksums.

`<directory>/<step>/state` is the state as Orbax's `StandardCheckpointer` reads it without this library,
`<directory>/<step>/record` the rest of it as JSON.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from dsink_jax.errors import InputError
from dsink_jax.models.interface import Variables
from dsink_jax.training import integrity, storage
from dsink_jax.training.arguments import TrainState

_BESIDE_ARRAYS, _BESIDE_AN_ARRAY = 64 * 1024, 1024  # bytes of what describes a checkpoint and an array


class Checkpoint(NamedTuple):
    """What is saved of a training.

    Attributes:
      state: the state after `epoch` epochs and `step` steps of the next. The order of examples and all random
        draws follow from the seed and the step, so they need no state of their own.
      epoch: whole epochs done.
      history: records of the evaluated epochs.
      seconds: time spent so far.
      step: steps done of the epoch under way.
      sums: sums of metrics over these steps, by name.
    """

    state: TrainState
    epoch: int
    history: list[dict[str, Any]]
    seconds: float
    step: int = 0
    sums: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Checkpointer:
    """Saves and restores the training of one model in a directory of its own."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep: int = 2,
        keep_best: bool = False,
        tell: Callable[[str], None] = lambda message: print(message, file=sys.stderr, flush=True),
    ):
        """Opens or makes `directory`, and puts checkpoints that are not whole out of the way.

        Args:
          directory: where the checkpoints are.
          keep: how many of the newest to keep, at least 1.
          keep_best: whether to keep the one of the best validation accuracy too.
          tell: called with a sentence for each checkpoint that is passed over.

        Raises:
          InputError: if the only checkpoints there are damaged, or none is to be kept.
          StorageError: if the directory cannot be written.
        """
        if keep < 1:
            raise InputError(f"At least 1 checkpoint has to be kept, got {keep}.")
        self._directory = directory.absolute()
        self._keep, self._keep_best = keep, keep_best
        with storage.refusals_said(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            integrity.set_aside(self._directory, tell)
        self._orbax = _orbax()

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint; an interrupted write leaves the one before it whole.

        Raises:
          StorageError: if there is no room for it, or the directory cannot be written.
        """
        state = jax.device_get(checkpoint.state)  # NumPy: needs no device layout to be read back
        folder = self._directory / str(int(state.step))
        if integrity.is_sealed(folder):
            return
        state = jax.tree.map(lambda leaf: leaf if leaf.size else None, state)  # what Orbax can write
        size = _BESIDE_ARRAYS + sum(leaf.nbytes + _BESIDE_AN_ARRAY for leaf in jax.tree.leaves(state))
        sums = {name: float(value) for name, value in checkpoint.sums.items()}
        record = {**checkpoint._asdict(), "sums": sums}
        del record["state"]
        with storage.refusals_said(self._directory, f"The earlier one, of {self.newest()}, is whole."):
            try:
                storage.check_room(self._directory, size)
                self._orbax.save(folder / "state", args=ocp.args.StandardSave(state), force=True)
                (folder / "record").write_text(json.dumps(record), encoding="utf-8")
                integrity.seal(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._prune()

    def _prune(self):
        """Removes what is not to be kept; at any moment of it all that is sealed is whole."""
        folders = integrity.sealed(self._directory)
        kept = folders[-self._keep :]
        if self._keep_best:
            kept.append(max(folders, key=lambda folder: _validation(self._record(folder))))
        for folder in folders:
            if folder not in kept:
                with contextlib.suppress(OSError):  # what is left of it is removed at the next start
                    integrity.remove(folder)

    def latest_epoch(self) -> int:
        """Whole epochs done in the newest checkpoint, 0 if there is none."""
        folders = integrity.sealed(self._directory)
        return self._record(folders[-1])["epoch"] if folders else 0

    def newest(self) -> str:
        """The newest checkpoint in words."""
        try:
            record = self._record(integrity.sealed(self._directory)[-1])
        except (IndexError, ValueError, OSError):
            return "no epoch: nothing is saved yet"
        return f"epoch {record['epoch']}" + (f" and {record['step']} steps" if record["step"] else "")

    def restore(self, template: TrainState) -> Checkpoint | None:
        """The newest checkpoint, or None if there is none.

        Args:
          template: a state of the same structure, shapes and types.

        Returns:
          The checkpoint, its state in the structure of the template, NumPy arrays.

        Raises:
          InputError: if the checkpoint does not fit the template or cannot be read.
        """
        folders = integrity.sealed(self._directory)
        if not folders:
            return None
        record = self._record(folders[-1])
        try:
            saved = _named(self._orbax.restore(folders[-1] / "state"))
        except (ValueError, KeyError, OSError) as error:
            raise self._error(f"cannot be used: {str(error).splitlines()[0]}") from error
        wanted = _named(template)
        saved |= {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items() if not leaf.size}
        kinds = [{name: (a.shape, a.dtype) for name, a in arrays.items()} for arrays in (saved, wanted)]
        if kinds[0] != kinds[1]:
            raise self._error("is of another model or method.")
        state = jax.tree.unflatten(jax.tree.structure(template), [saved[name] for name in wanted])
        return Checkpoint(state, **record)

    def _record(self, folder):
        try:
            return json.loads((folder / "record").read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise self._error(f"cannot be used: {error}") from error

    def _error(self, why):
        remedy = "Remove that directory to train the model anew."
        return InputError(f"The checkpoint in {self._directory} {why}\n{remedy}")

    def close(self) -> None:
        """Frees what writing needs."""
        self._orbax.close()


def load_variables(directory: str | os.PathLike[str]) -> Variables:
    """The parameters of a trained model, from the newest whole checkpoint in a directory.

    They need nothing of the training but the network, as in `model.apply(variables, images)`, and images that
    are normalised as they were. Of a training with `average_decay` they are the averages.

    Args:
      directory: a model's checkpoints, such as `RUN/checkpoints/target`. Nothing in it is changed.

    Returns:
      What `Model.apply` takes, NumPy arrays: `params` and what else the network keeps, such as `batch_stats`;
      of several networks with that level in between, see `dsink_jax.models.several`.

    Raises:
      InputError: if there is no whole checkpoint in it.
    """
    folder = pathlib.Path(directory).absolute()
    for checkpoint in reversed(integrity.sealed(folder)):
        if integrity.damage(checkpoint) is None:
            with _orbax() as reader:
                state = reader.restore(checkpoint / "state")
            # Averaged parameters if there are any, as `TrainState.variables`.
            return {"params": state["average"] or state["params"], **state["collections"]}
    remedy = "Give the folder of one model of a run, such as RUN/checkpoints/target."
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.\n{remedy}")
    if integrity.is_sealed(folder):
        raise InputError(f"{folder} is one checkpoint of a model.\n{remedy[:-1]}: here {folder.parent}.")
    raise InputError(f"There is no whole checkpoint in {folder}.\n{remedy}")


def _orbax():
    """One process writes, also where there are several: the others never open a checkpointer."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _validation(record):
    """The validation accuracy; of no use for choosing where it is not of this epoch."""
    last = record["history"][-1] if record["history"] else {}
    current = last.get("epoch") == record["epoch"] and not record["step"]
    return last.get("validation_accuracy", -1.0) if current else -1.0


def _named(tree):
    """The arrays of a tree by the names that lead to them: the same where Orbax made dictionaries of it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
