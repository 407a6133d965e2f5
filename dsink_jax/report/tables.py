"""Tables of results in plain text."""

from collections.abc import Sequence
from typing import Any

_COLUMNS = ("last", "mean 10", "best", "many", "medium", "few", "corrected", "seconds")


def results_table(results: dict[str, Any]) -> str:
    """The models of one run side by side, in percent.

    Args:
      results: the content of results.json.

    Returns:
      Lines of text: accuracy of the last epoch, mean of the last ten evaluations and best on the balanced
      test set; accuracy on the many-, medium- and few-shot thirds of the classes; share of wrong training
      labels whose true class is predicted; seconds of training.
    """
    rows: list[tuple[str, ...]] = [("model", "method", *_COLUMNS)]
    for name, entry in results["models"].items():
        rows.append((name, entry["method"], *percentages(entry), f"{entry['seconds']:.0f}"))
    return align(rows, left=2)


def percentages(entry: dict[str, Any]) -> list[str]:
    """The shares of one model in percent: last, mean of last 10, best, many, medium, few, corrected."""
    accuracy = entry["accuracy"]
    shares = [accuracy["last"], accuracy["mean_last_10"], accuracy["best"]]
    shares += [entry["many"], entry["medium"], entry["few"], entry["noisy_corrected"]]
    return [percent(share) for share in shares]


def percent(share: float | None) -> str:
    """A share in percent with one decimal, or `-` if it is not known."""
    return "-" if share is None or share != share else f"{100 * share:.1f}"


def align(rows: Sequence[Sequence[str]], left: int) -> str:
    """Rows as text in columns, the first `left` columns flush left; a line under the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
