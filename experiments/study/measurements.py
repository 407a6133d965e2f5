"""What studies measure on trained models, beyond what a training tells."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.evaluation import noisy_corrected
from dsink_jax.training.loop import ShouldStop, never
from experiments.study.cells import Cell
from experiments.trained import Trained, open_trained

Row = dict[str, Any]
Measure = Callable[[Cell, ShouldStop], list[Row]]

_MOST_FEATURES = 1000  # test images in a picture of features
_NEIGHBOURS = 10
_BATCH_SIZES = (8, 16, 32, 64, 128, 256)
_QUEUE = 256
_EXAMPLES = 2048  # in batches of each size, drawn anew
_DATA_SET_ITERATIONS = 2000


class Measurement(NamedTuple):
    """A measurement of a study.

    Attributes:
      file: where its rows go.
      fields: of a row, behind budget, setting and seed.
      key: the fields that tell rows of a cell apart.
      measure: makes the rows of a cell that is trained.
    """

    file: str
    fields: tuple[str, ...]
    key: tuple[str, ...]
    measure: Measure


def features(cell: Cell, should_stop: ShouldStop = never) -> list[Row]:
    """t-SNE of the features of test images for cross-entropy, the best model without D-SINK, and D-SINK.

    With each point the share of its nearest neighbours among all test images, by the features themselves,
    that are of its class: what the picture only suggests. The paper's figure 2 is such a picture.
    """
    from sklearn.manifold import TSNE
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    rows = []
    with _trained(cell, should_stop) as run:
        best = max(
            (name for name, entry in run.results["models"].items() if entry["role"] == "auxiliary"),
            key=lambda name: run.results["models"][name]["accuracy"]["last"],
        )
        labels = run.problem.data.test.labels
        for name in ("cross_entropy", best, "dsink"):
            found = run.features(name, run.problem.data.test.images)
            nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS + 1).fit(found)
            neighbours = nearest.kneighbors(found[:_MOST_FEATURES], return_distance=False)[:, 1:]
            purity = (labels[neighbours] == labels[: len(neighbours), None]).mean(1)
            # Threads that wait for one another in a thousand steps are slow on a busy machine.
            with threadpool_limits(1):
                placed = TSNE(random_state=cell.seed, init="pca").fit_transform(found[:_MOST_FEATURES])
            rows += (
                {
                    "model": name,
                    "image": i,
                    "label": int(labels[i]),
                    "x": x,
                    "y": y,
                    "same_class": float(purity[i]),
                }
                for i, (x, y) in enumerate(placed.tolist())
            )
    return rows


def allocation(cell: Cell, should_stop: ShouldStop = never) -> list[Row]:
    """How far Q of small batches is from Q of the whole training set, for the trained target.

    The error of a label is the total variation, half the L1 distance, in [0, 1]. `batch`: the marginal is
    f_L's mean over the batch, as published. `dataset`: its mean over the training set. `queue`: the batch is
    solved together with the predictions for 256 other examples, as a queue of past batches would hold them.
    """
    with _trained(cell, should_stop) as run:
        images = run.problem.images
        f, f_n, f_l = (jnp.asarray(run.logits(name, images)) for name in ("dsink", *_auxiliaries(run)))
        observed, true = run.problem.corruption.noisy_labels, run.problem.corruption.clean_labels
    whole = class_marginal(f_l)
    reference = surrogate_labels(f, f_n, whole, max_iterations=_DATA_SET_ITERATIONS).labels
    solve = jax.jit(lambda at, marginal: surrogate_labels(f[at], f_n[at], marginal).labels)
    rng = np.random.default_rng((cell.seed, 5))
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


MEASUREMENTS = {
    "features": Measurement(
        "features.csv", ("model", "image", "label", "x", "y", "same_class"), ("model", "image"), features
    ),
    "allocation": Measurement(
        "allocation.csv",
        ("batch_size", "marginal", "error", "noisy_corrected"),
        ("batch_size", "marginal"),
        allocation,
    ),
}


@contextlib.contextmanager
def _trained(cell: Cell, should_stop) -> Iterator[Trained]:
    options = cell.budget.options
    with open_trained(
        cell.config, lambda problem: [model.make(problem, options) for model in cell.models], should_stop
    ) as run:
        yield run


def _auxiliaries(run):
    """Names of the target's f_N and f_L."""
    return run.specs["dsink"].auxiliaries
