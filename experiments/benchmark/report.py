"""The page of the results."""

import os
import time
from collections.abc import Sequence

import jax

from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, as_text, write_csv
from experiments.provenance import device_description, versions_in_words

_LEGEND = (
    "`measured` and `other` are medians over rounds in which every contestant of a case has a turn, in an "
    "order drawn anew, warm-ups left out; `ratio` is the median of the ratio within a round, `target` its "
    "limit (or that of the number itself where there is no other). Times: smaller is better; images a "
    "second: larger is. How far two equal steps are apart tells the noise. `solver`: from "
    "logits of standard deviation 5 to the labels Q, all in float32; ours stops where it first looks at the "
    "error of the class marginal (L1) and finds it below the one given, the loops are told to make as many "
    "iterations as they need for that (more, where ours over-relaxes, from the 30th on), and POT as many as "
    "it takes to the first of its own looks; `errors` are what ours and the other ended with, measured in "
    "float64. PyTorch has one thread or one a core, whichever is faster for "
    "the case."
)


def write(settings: Settings, rows: Sequence[Row], remarks: Sequence[str], start: dict) -> str:
    """Writes benchmark.md and benchmark.csv; returns the page.

    Args:
      settings: what was measured.
      rows: the table.
      remarks: sentences below it.
      start: `load`, the load average at the start, and `seconds`, how long all took.
    """
    judged = [row for row in rows if row.target]
    missed = [row for row in judged if row.verdict == "NO"]
    summary = f"{len(judged) - len(missed)} of {len(judged)} targets are met."
    if missed:
        summary += " Not met: " + "; ".join(_miss(row) for row in missed) + "."
    paragraphs = [
        "# Speed",
        *(["**Quick run on tiny sizes: the numbers mean nothing.**"] if settings.quick else []),
        _LEGEND,
        _machine(start),
        summary,
        f"```\n{as_text(rows)}\n```",
        *(["\n".join(f"- {remark}" for remark in remarks)] if remarks else []),
        _provenance(settings, start),
    ]
    text = "\n\n".join(paragraphs) + "\n"
    (settings.output / "benchmark.md").write_text(text, encoding="utf-8")
    write_csv(settings.output / "benchmark.csv", rows)
    return text


def load() -> float:
    """Processes that wanted to run in the last minute, on average; NaN where that is not told."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def _miss(row):
    against = f" against {row.against}" if row.against else ""
    found = row.value if row.ratio is None else row.ratio
    return f"{row.part}, {row.case}{against} ({found:.3g}, target {row.target})"


def _machine(start):
    text = (
        f"{device_description(jax.local_devices())}, as many threads for XLA; OpenMP's threads wait asleep "
        f"(OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'not set')}). "
        f"Load average at the start {start['load']:.1f}"
    )
    if start["load"] > 1:
        text += ": **the machine was shared**, so times are longer and ratios noisier than they should be"
    return text + "."


def _provenance(settings, start):
    flags = (" --parts " + settings.parts) + (" --quick" if settings.quick else "")
    flags += " --data-dir DIR" if settings.data_dir is not None else ""
    return (
        f"`python -m experiments.benchmark{flags}` in {start['seconds'] / 60:.0f} minutes; "
        f"{versions_in_words('torch', 'POT')}; {time.strftime('%Y-%m-%d')}."
    )
