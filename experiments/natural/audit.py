"""Wrong labels found on natural sets: `python -m experiments.study natural-audit --data-dir DIR`.

The audit beside cleanlab, which gets the audit's own predictions of f_N, and those of logistic regression,
plain and balanced, with its C chosen by given labels. All are made by models that have not seen the example,
five folds. The same command goes on where it stopped.
"""

import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from dsink_jax import audit
from dsink_jax.evaluation import class_groups
from dsink_jax.flags import read_flags
from dsink_jax.report import align
from experiments.cells import Table
from experiments.command_line import errors_for_people
from experiments.compiled import keep_compiled
from experiments.environments import COLUMN, environments_in_words
from experiments.kept_rows import read_measured
from experiments.natural.command import SetFlags, grow_sets
from experiments.natural.data import NaturalSet
from experiments.natural.rivals import LOGISTIC, out_of_fold
from experiments.study.paired import paired, spread

SETS = ("claude9", "chemprot", "cifar10n-features", "fer-features")
AUDIT = "audit"
RANKINGS = ("self_confidence", "normalized_margin")
FIELDS = (
    *("setting", "seed", "method", "examples", "wrong", "rare", "rare_wrong"),
    *("precision", "precision_rare", "seconds", COLUMN),
)
_FOLDS = 5
_AT_MOST = 20_000  # examples of a set, drawn by a fixed seed
_DRAW = 0
_UNEVEN = 2  # times as many in the largest class as in the smallest
_ROWS = 1 + len(RANKINGS) * (1 + len(LOGISTIC))


@dataclasses.dataclass(frozen=True)
class Flags(SetFlags):
    """Compares the audit with cleanlab on natural sets."""

    steps: Literal["all", "render"] = "all"
    """render: only write the table, from natural-audit.csv."""
    output: pathlib.Path = pathlib.Path("results/natural-audit")
    """Where natural-audit.csv and natural-audit.md go."""


def compare(natural: NaturalSet, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of all ways to rank the labels of a set of features."""
    from cleanlab.rank import get_label_quality_scores

    given, num_classes = natural.given, natural.num_classes
    started = time.monotonic()
    logits = audit.out_of_sample_logits(
        natural.inputs, given, num_classes=num_classes, folds=_FOLDS, seed=seed
    )
    trained = time.monotonic() - started
    found = audit.find_label_errors(given, logits.noise_robust, logits.imbalance_robust, logits.others)
    taken = time.monotonic() - started
    yield {"method": AUDIT, **measures(natural, found.wrong_probability), "seconds": taken}
    ways = {"f_N": lambda: softmax(logits.noise_robust.astype(float), axis=1)}
    for name, class_weight in LOGISTIC.items():
        how = {"class_weight": class_weight, "seed": seed}
        ways[name] = functools.partial(out_of_fold, natural.inputs, given, num_classes, **how)
    for name, predict in ways.items():
        started = time.monotonic() - (trained if name == "f_N" else 0.0)
        probabilities = predict()
        taken = time.monotonic() - started
        for ranking in RANKINGS:
            score = 1 - get_label_quality_scores(given, probabilities, method=ranking)
            method = f"cleanlab on {name}, {ranking}"
            yield {"method": method, **measures(natural, score), "seconds": taken}


def measures(natural: NaturalSet, score: np.ndarray) -> dict[str, float]:
    """Average precision of a score `[M]` of wrong labels: of all, and where the true class is rare.

    Rare is the third of the classes with the fewest examples, none where all are of about one size.
    """
    wrong = natural.given != natural.gold
    counts = np.bincount(natural.gold, minlength=natural.num_classes)
    few = class_groups(counts).few if counts.max() >= _UNEVEN * counts.min() else []
    rare = np.isin(natural.gold, few)
    row = {"examples": len(wrong), "wrong": wrong.mean(), "rare": int(rare.sum())}
    row["precision"] = average_precision_score(wrong, score)
    if rare.any():
        row["rare_wrong"] = wrong[rare].mean()
        row["precision_rare"] = average_precision_score(wrong[rare], score[rare])
    return row


def write_table(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes natural-audit.md."""
    shown = {"precision": "average precision", "precision_rare": "among rare classes"}
    lines = [
        "# Wrong labels found where nobody made them wrong",
        "",
        "How well labels that differ from better ones are ranked: average precision in percent, mean ± "
        "standard deviation over seeds, and the same among the examples whose true class is one of the "
        "rarest third. cleanlab ranks by predictions of the audit's own f_N, or of logistic regression whose "
        "C was chosen by given labels. All predictions are of models that have not seen the example, five "
        "folds. `audit ahead by`: mean of the differences in points, and in how many seeds.",
        "",
        f"By `python -m experiments.study natural-audit` on {environments_in_words(folder, rows[COLUMN])}.",
    ]
    for name, here in rows.groupby("setting", sort=False):
        table = [("method", *(cell for title in shown.values() for cell in (title, "audit ahead by")), "s")]
        for method, mine in here.groupby("method", sort=False):
            cells = [cell for field in shown for cell in (spread(mine[field]), _ahead(here, method, field))]
            table.append((method, *cells, f"{mine['seconds'].mean():.0f}"))
        lines += ["", f"## {name}", "", _describe(here), "", "```", align(table, left=1), "```"]
    (folder / "natural-audit.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _ahead(rows, method, field):
    if method == AUDIT:
        return ""
    known = rows.pivot(index="seed", columns="method", values=field)
    return str(paired(known[AUDIT], known[method])._replace(half_width=None))


def _describe(rows):
    first = rows.iloc[0]
    rare = ""
    if first["rare"]:
        rare = f"; {first['rare']:,} are of rare classes, {100 * first['rare_wrong']:.0f} % of these wrong"
    return (
        f"{first['examples']:,} examples, {100 * first['wrong']:.0f} % wrong{rare}; "
        f"seeds {sorted(set(rows['seed']))}."
    )


def some_of(natural: NaturalSet) -> NaturalSet:
    """The set, or 20,000 of its training examples, always the same."""
    count = len(natural.given)
    if count <= _AT_MOST:
        return natural
    return natural.rows(np.sort(np.random.default_rng(_DRAW).permutation(count)[:_AT_MOST]))


def render(folder: pathlib.Path) -> None:
    """Writes natural-audit.md from natural-audit.csv.

    Raises:
      InputError: if it is not there, or is of something else.
    """
    write_table(folder, read_measured(folder / "natural-audit.csv", FIELDS))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison from the command line.

    Args:
      arguments: the flags; those of this process if left out.
    """
    with errors_for_people(), tempfile.TemporaryDirectory() as directory:
        flags = read_flags(Flags, arguments, description=__doc__)
        if flags.steps == "render":
            render(flags.output)
            return
        keep_compiled(directory)
        kept = Table(
            *("natural-audit", FIELDS, lambda name: _ROWS, "%.6g"),
            *(("scikit-learn", "cleanlab"), write_table),
        )
        grow_sets(kept, flags, SETS, compare, some_of)


if __name__ == "__main__":
    main()
