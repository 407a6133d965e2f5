"""Wrong labels found by the audit and by cleanlab, on known corruption: `python -m experiments.label_audit`.

Digits by their 64 pixels, synthetic noise; and, with --data-dir, real CIFAR-10 with the labels that people
gave it (CIFAR-10N, worse) by features learned without labels (`patch_features`). Both are judged by
predictions of linear models for examples that these have not seen, five folds. cleanlab gets the same
predictions of f_N, and those of scikit-learn's logistic regression, plain and with balanced class weights.
Needs cleanlab (`pip install ".[experiments]"`). The same command goes on where it stopped.
"""

import dataclasses
import importlib.util
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from dsink_jax import audit
from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from dsink_jax.report import align
from experiments.command_line import errors_for_people
from experiments.embedded import Task, fit_logistic_regression, make_task
from experiments.embedded_comparison import CellFlags, Comparison, describe, run_cells
from experiments.environments import COLUMN, environments_in_words
from experiments.natural.rivals import LOGISTIC
from experiments.study.budgets import setting
from experiments.study.catalogue import STUDIES
from experiments.study.paired import paired, spread

FOLDS = 5
_WAYS = 7  # rows of a cell: the audit, and cleanlab with three kinds of predictions and two rankings
FIELDS = (
    *("setting", "seed", "method", "examples", "wrong"),
    *("auroc", "auroc_tail", "auprc", "auprc_tail", "precision", "precision_tail"),
    *("recall", "recall_tail", "f1", "f1_tail", "proposed", "proposed_tail", "seconds"),
    COLUMN,
)
_DIGITS = STUDIES["main"].settings["small"]
_CIFAR = tuple(setting("cifar10", ratio, "human_worse") for ratio in (10, 1))


@dataclasses.dataclass(frozen=True)
class Flags(CellFlags):
    """Compares the audit with cleanlab."""

    output: pathlib.Path = pathlib.Path("results/audit")
    """Where audit.csv and audit.md go."""

    def __post_init__(self):
        super().__post_init__()
        if importlib.util.find_spec("cleanlab") is None:
            raise InputError('cleanlab is not installed: pip install ".[experiments]".')


