"""One table for all that is measured: our number, what it is held against, whether the target is met."""

import dataclasses
import operator
import pathlib
from collections.abc import Sequence
from statistics import median

import pandas as pd

from dsink_jax.report import align
from experiments.benchmark.timing import ratio

_COMPARE = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}
_HEADER = ("part", "case", "measured", "against", "other", "ratio", "target", "met", "note")


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison, or one number alone.

    Attributes:
      part: part of the benchmark.
      case: what was measured, on what.
      value: the measured number, a median.
      unit: its unit.
      against: what it is held against, empty for a number alone.
      other: that one's number.
      ratio: median over the rounds of the ratio within a round.
      target: limit of the ratio, or of the value of a number alone, such as `<= 1.05`; empty for none.
      note: anything else.
    """

    part: str
    case: str
    value: float
    unit: str
    against: str = ""
    other: float | None = None
    ratio: float | None = None
    target: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met, which NaN does not: `yes`, `NO`, or empty without one."""
        if not self.target:
            return ""
        comparison, limit = self.target.split()
        number = self.value if self.ratio is None else self.ratio
        return "yes" if _COMPARE[comparison](number, float(limit)) else "NO"


def as_text(rows: Sequence[Row]) -> str:
    """Aligned columns."""
    lines = [_HEADER]
    for row in rows:
        other = "" if row.other is None else number(row.other, row.unit)
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        own = number(row.value, row.unit)
        lines.append((row.part, row.case, own, row.against, other, ratio, row.target, row.verdict, row.note))
    return align(lines, left=2)


def number(value: float, unit: str) -> str:
    """Three digits with the unit."""
    digits = f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def write_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """All digits, one line a row."""
    made = pd.DataFrame([{**vars(row), "met": row.verdict} for row in rows], dtype=object)
    made.to_csv(path, index=False, lineterminator="\r\n")


def comparison(part, case, times, name, against, target="", note="", unit="ms") -> Row:
    """The row of one contestant against another, from the seconds of `timing.alternate` by name."""
    scale = {"ms": 1e3, "s": 1.0}[unit]
    own, other = scale * median(times[name]), scale * median(times[against])
    return Row(part, case, own, unit, against, other, ratio(times[name], times[against]), target, note)
