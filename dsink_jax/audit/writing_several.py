"""What an audit of several labels an example found, as text, as a table for programs, and as a page."""

import csv
import io

from dsink_jax.audit.labelled import Labelled
from dsink_jax.audit.several_labels import MultilabelErrors
from dsink_jax.audit.writing import html_table
from dsink_jax.report import align, percent
from dsink_jax.report.document import document

COLUMNS_OF_SEVERAL = ("rank", "example", "label", "given", "proposed", "wrong_probability", "wrong")
_BY_LABEL = ("label", "given", "missing", "spurious", "est. true")
_HEAD = ("example", "label", "which is", "wrong with probability")


def table_of_several(data: Labelled, found: MultilabelErrors) -> str:
    """Labels as CSV: all that are given and all that are probably missing, the most probably wrong first.

    Args:
      data: the examples.
      found: what was found of their labels.

    Returns:
      Lines with `COLUMNS_OF_SEVERAL`: the names of example and label; whether it is given, and whether it
      should be (`yes` or `no`); the probability that what is given is wrong, and whether it probably is.
    """
    told = found.given | found.is_missing
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS_OF_SEVERAL)
    pairs = found.ranking
    for rank, (i, c) in enumerate(pairs[told[pairs[:, 0], pairs[:, 1]]], start=1):
        given, wrong = bool(found.given[i, c]), bool(found.wrong_probability[i, c] > 0.5)
        words = (_word(given), _word(given != wrong), f"{found.wrong_probability[i, c]:.4f}", _word(wrong))
        rows.writerow([rank, data.names[i], data.class_names[c], *words])
    return text.getvalue()


def summary_of_several(data: Labelled, found: MultilabelErrors, shown: int = 10) -> str:
    """What was found in a few lines: overall, label by label, and the most probably wrong ones."""
    lines = [*_overall(data, found), "", align([_BY_LABEL, *_by_label(data, found)], left=1)]
    if len(worst := _worst(data, found, shown)):
        lines += ["", align([_HEAD, *worst], left=3)]
    return "\n".join(lines)


def page_of_several(data: Labelled, found: MultilabelErrors, title: str, shown: int = 200) -> str:
    """A self-contained HTML page: overall, label by label, and the most probably wrong ones.

    Args:
      data: the examples.
      found: what was found of their labels.
      title: of the page.
      shown: how many of the labels that are most probably wrong.
    """
    worst = _worst(data, found, shown)
    return document(
        title,
        [
            *(f"<p>{line}</p>" for line in _overall(data, found)),
            "<h2>Label by label</h2>",
            html_table(_BY_LABEL, _by_label(data, found)),
            f"<h2>The {len(worst)} that are most probably wrong</h2>",
            html_table(_HEAD, worst),
        ],
    )


def _overall(data, found):
    missing, spurious = int(found.is_missing.sum()), int(found.is_spurious.sum())
    given = int(found.given.sum())
    return [
        f"{len(data.labels):,} examples with {given:,} labels: {spurious:,} of these are probably wrong "
        f"({percent(spurious / max(given, 1))} %), and {missing:,} more are probably missing."
    ]


def _by_label(data, found):
    columns = (found.given.sum(0), found.is_missing.sum(0), found.is_spurious.sum(0))
    numbers = zip(data.class_names, *columns, found.probabilities.sum(0), strict=True)
    return [(name, *(f"{number:,}" for number in each), f"{true:,.0f}") for name, *each, true in numbers]


def _worst(data, found, shown):
    """Example, label, whether it is missing or spurious, and probability, as text."""
    wrong = int((found.wrong_probability > 0.5).sum())
    return [
        (
            data.names[i],
            data.class_names[c],
            "spurious" if found.given[i, c] else "missing",
            f"{found.wrong_probability[i, c]:.3f}",
        )
        for i, c in found.ranking[: min(shown, wrong)]
    ]


def _word(value):
    return "yes" if value else "no"
