"""What can be chosen."""

import dataclasses
import pathlib

PARTS = ("solver", "step", "pipeline", "startup")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags.

    Attributes:
      parts: what to measure.
      quick: tiny sizes, to see that it runs; the numbers mean nothing.
      output: folder of the results.
    """

    parts: tuple[str, ...] = PARTS
    quick: bool = False
    output: pathlib.Path = pathlib.Path("results/benchmark")
