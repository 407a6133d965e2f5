"""What studies measure on trained models, beyond what a training tells."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.evaluation import noisy_corrected
from dsink_jax.training.loop import ShouldStop, never
from experiments.study.runs import Cell
from experiments.trained import Trained, open_trained

Row = dict[str, Any]
Measure = Callable[[Trained], list[Row]]

_MOST_FEATURES = 1000  # test images in a picture of features
_NEIGHBOURS = 10
_BATCH_SIZES = (8, 16, 32, 64, 128, 256)
_QUEUE = 256
_EXAMPLES = 2048  # in batches of each size, drawn anew
_DATA_SET_ITERATIONS = 2000
# What the solver is given instead of its defaults, and how exactly Q is solved for to hold them against.
_SOLVER_SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    *({"max_iterations": limit} for limit in (10, 20, 50)),
    *({"threshold": threshold} for threshold in (1e-3, 1e-1)),
    *({"epsilon": epsilon} for epsilon in (0.5, 1.0, 4.0, 8.0)),
)
_EXACT = {"threshold": 3e-7, "max_iterations": 5000}


class Measurement(NamedTuple):
    """A measurement of a study.

    Attributes:
      file: where its rows go.
      key: the fields that tell rows of a cell apart.
      measure: makes the rows, from the run of a cell that is trained; see `opened`.
    """

    file: str
    key: tuple[str, ...]
    measure: Measure


def opened(cell: Cell, should_stop: ShouldStop = never) -> contextlib.AbstractContextManager[Trained]:
    """The run of a cell that is trained, for measurements; see `open_trained`."""
    required = cell.budget.required_options
    return open_trained(
        cell.config, lambda dataset: [model.make(dataset, required) for model in cell.models], should_stop
    )


def features(run: Trained) -> list[Row]:
    """t-SNE of the features of test images for cross-entropy, the best model without D-SINK, and D-SINK.

    The best is by accuracy in this run, among all that the study trains. With each point the share of
    its nearest neighbours among all test images, by the features themselves, that are of its class: what the
    picture only suggests. The paper's figure 2 is such a picture.
    """
    from sklearn.manifold import TSNE
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    rows = []
    best = _best_rival(run)
    labels, images = run.dataset.data.test.labels, run.dataset.data.test.images
    for name in ("cross_entropy", best, "dsink"):
        found = run.features(name, images)
        nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(found)
        neighbours = nearest.kneighbors(found[:_MOST_FEATURES], return_distance=False)[:, 1:]
        same = (labels[neighbours] == labels[: len(neighbours), None]).mean(1)
        placed = TSNE(random_state=run.dataset.config.seed, init="pca")
        # Threads that wait for one another in a thousand steps are slow on a busy machine.
        with threadpool_limits(1):
            places = placed.fit_transform(found[:_MOST_FEATURES])
        rows += (
            {"model": name, "image": i, "label": int(labels[i]), "x": x, "y": y, "same_class": float(same[i])}
            for i, (x, y) in enumerate(places.tolist())
        )
    return rows


def allocation(run: Trained) -> list[Row]:
    """How far Q of small batches is from Q of the whole training set, for the trained target.

    The error of a label is the total variation, half the L1 distance, in [0, 1]. `batch`: the marginal is
    f_L's mean over the batch, as published. `dataset`: its mean over the training set. `queue`: the batch is
    solved together with the predictions for 256 other examples, as a queue of past batches would hold them.
    """
    f, f_n, f_l, observed, true = _training_logits(run)
    whole = class_marginal(f_l)
    reference = surrogate_labels(f, f_n, whole, max_iterations=_DATA_SET_ITERATIONS).labels
    solve = jax.jit(lambda at, marginal: surrogate_labels(f[at], f_n[at], marginal).labels)
    rng = np.random.default_rng((run.dataset.config.seed, 5))
    rows = []
    for size in (size for size in _BATCH_SIZES if size + _QUEUE <= len(observed)):
        for kind in ("batch", "dataset", "queue"):
            errors, picked, predicted = [], [], []
            for _ in range(-(-_EXAMPLES // size)):
                at = rng.permutation(len(observed))[: size + (_QUEUE if kind == "queue" else 0)]
                marginal = whole if kind == "dataset" else class_marginal(f_l[at])
                labels = solve(at, marginal)[:size]
                errors.append(0.5 * np.abs(labels - reference[at[:size]]).sum(1))
                picked.append(at[:size])
                predicted.append(np.argmax(labels, 1))
            picked, predicted = np.concatenate(picked), np.concatenate(predicted)
            rows.append(
                {
                    "batch_size": size,
                    "marginal": kind,
                    "error": float(np.mean(np.concatenate(errors))),
                    "noisy_corrected": noisy_corrected(predicted, observed[picked], true[picked]),
                }
            )
    return rows


def exactness(run: Trained) -> list[Row]:
    """How far Q of a batch is from its exact solution where the solver does less, or has another epsilon.

    For the trained target, in batches of the run's size. `error` of a label is the total variation, half the
    L1 distance, to Q of the same batch solved to 3e-7, in [0, 1]; `worst` is the largest; `marginal_error` is
    the mean L1 error of the class marginal.
    """
    f, f_n, f_l, observed, true = _training_logits(run)
    config = run.dataset.config
    size, rng = config.batch_size, np.random.default_rng((config.seed, 6))
    batches = [rng.permutation(len(observed))[:size] for _ in range(-(-_EXAMPLES // size))]

    def solved(**settings):
        solve = jax.jit(lambda at: surrogate_labels(f[at], f_n[at], class_marginal(f_l[at]), **settings))
        found = [jax.device_get(solve(at)) for at in batches]
        return np.concatenate([one.labels for one in found]), found

    at = np.concatenate(batches)
    exact, _ = solved(**_EXACT)
    rows = []
    for settings in _SOLVER_SETTINGS:
        labels, found = solved(**settings)
        error = 0.5 * np.abs(labels - exact).sum(1)
        rows.append(
            {
                "solver": ", ".join(f"{name}={value:g}" for name, value in settings.items()) or "default",
                "error": float(error.mean()),
                "worst": float(error.max()),
                "marginal_error": float(np.mean([one.marginal_error for one in found])),
                "iterations": float(np.mean([one.iterations for one in found])),
                "noisy_corrected": noisy_corrected(labels.argmax(1), observed[at], true[at]),
            }
        )
    return rows


def class_shares(run: Trained) -> list[Row]:
    """Shares of the classes in the training set: by its labels, and by the mean predictions of models.

    The models are the target, its f_N, and all that are made to be robust to imbalance.

    What f_L predicts of a class on average is what Q has to have of it. Classes are numbered as the labels
    are, the most frequent first where the imbalance is drawn. The shares of each kind sum to 1.
    """
    drawn = run.dataset.corruption
    counts = {"true labels": drawn.clean_counts, "observed labels": drawn.noisy_counts}
    found = {kind: np.divide(of_class, len(drawn.index)) for kind, of_class in counts.items()}
    others = [name for name in run.specs if name.startswith("f_L-")]
    for name in ("dsink", run.specs["dsink"].auxiliaries[0], *others):
        found[name] = class_marginal(jnp.asarray(run.training_logits(name)))
    return [
        {"kind": kind, "class": number, "share": float(share)}
        for kind, shares in found.items()
        for number, share in enumerate(shares)
    ]


MEASUREMENTS = {
    "class-shares": Measurement("class_shares.csv", ("kind", "class"), class_shares),
    "features": Measurement("features.csv", ("model", "image"), features),
    "allocation": Measurement("allocation.csv", ("batch_size", "marginal"), allocation),
    "exactness": Measurement("exactness.csv", ("solver",), exactness),
}


def _best_rival(run):
    """The trained model that is most accurate of those that are no D-SINK."""
    models = run.results["models"]
    rivals = [name for name, spec in run.specs.items() if spec.role != "target" and spec.is_trained]
    return max(rivals, key=lambda name: models[name]["accuracy"]["last"])


def _training_logits(run):
    """Logits of the target, its f_N and its f_L for the training images, their observed and true labels."""
    names = ("dsink", *run.specs["dsink"].auxiliaries)
    logits = [jnp.asarray(run.training_logits(name)) for name in names]
    return *logits, run.dataset.corruption.noisy_labels, run.dataset.corruption.clean_labels
