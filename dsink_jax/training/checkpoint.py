"""Checkpoints of one model's training, written by Orbax and sealed with checksums."""

import contextlib
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from dsink_jax.errors import InputError, StorageError
from dsink_jax.models.interface import Variables
from dsink_jax.training import integrity
from dsink_jax.training.packing import nested, pack, structure_of, totals, unpack
from dsink_jax.training.step import TrainState

_VALIDATION = "validation"
_BESIDE_ARRAYS = 64 * 1024  # bytes of a checkpoint's descriptions, and of what blocks are not filled


class Checkpoint(NamedTuple):
    """What is saved of a training.

    Attributes:
      state: the state after `epoch` epochs and `step` steps of the next. The order of examples and all random
        draws follow from the seed and the step, so they need no state of their own.
      epoch: whole epochs done.
      history: records of the evaluated epochs.
      seconds: time spent so far.
      step: steps done of the epoch under way.
      partial: metrics of these steps by name.
    """

    state: TrainState
    epoch: int
    history: list[dict[str, Any]]
    seconds: float
    step: int = 0
    partial: dict[str, list[float]] = {}  # noqa: RUF012  (never changed)


def _tell(message):
    print(message, file=sys.stderr, flush=True)


class Checkpointer:
    """Saves and restores the training of one model in a directory of its own."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep: int = 2,
        keep_best: bool = False,
        tell: Callable[[str], None] = _tell,
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
        options = ocp.CheckpointManagerOptions(
            create=False,
            enable_async_checkpointing=False,
            # Orbax would remove the one before as soon as a new one is written, which is not sealed then.
            preservation_policy=preservation_policy.PreserveAll(),
            # Metrics are written where there is one, and nowhere else.
            best_fn=(lambda metrics: metrics[_VALIDATION]) if keep_best else None,
            # One process writes, also where there are several: the others never open a checkpointer.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        with _storage(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._set_aside(tell)
            self._manager = _Manager(self._directory, options=options)

    def _set_aside(self, tell):
        """Removes what was not finished, moves what is damaged; so all that Orbax finds is whole."""
        for path in self._directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
        damaged, whole = [], []
        steps = _steps(self._directory)
        for step in steps:
            folder = self._directory / str(step)
            if not integrity.is_sealed(folder):
                if step == steps[-1]:  # others were being removed
                    tell(f"{folder} was not finished and is not used.")
                shutil.rmtree(folder)
            elif (reason := integrity.damage(folder)) is not None:
                damaged.append((step, reason))
            else:
                whole.append(step)
        if damaged and not whole:
            step, reason = damaged[-1]
            raise InputError(
                f"The checkpoint in {self._directory / str(step)} is damaged: {reason}.\n"
                f"No other is left: remove {self._directory} to train the model anew."
            )
        for step, reason in damaged:
            aside = self._directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self._directory / str(step)).rename(aside)
            used = self._directory / str(whole[-1])
            tell(f"The checkpoint in {aside} is damaged ({reason}) and is not used: {used} is.")

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint; an interrupted write leaves the one before it whole.

        Raises:
          StorageError: if there is no room for it, or the directory cannot be written.
        """
        state = jax.device_get(checkpoint.state)  # NumPy: needs no device layout to be read back
        number = int(state.step)
        if number in self._manager.all_steps():
            return
        record = checkpoint._asdict() | {"structure": structure_of(state)}
        del record["state"]
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(pack(state)), record=ocp.args.JsonSave(record)
        )
        with _storage(self._directory, f"The earlier one, of {self.newest()}, is whole."):
            try:
                _reserve(self._directory, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
                self._manager.save(number, args=arguments, metrics=_validation(checkpoint))
                integrity.seal(self._directory / str(number))
            except BaseException:
                for path in self._directory.glob(f"{number}*"):
                    shutil.rmtree(path, ignore_errors=True)
                raise
        self._prune()

    def _prune(self):
        """Removes what is not to be kept; at any moment of it all that is sealed is whole."""
        steps = sorted(self._manager.all_steps())
        kept = set(steps[-self._keep :])
        if self._keep_best:
            kept.add(max(steps, key=self._score))
        for step in set(steps) - kept:
            with contextlib.suppress(OSError):  # what is left of it is removed at the next start
                integrity.unseal(self._directory / str(step))
                self._manager.delete(step)

    def _score(self, step):
        return (self._manager.metrics(step) or {}).get(_VALIDATION, -1.0)

    def latest_epoch(self) -> int:
        """Whole epochs done in the newest checkpoint, 0 if there is none."""
        record = self._record()
        return 0 if record is None else record["epoch"]

    def newest(self) -> str:
        """The newest checkpoint in words."""
        try:
            record = self._record()
        except (ValueError, OSError):
            record = None
        if record is None:
            return "no epoch: nothing is saved yet"
        return f"epoch {record['epoch']}" + (f" and {record['step']} steps" if record["step"] else "")

    def restore(self, template: TrainState) -> Checkpoint | None:
        """The newest checkpoint, or None if there is none.

        Args:
          template: a state of the same structure and shapes.

        Raises:
          InputError: if the checkpoint does not fit the template or cannot be read.
        """
        structure = structure_of(template)
        try:
            record = self._record()
            if record is None:
                return None
            if record.pop("structure") != structure:
                raise InputError(
                    f"The checkpoint in {self._directory} is of another model or method.\n"
                    "Remove that directory to train the model anew."
                )
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(_abstract(structure)))
            restored = self._manager.restore(self._manager.latest_step(), args=arguments)
        except InputError:
            raise
        except (ValueError, KeyError, OSError) as error:
            raise InputError(
                f"The checkpoint in {self._directory} cannot be used: {str(error).splitlines()[0]}\n"
                "Remove that directory to train the model anew."
            ) from error
        leaves = unpack(restored["state"], structure)
        return Checkpoint(jax.tree.unflatten(jax.tree.structure(template), leaves), **record)

    def close(self) -> None:
        """Waits for writes and frees the directory."""
        self._manager.close()

    def _record(self):
        step = self._manager.latest_step()
        if step is None:
            return None
        return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]


