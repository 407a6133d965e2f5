"""What can be chosen."""

import dataclasses
import pathlib

from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import check_local_flags

PARTS = ("solver", "step", "pipeline", "startup", "cifar10")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures speed and memory, side by side with PyTorch and POT."""

    parts: str = ",".join(PARTS)
    """What to measure, separated by commas."""
    quick: bool = False
    """Tiny sizes, to see that it runs; the numbers mean nothing."""
    output: pathlib.Path = pathlib.Path("results/benchmark")
    """Folder of the results."""
    data_dir: pathlib.Path | None = None
    """Folder with the real CIFAR-10, for the part cifar10, which is left out without it."""

    def __post_init__(self):
        for part in self.parts.split(","):
            check_known("part", part, PARTS)
        check_local_flags(self)
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise InputError(f"--data-dir {self.data_dir} is no folder; give the one that holds CIFAR-10.")

    @property
    def chosen(self) -> list[str]:
        """The parts in the order in which they are measured."""
        return [part for part in PARTS if part in self.parts.split(",")]