def compare(task: Task, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the two ways to judge the labels."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    num_classes = int(task.true.max()) + 1
    started = time.monotonic()
    logits = audit.out_of_sample_logits(
        task.features, task.given, num_classes=num_classes, folds=FOLDS, seed=seed
    )
    trained = time.monotonic() - started
    found = audit.find_label_errors(task.given, logits.noise_robust, logits.imbalance_robust, logits.others)
    scores = found.wrong_probability, found.is_wrong, found.proposed
    yield {"method": "audit", **measures(task, *scores), "seconds": time.monotonic() - started}
    predictions = {"f_N": (softmax(logits.noise_robust.astype(float), axis=1), trained)}
    for name, class_weight in LOGISTIC.items():
        started = time.monotonic()
        probabilities = _logistic_regression(task, num_classes, seed, class_weight)
        predictions[name] = probabilities, time.monotonic() - started
    for name, (probabilities, seconds) in predictions.items():
        started = time.monotonic()
        wrong = find_label_issues(task.given, probabilities, n_jobs=1)
        for ranking in ("self_confidence", "normalized_margin"):
            score = 1 - get_label_quality_scores(task.given, probabilities, method=ranking)
            yield {
                "method": f"cleanlab on {name}, {ranking}",
                **measures(task, score, wrong, probabilities.argmax(1)),
                "seconds": seconds + time.monotonic() - started,
            }


def _logistic_regression(task, num_classes, seed, class_weight):
    """Its predictions for examples that it has not seen `[M, C]`, in the folds of the audit."""
    fold = audit.make_folds(task.given, FOLDS, seed)
    probabilities = np.zeros((len(fold), num_classes))
    for number in range(FOLDS):
        held_out = fold == number
        model = fit_logistic_regression(task.features[~held_out], task.given[~held_out], class_weight)
        probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(task.features[held_out])
    return probabilities


def measures(task: Task, score: np.ndarray, flagged: np.ndarray, proposed: np.ndarray) -> dict[str, float]:
    """How well wrong labels are ranked, flagged and replaced: overall, and among the rare classes."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    wrong = task.given != task.true
    row = {"examples": len(wrong), "wrong": wrong.mean()}
    for suffix, part in (("", np.ones(len(wrong), bool)), ("_tail", task.tail)):
        if not part.any():
            continue
        precision, recall, f1, _ = precision_recall_fscore_support(
            wrong[part], flagged[part], average="binary", zero_division=0.0
        )
        row |= {
            f"auroc{suffix}": roc_auc_score(wrong[part], score[part]),
            f"auprc{suffix}": average_precision_score(wrong[part], score[part]),
            f"precision{suffix}": precision,
            f"recall{suffix}": recall,
            f"f1{suffix}": f1,
            f"proposed{suffix}": np.mean(proposed[part] == task.true[part]),
        }
    return row


def write_table(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes audit.md: mean and standard deviation over seeds, and how often the audit is ahead."""
    shown = FIELDS[FIELDS.index("auroc") : FIELDS.index("seconds")]
    lines = [
        "# Wrong labels found",
        "",
        "The audit (`python -m dsink_jax.audit`) and cleanlab on the same corrupted sets, in percent, mean ± "
        "standard deviation over seeds: how well wrong labels are ranked (area under the ROC and the "
        "precision-recall curve), flagged (precision, recall, F1) and replaced (share of the examples whose "
        "proposed label is true); `tail`: among the examples that are of, or are given, one of the rarest "
        "third of the classes. All are judged from linear models that have not seen the example, five folds; "
        "cleanlab on f_N has the audit's own predictions. The audit's rule was chosen on digits of seeds 100 "
        "and 101, and on natural sets.",
        "",
        f"By `python -m experiments.label_audit` on {environments_in_words(folder, rows[COLUMN])}.",
    ]
    heads = [field.replace("_", " ") for field in shown]
    for name, here in rows.groupby("setting", sort=False):
        table = [("method", *heads, "s")]
        for method, mine in here.groupby("method", sort=False):
            table.append((method, *(spread(mine[field]) for field in shown), f"{mine['seconds'].mean():.0f}"))
        lines += ["", f"## {name}", "", describe(here), "", "```", align(table, left=1), "```"]
    lines += [
        *("", "## Where the audit is ahead of the best of cleanlab, seed by seed", ""),
        "Points, mean with its 95 % interval over seeds (Student's t; of several sets together: of the mean "
        "in each seed), and in how many sets. There are no test images: what is judged are the examples of a "
        "set, which are drawn anew for each seed.",
        "",
    ]
    table = [("setting", *heads)]
    for of in (rows["setting"], "all of " + rows["setting"].str.partition("-")[0]):
        for name, here in rows.groupby(of, sort=False):
            table.append((name, *(_ahead(here, field) for field in shown)))
    lines += ["```", align(table, left=1), "```", ""]
    (folder / "audit.md").write_text("\n".join(lines), encoding="utf-8")


def _ahead(rows, field):
    """By how many points on average, with an interval over seeds, and in how many corrupted sets."""
    known = rows.pivot(index=["setting", "seed"], columns="method", values=field)
    pairs = pd.DataFrame({"audit": known["audit"], "best": known.drop(columns="audit").max(axis=1)}).dropna()
    of_seed = pairs.groupby("seed").mean()
    over_seeds = paired(of_seed["audit"], of_seed["best"])
    return str(paired(pairs["audit"], pairs["best"])._replace(half_width=over_seeds.half_width))


def main() -> None:
    """Runs the comparison from the command line."""
    with errors_for_people():
        flags = read_flags(Flags, description=__doc__)
        comparison = Comparison(
            "audit",
            *(FIELDS, _DIGITS, _CIFAR, _WAYS),
            lambda setting, seed: compare(make_task(setting, seed, flags.data_dir), seed),
            None,
            ("scikit-learn", "cleanlab"),
            write_table,
        )
        run_cells(comparison, flags, flags.output)


if __name__ == "__main__":
    main()
