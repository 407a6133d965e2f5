"""The seeds that a command over several of them is given."""

from collections.abc import Sequence

from dsink_jax.errors import InputError


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises `InputError` without seeds, or for one out of range."""
    if not seeds:
        raise InputError("--seeds needs at least one seed.")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"--seeds must be in [0, 2^32), got {seed}.")
