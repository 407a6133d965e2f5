"""D-SINK on embeddings beside its parts and logistic regression: `python -m experiments.embeddings`.

Heads over fixed vectors, trained by `dsink_jax.fit` with its defaults: digits by their 64 pixels and, with
--data-dir, real CIFAR-10 by features learned without labels (`patch_features`). The same command goes on
where it stopped.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from dsink_jax import fit
from dsink_jax.flags import read_flags
from dsink_jax.report import align
from experiments.command_line import errors_for_people
from experiments.compiled import keep_compiled
from experiments.embedded import Task, make_task
from experiments.embedded_comparison import KEPT, CellFlags, Comparison, describe, run_cells
from experiments.environments import COLUMN, environments_in_words
from experiments.natural.models import AS_PUBLISHED, DSINK, PUBLISHED
from experiments.natural.rivals import LOGISTIC, logistic_regression
from experiments.study.catalogue import CIFAR_ON_CPU, STUDIES
from experiments.study.paired import ahead, spread
from experiments.study.predictions import FEW, GOLD, IMAGES, Predictions

NAME = "embeddings"
HEADS = ("linear",)
_ROLES = {"f_L": "imbalance_robust", "f_N": "noise_robust", DSINK: "target"}
# The same where nothing is chosen by labels held out: f_N by ELR, one weight decay for all.
_PUBLISHED_ROLES = {
    "f_L, weight decay 5e-4": "imbalance_robust",
    "ELR": "noise_robust",
    "ELR, adjusted": "noise_robust_adjusted",
    AS_PUBLISHED: "target",
}
FIELDS = (
    *("setting", "seed", "head", "model", "examples", "wrong"),
    *("accuracy", "few", "shares_off", COLUMN),
)
_DIGITS = STUDIES["main"].settings["small"]
_CIFAR = CIFAR_ON_CPU


@dataclasses.dataclass(frozen=True)
class Flags(CellFlags):
    """Trains heads over fixed vectors and compares them."""

    output: pathlib.Path = pathlib.Path("results/embeddings")
    """Where embeddings.csv and embeddings.md go."""


def compare(task: Task, seed: int) -> Iterator[dict[str, object]]:
    """Rows of all heads and models of one corrupted set."""
    num_classes = int(task.true.max()) + 1
    shares = np.bincount(task.true, minlength=num_classes) / len(task.true)
    facts = {"examples": len(task.true), "wrong": np.mean(task.given != task.true)}
    small = np.uint8 if num_classes <= 2**8 else np.uint16

    def told(head, name, predicted):
        right = predicted == task.test_labels
        few = right[np.isin(task.test_labels, task.rare)].mean()
        kept = {_named(head, name): predicted.astype(small)}
        row = {"head": head, "model": name, "accuracy": right.mean(), "few": few, KEPT: kept}
        return {**facts, **row}

    gold = {GOLD: task.test_labels.astype(small), IMAGES: np.arange(len(task.test_labels), dtype=np.uint32)}
    first = {**gold, FEW: task.rare.astype(small)}
    for name, weights in LOGISTIC.items():
        data = task.features, task.given, task.test_features, num_classes
        model = logistic_regression(*data, class_weight=weights, seed=seed)
        row = told("", name, model.probabilities.argmax(1))
        yield {**row, KEPT: {**first, **row[KEPT]}}
    for head in HEADS:
        common = {"num_classes": num_classes, "model": head, "seed": seed}
        fitted = fit(task.features, task.given, **common)
        published = fit(task.features, task.given, **PUBLISHED, **common)
        for roles, models in ((_ROLES, fitted), (_PUBLISHED_ROLES, published)):
            for name, role in roles.items():
                found = {}
                if role == "target":
                    found["shares_off"] = np.abs(models.class_shares - shares).sum()
                yield {**told(head, name, models.predict(task.test_features, role)), **found}


def _named(head, model):
    """The name of a model over a head."""
    return f"{head}, {model}" if head else model


def write_table(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes embeddings.md."""
    rows = rows.fillna({"head": ""})
    lines = [
        "# D-SINK on embeddings",
        "",
        "Heads over fixed vectors by `dsink_jax.fit` with its defaults, which choose weight decay and the "
        "method of f_N by labels held out, beside the same without that choice (`as published`: f_N by ELR, "
        "weight decay 5e-4) and logistic regression, whose C is chosen by five folds of the given labels. "
        "Percent on the balanced test set, mean ± standard deviation over seeds; `few`: the rarest third of "
        "the classes; "
        "`adjusted`: the logarithm of f_N's mean prediction on the training set taken from its logits; "
        "`ahead by`: points by which D-SINK with the same head is ahead, mean of the paired differences with "
        "its 95 % interval over seeds and test images together (with ±: over seeds alone, by Student's t, as "
        "the predictions for the test images were not kept), and in how many seeds; `shares off`: L1 "
        "distance of the estimated shares of the true classes from the true ones. The choice was made on "
        "corrupted sets of seed 100; digits have one test set for all seeds.",
        "",
        f"By `python -m experiments.embeddings` on {environments_in_words(folder, rows[COLUMN])}.",
        *("", "## Points by which D-SINK is ahead", ""),
    ]
    others = [*LOGISTIC, *(name for name in (*_ROLES, *_PUBLISHED_ROLES) if name != DSINK)]
    table = [("setting", "head", *others)]
    for name, here in rows.groupby("setting", sort=False):
        kept = Predictions(folder, NAME, name)
        table += ((name, head, *(_ahead(here, head, other, kept) for other in others)) for head in HEADS)
    table += (("all of them", head, *(_ahead(rows, head, other) for other in others)) for head in HEADS)
    lines += ["```", align(table, left=2), "```"]
    for name, here in rows.groupby("setting", sort=False):
        kept = Predictions(folder, NAME, name)
        table = [("head", "model", "accuracy", "few", "ahead by", "shares off")]
        for (head, model), of_model in here.groupby(["head", "model"], sort=False):
            by = [_ahead(here, one, model, kept) for one in ([head] if head else HEADS)]
            off = of_model["shares_off"].mean()
            table.append(
                (
                    head or "-",
                    model,
                    *(spread(of_model[field]) for field in ("accuracy", "few")),
                    "" if model == DSINK else ", ".join(by),
                    "" if np.isnan(off) else f"{off:.2f}",
                )
            )
        lines += [
            *("", f"## {name}", ""),
            describe(here),
            *("", "```", align(table, left=2), "```"),
        ]
    (folder / "embeddings.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _ahead(rows, head, other, kept=None):
    """How far D-SINK is ahead of another model in one setting; in several on average, without an interval."""
    accuracy = rows.pivot(index=["setting", "seed"], columns=["head", "model"], values="accuracy")
    if kept is not None:
        accuracy = accuracy.droplevel("setting")
    accuracy.columns = [_named(*column) for column in accuracy.columns]
    own = "" if other in LOGISTIC else head
    found = ahead(accuracy, _named(head, DSINK), _named(own, other), kept)
    return str(found if kept is not None else found._replace(half_width=None))


def main() -> None:
    """Runs the comparison from the command line."""
    with errors_for_people(), tempfile.TemporaryDirectory() as directory:
        flags = read_flags(Flags, description=__doc__)
        keep_compiled(directory)
        in_a_cell = len(LOGISTIC) + len(HEADS) * (len(_ROLES) + len(_PUBLISHED_ROLES))
        comparison = Comparison(
            *(NAME, FIELDS, _DIGITS, _CIFAR, in_a_cell, _cell_of(flags), "%.6g"),
            *(("scikit-learn",), write_table),
        )
        run_cells(comparison, flags, flags.output)


def _cell_of(flags):
    """The rows of a corrupted set; what was compiled for one is of no use to the next."""

    def rows(setting, seed):
        yield from compare(make_task(setting, seed, flags.data_dir, test=True), seed)
        jax.clear_caches()

    return rows


if __name__ == "__main__":
    main()
