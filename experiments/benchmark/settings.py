"""What can be chosen."""

import dataclasses
import pathlib

PARTS = ("solver", "step", "pipeline", "startup", "cifar10")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags.

    Attributes:
      parts: what to measure.
      quick: tiny sizes, to see that it runs; the numbers mean nothing.
      output: folder of the results.
      data_dir: folder with the real CIFAR-10, for the part `cifar10`; None to leave it out.
    """

    parts: tuple[str, ...] = PARTS
    quick: bool = False
    output: pathlib.Path = pathlib.Path("results/benchmark")
    data_dir: pathlib.Path | None = None
