"""D-SINK where examples are of no class: `python -m experiments.study open-set --data-dir DIR`.

CLINC150's own imbalanced training set by features of a sentence encoder. The intents of four of its ten
domains are held out: no class is for them, and each of their queries gets the intent that it is nearest to,
as whoever has to choose would label it. Which models tell such queries from the others, and what do these
queries cost? The same command goes on where it stopped.
"""

import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from dsink_jax import fit
from dsink_jax.errors import InputError
from dsink_jax.flags import check_local_flags, read_flags
from dsink_jax.report import align
from experiments.cells import Table, grow
from experiments.command_line import errors_for_people
from experiments.compiled import keep_compiled
from experiments.environments import COLUMN, environments_in_words
from experiments.kept_rows import read_measured
from experiments.natural import files
from experiments.natural.encoders import ENCODERS
from experiments.natural.features import kept_features
from experiments.natural.rivals import choose_strength, make_model
from experiments.seeds import check_seeds
from experiments.study.paired import paired, spread

SETTING = "clinc150"
HELD_OUT = 4  # domains
FIELDS = (
    *("setting", "seed", "model", "examples", "intruders", "classes"),
    *("accuracy", "auroc_held_out", "auroc_out_of_scope", "known_share", "seconds", COLUMN),
)
OPEN, ESTIMATED = "D-SINK, share given", "D-SINK, share estimated"
CLOSED, RIVAL = "D-SINK, closed", "logistic regression"
_ENERGY, _WITHOUT = ", energy", ", no intruders"
MODELS = (
    *(OPEN, ESTIMATED, CLOSED, CLOSED + _ENERGY, CLOSED + _WITHOUT),
    *(RIVAL, RIVAL + _ENERGY, RIVAL + _WITHOUT),
)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Compares models where intents without a class are in the training set."""

    data_dir: pathlib.Path | None = None
    """Folder with clinc150_open in it or in its folder natural."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds, each for the domains that are held out and for the trainings. By seed 0 the weight decay of such
    fits was chosen."""
    features_dir: pathlib.Path = pathlib.Path("runs/features")
    """Where features are kept."""
    steps: Literal["all", "render"] = "all"
    """render: only write the table, from open-set.csv."""
    output: pathlib.Path = pathlib.Path("results/open-set")
    """Where open-set.csv and open-set.md go."""

    def __post_init__(self):
        check_local_flags(self)
        check_seeds(self.seeds)
        if self.steps == "all" and self.data_dir is None:
            raise InputError("--data-dir is needed: the folder with clinc150_open.")


class OpenSet(NamedTuple):
    """Training examples, some of them of no class, and test examples.

    Attributes:
      inputs: float32 `[M, D]`.
      given: int `[M]` in 0..C-1.
      known: bool `[M]`, which are of a class; for judging alone.
      test_inputs: float32 `[T, D]`.
      test_classes: int `[T]`: the class, -1 for a held-out intent, -2 for what is out of any scope.
      num_classes: C.
    """

    inputs: np.ndarray
    given: np.ndarray
    known: np.ndarray
    test_inputs: np.ndarray
    test_classes: np.ndarray
    num_classes: int


class Named(NamedTuple):
    """The setting, by its name."""

    name: str


def hold_out(
    inputs: np.ndarray,
    intent: np.ndarray,
    test_inputs: np.ndarray,
    test_intent: np.ndarray,
    domain: np.ndarray,
    seed: int,
) -> OpenSet:
    """Takes the intents of some domains from the classes; their queries get the nearest intent that is left.

    Nearest is by the cosine of a query's features with the mean of an intent's.

    Args:
      inputs: float `[M, D]` of the training queries.
      intent: int `[M]`, of each.
      test_inputs: float `[T, D]`.
      test_intent: int `[T]`, -1 for out of scope.
      domain: `[C]` of each intent.
      seed: of the domains that are held out.
    """
    out = np.random.default_rng(seed).choice(np.unique(domain), HELD_OUT, replace=False)
    kept = np.flatnonzero(~np.isin(domain, out))
    number = np.full(len(domain) + 1, -1)
    number[kept] = np.arange(len(kept))
    number[-1] = -2  # out of scope
    classes = number[intent]
    known = classes >= 0
    centres = np.stack([inputs[classes == c].mean(0) for c in range(len(kept))])
    cosine = inputs @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    given = np.where(known, classes, cosine.argmax(1))
    return OpenSet(inputs, given, known, test_inputs, number[test_intent], len(kept))


def compare(data: OpenSet, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of all models; a score of another kind from the same training took no time."""
    share = float(data.known.mean())
    facts = {"examples": len(data.given), "intruders": 1 - share, "classes": data.num_classes}
    how: dict[str, Any] = {"num_classes": data.num_classes, "seed": seed}

    def row(model, logits, score, started, **more):
        seconds = 0.0 if started is None else time.monotonic() - started
        return {**facts, **more, "model": model, **measures(data, logits, score), "seconds": seconds}

    for model, known_share in ((OPEN, share), (ESTIMATED, "estimated")):
        started = time.monotonic()
        fitted = fit(data.inputs, data.given, known_share=known_share, **how)
        score = fitted.known_probability(data.test_inputs)
        yield row(model, fitted.logits(data.test_inputs), score, started, known_share=fitted.known.share)

    def closed(known):
        return fit(data.inputs[known], data.given[known], **how).logits(data.test_inputs)

    def logistic(known):
        inputs, given = data.inputs[known], data.given[known]
        model = make_model(choose_strength(inputs, given, None, seed), None).fit(inputs, given)
        return model.decision_function(data.test_inputs)  # every class is there

    for model, train in ((CLOSED, closed), (RIVAL, logistic)):
        started = time.monotonic()
        logits = train(np.ones(len(data.given), bool))
        yield row(model, logits, softmax(logits, 1).max(1), started)
        yield row(model + _ENERGY, logits, logsumexp(logits, 1), None)
        started = time.monotonic()
        logits = train(data.known)
        yield row(model + _WITHOUT, logits, softmax(logits, 1).max(1), started)