def load_variables(directory: str | os.PathLike[str]) -> Variables:
    """The parameters of a trained model, from the newest whole checkpoint in a directory.

    They need nothing of the training but the network, as in `model.apply(variables, images, False)`, and
    images that are normalised as they were.

    Args:
      directory: a model's checkpoints, such as `RUN/checkpoints/target`. Nothing in it is changed.

    Returns:
      What `Model.apply` takes, NumPy arrays; of several networks with that level in between, see
      `dsink_jax.models.several`.

    Raises:
      InputError: if there is no whole checkpoint in it.
    """
    folder = pathlib.Path(directory).absolute()
    for step in reversed(_steps(folder)):
        checkpoint = folder / str(step)
        if integrity.is_sealed(checkpoint) and integrity.damage(checkpoint) is None:
            with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
                structure = reader.restore(checkpoint / "record")["structure"]
            with ocp.StandardCheckpointer() as arrays:
                packed = arrays.restore(checkpoint / "state", _abstract(structure))
            return nested(structure, unpack(packed, structure), ("params", "batch_stats"))
    remedy = "Give the folder of one model of a run, such as RUN/checkpoints/target."
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.\n{remedy}")
    if integrity.is_sealed(folder):
        raise InputError(f"{folder} is one checkpoint of a model.\n{remedy[:-1]}: here {folder.parent}.")
    raise InputError(f"There is no whole checkpoint in {folder}.\n{remedy}")


def _steps(folder):
    """The steps of the checkpoints in a folder, in order; none if there is no folder."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


class _Manager(ocp.CheckpointManager):
    """Leaves it to the training when to stop.

    Orbax would ask JAX too, at each save, with the number of the step. JAX stops all processes at one count
    of what they asked: one that saves would spoil its count, and wait for ever for those that stopped.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


@contextlib.contextmanager
def _storage(directory, what_is_left=""):
    """Turns what the disk refuses into a `StorageError`. Orbax's own reports of it are not shown."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise StorageError(
            f"A checkpoint cannot be written to {directory}: {_reason(error)}. {what_is_left}\n"
            "The same command goes on from there when there is room."
        ) from error
    finally:
        logger.setLevel(level)


def _reserve(directory, size):
    """Finds out that there is no room before Orbax does.

    A write of Orbax that fails leaves the writes of other arrays without an event loop to report to, and each
    of them says so in a traceback of its own.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, size + _BESIDE_ARRAYS)


def _reason(error):
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    known = ("No space left on device", "Disk quota exceeded", "Read-only file system", "File too large")
    return next((words for words in known if words in text), text.splitlines()[0][:200])


def _validation(checkpoint):
    """The validation accuracy as a metric for Orbax; of no use for choosing where it is not of this epoch."""
    last = checkpoint.history[-1] if checkpoint.history else {}
    current = last.get("epoch") == checkpoint.epoch and not checkpoint.step
    return {_VALIDATION: float(last.get("validation_accuracy", -1.0)) if current else -1.0}


def _abstract(structure):
    return {kind: np.empty(length, kind) for kind, length in totals(structure).items()}
