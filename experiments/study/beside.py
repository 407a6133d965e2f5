"""Each model of a study beside the models it is to improve on: D-SINK beside its auxiliaries, or its base."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from dsink_jax.report import align
from experiments.study.catalogue import Study
from experiments.study.paired import Difference, by_seed, paired, spread
from experiments.study.records import Row


class Beside(NamedTuple):
    """One model beside others, in one setting, over the seeds that all of them have.

    Attributes:
      model: its name.
      others: names of the models it is held against.
      accuracies: its own, by seed.
      parts: theirs.
      ahead: of the best of them, seed by seed, in points.
    """

    model: str
    others: tuple[str, ...]
    accuracies: list[float]
    parts: list[list[float]]
    ahead: Difference

    @property
    def best(self) -> list[float]:
        """The accuracy of the best of the others, by seed."""
        return [max(values) for values in zip(*self.parts, strict=True)]


# What the best of so many models is called.
_OF_THEM = {1: "it", 2: "the better of the two", 3: "the best of the three"}


def beside(study: Study, rows: Sequence[Row]) -> list[Beside]:
    """The models of one setting that have been run, with what they are held against."""
    found = []
    for model, others in study.beside.items():
        own, *parts = (by_seed(rows, name) for name in (model, *others))
        seeds = [seed for seed in own if all(seed in part for part in parts)]
        if seeds:
            accuracies = [own[seed] for seed in seeds]
            theirs = [[part[seed] for seed in seeds] for part in parts]
            best = [max(values) for values in zip(*theirs, strict=True)]
            found.append(Beside(model, others, accuracies, theirs, paired(accuracies, best)))
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
        theirs = zip(pair.others, map(spread, pair.parts), strict=True)
        cells = (cell for named in theirs for cell in named)
        lines.append((pair.model, spread(pair.accuracies), *cells, str(pair.ahead)))
    return align(lines, left=1)
