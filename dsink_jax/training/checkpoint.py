"""Checkpoints of one model's training, written by Orbax."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from dsink_jax.errors import InputError
from dsink_jax.training.step import TrainState


class Checkpoint(NamedTuple):
    """What is saved of a training.

    Attributes:
      state: the state after `epoch` epochs. The order of examples and all random draws follow from the
        seed and the step, so they need no state of their own.
      epoch: epochs done.
      history: records of the evaluated epochs.
      seconds: time spent so far.
    """

    state: TrainState
    epoch: int
    history: list[dict[str, Any]]
    seconds: float


class Checkpointer:
    """Saves and restores the training of one model in a directory of its own."""

    def __init__(self, directory: pathlib.Path):
        """Opens or makes `directory`."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint; an interrupted write leaves the one before it whole."""
        state = jax.device_get(checkpoint.state)  # NumPy: needs no device layout to be read back
        record = {
            "epoch": checkpoint.epoch,
            "history": checkpoint.history,
            "seconds": checkpoint.seconds,
            "structure": _structure(state),
        }
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()), record=ocp.args.JsonSave(record)
        )
        self._manager.save(checkpoint.epoch, args=arguments)

    def latest_epoch(self) -> int:
        """Epochs done in the newest checkpoint, 0 if there is none."""
        return self._manager.latest_step() or 0

    def restore(self, template: TrainState) -> Checkpoint | None:
        """The newest checkpoint, or None if there is none.

        Args:
          template: a state of the same structure and shapes.

        Raises:
          InputError: if the checkpoint does not fit the template or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template._asdict())
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=arguments)
        except (ValueError, KeyError, OSError) as error:
            raise InputError(
                f"The checkpoint in {self._directory} cannot be used: {str(error).splitlines()[0]}\n"
                "Remove that directory to train the model anew."
            ) from error
        record = restored["record"]
        state = TrainState(**restored["state"])
        # Orbax checks neither shapes nor what the template lacks.
        if record["structure"] != _structure(template):
            raise InputError(
                f"The checkpoint in {self._directory} is of another model or method.\n"
                "Remove that directory to train the model anew."
            )
        return Checkpoint(state, record["epoch"], record["history"], record["seconds"])

    def close(self) -> None:
        """Waits for writes and frees the directory."""
        self._manager.close()


def _structure(state):
    """Path, shape and type of every array."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [[jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves]
