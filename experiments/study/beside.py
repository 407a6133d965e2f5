"""Each model of a study beside the models it is to improve on: D-SINK beside its auxiliaries, or its base."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from dsink_jax.report import align
from experiments.study.catalogue import Study
from experiments.study.paired import Difference, ahead, by_seed, spread
from experiments.study.predictions import Predictions


class Beside(NamedTuple):
    """One model beside others, in one setting, over the seeds that all of them have.

    Attributes:
      model: its name.
      others: names of the models it is held against.
      accuracies: a line for each seed, a column for the model and each of the others.
      best: the accuracy of the best of the others, by seed.
      ahead: how far it is ahead of that, seed by seed, in points.
    """

    model: str
    others: tuple[str, ...]
    accuracies: pd.DataFrame
    best: pd.Series
    ahead: Difference


# What the best of so many models is called.
_OF_THEM = {1: "it", 2: "the better of the two", 3: "the best of the three"}


def beside(study: Study, rows: pd.DataFrame, kept: Predictions | None = None) -> list[Beside]:
    """The models of one setting that have been run, with what they are held against.

    Args:
      study: which.
      rows: of the setting.
      kept: its predictions, for intervals over test images too.
    """
    known, found = by_seed(rows), []
    for model, others in study.beside.items():
        here = known.reindex(columns=[model, *others]).dropna()
        if len(here):
            best = here[list(others)].max(axis=1)
            found.append(Beside(model, others, here, best, ahead(here, model, others, kept)))
    return found


def verdict(pairs: Sequence[Beside]) -> str:
    """How often and by how much the models are ahead of what they are held against, and where not."""
    better = _OF_THEM[len(pairs[0].others)]
    means = [pair.ahead.mean for pair in pairs]
    behind = [f"`{pair.model}` ({pair.ahead.mean:+.1f})" for pair in pairs if not pair.ahead.mean > 0]
    runs = sum(pair.ahead.ahead for pair in pairs), sum(pair.ahead.seeds for pair in pairs)
    return (
        f"ahead of {better} in {len(pairs) - len(behind)} of {len(pairs)} cases on average over seeds and in "
        f"{runs[0]} of {runs[1]} single runs, by {statistics.mean(means):.1f} points on average over the "
        f"cases ({min(means):+.1f} to {max(means):+.1f}); not ahead: {', '.join(behind) or 'nowhere'}"
    )


def table(pairs: Sequence[Beside]) -> str:
    """A line for each model."""
    count = len(pairs[0].others)
    heads = ("beside", "accuracy", *("and", "accuracy") * (count - 1))
    last = "ahead by" if count == 1 else f"ahead of {_OF_THEM[count]} by"
    lines = [("model", "accuracy", *heads, last)]
    for pair in pairs:
        cells = (cell for name, shares in pair.accuracies.items() for cell in (name, spread(shares)))
        lines.append((*cells, str(pair.ahead)))
    return align(lines, left=1)