def measures(data: OpenSet, logits: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Accuracy among test examples of a class, and how well a score tells them from the two kinds of others.

    Args:
      data: what was trained on and is judged by.
      logits: float `[T, C]`.
      score: float `[T]`, higher for what is known.
    """
    classes = data.test_classes
    is_known = classes >= 0

    def area(other):
        both = is_known | (classes == other)
        return float(roc_auc_score(is_known[both], score[both]))

    return {
        "accuracy": float((logits.argmax(1) == classes)[is_known].mean()),
        "auroc_held_out": area(-1),
        "auroc_out_of_scope": area(-2),
    }


def write_table(folder: pathlib.Path, rows: pd.DataFrame) -> None:
    """Writes open-set.md."""
    first = rows.iloc[0]
    shown = {
        "accuracy": "accuracy",
        "auroc_held_out": "held-out intents",
        "auroc_out_of_scope": "out of scope",
    }
    lines = [
        "# Examples of no class in the training set",
        "",
        f"CLINC150's imbalanced training set, {first['examples']:,} queries, by features of "
        f"all-MiniLM-L6-v2. The intents of {HELD_OUT} of its 10 domains are held out, others for each seed, "
        "and their queries labelled with the nearest intent: "
        f"{100 * rows['intruders'].min():.0f} to {100 * rows['intruders'].max():.0f} % of the training set.",
        "",
        "Accuracy: of test queries of the intents that are left. The other columns: area under the ROC "
        "curve, in percent, of telling these from test queries of the held-out intents, and from CLINC150's "
        "out-of-scope queries; by `known_probability` of models with a known share, by the energy where that "
        "is said, and else by the largest probability. `no intruders`: trained without the held-out queries. "
        "Mean ± standard deviation over seeds; `ahead by`: of the first line, in points, and in how many "
        "seeds.",
        "",
        f"By `python -m experiments.study open-set` on {environments_in_words(folder, rows[COLUMN])}.",
        "",
    ]
    table = [
        ("model", *(cell for title in shown.values() for cell in (title, "ahead by")), "share of known", "s")
    ]
    for model, mine in rows.groupby("model", sort=False):
        cells = [cell for field in shown for cell in (spread(mine[field]), _ahead(rows, model, field))]
        share = "" if mine["known_share"].isna().all() else spread(mine["known_share"])
        table.append((model, *cells, share, f"{mine['seconds'].mean():.0f}"))
    lines += ["```", align(table, left=1), "```", ""]
    (folder / "open-set.md").write_text("\n".join(lines), encoding="utf-8")


def _ahead(rows, model, field):
    if model == OPEN:
        return ""
    known = rows.pivot(index="seed", columns="model", values=field)
    return str(paired(known[OPEN], known[model])._replace(half_width=None))


def render(folder: pathlib.Path) -> None:
    """Writes open-set.md from open-set.csv.

    Raises:
      InputError: if it is not there, or is of something else.
    """
    write_table(folder, read_measured(folder / "open-set.csv", FIELDS))


def read_features(data_dir: pathlib.Path, features_dir: pathlib.Path) -> tuple[Any, ...]:
    """What `hold_out` takes before the seed: features, intents and domains of CLINC150."""
    queries = files.read_queries(files.find("clinc150_open", data_dir))
    train = np.flatnonzero((queries.split == "train") & queries.in_imbalanced)
    test = np.flatnonzero(np.isin(queries.split, ("test", "oos_test")))
    files.check_rows(data_dir, {"train": train, "test and oos_test": test})
    features = [
        kept_features([queries.texts[i] for i in rows], ENCODERS["text"], features_dir)
        for rows in (train, test)
    ]
    return features[0], queries.intent[train], features[1], queries.intent[test], queries.domain


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
        kept = Table("open-set", FIELDS, lambda name: len(MODELS), "%.6g", ("scikit-learn",), write_table)
        read = functools.cache(lambda: read_features(flags.data_dir, flags.features_dir))
        cells = [(Named(SETTING), seed) for seed in flags.seeds]
        grow(kept, flags.output, cells, lambda named, seed: compare(hold_out(*read(), seed), seed))


if __name__ == "__main__":
    main()
