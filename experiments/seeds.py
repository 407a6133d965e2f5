"""What the studies over several seeds share: the settings of one seed, and the run of all."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dsink_jax.errors import InputError, StorageError
from experiments.config import Config
from experiments.summary import Results


def seed_config(preset: Config, runs_dir: pathlib.Path, seed: int, **changes: Any) -> Config:
    """The preset with `changes` as one seed's run, which decides the corrupted set and the training."""
    return dataclasses.replace(
        preset,
        seed=seed,
        data_seed=seed,
        run_dir=runs_dir / f"seed-{seed}",
        evaluate_every=max(preset.epochs // 25, 1),
        **changes,
    )


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises `InputError` without seeds, or for one out of range."""
    if not seeds:
        raise InputError("--seeds needs at least one seed.")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"--seeds must be in [0, 2^32), got {seed}.")


def make_output(folder: pathlib.Path) -> None:
    """Makes the folder of a study's tables.

    Raises:
      InputError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder} cannot be made: {reason}. Give another --output.") from None


@contextlib.contextmanager
def writing_output(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the disk refuses into one line, after the hours of training that are saved already."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder} cannot be written: {error.strerror}.\n"
            "The runs are saved: the same command, or another --output, writes the tables."
        ) from error


def run_seeds(seeds: Sequence[int], output: pathlib.Path, run_seed: Callable[[int], dict]) -> Results:
    """The results of each seed, and a folder for them.

    Raises:
      InputError: without seeds, for a seed out of range, or if the folder cannot be made: before hours of
        training end there.
    """
    check_seeds(seeds)
    make_output(output)
    return {seed: run_seed(seed) for seed in seeds}
