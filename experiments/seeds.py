"""What the studies over several seeds share: the settings of one seed, and the run of all."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from dsink_jax.errors import InputError
from experiments.config import Config
from experiments.summary import Results, make_folder


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


def run_seeds(seeds: Sequence[int], output: pathlib.Path, run_seed: Callable[[int], dict]) -> Results:
    """The results of each seed, and a folder for them.

    Raises:
      InputError: without seeds, or if the folder cannot be made.
    """
    if not seeds:
        raise InputError("--seeds needs at least one seed.")
    make_folder(output)
    return {seed: run_seed(seed) for seed in seeds}
