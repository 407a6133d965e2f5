"""Single training images for the page of a run: a batch with what each model says, and suspicious labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.allocation import class_marginal, surrogate_labels
from dsink_jax.data.streaming import read_rows
from dsink_jax.methods import DSink
from dsink_jax.report.gallery import displayable
from experiments.dataset import Dataset

SUSPECTS = 40
SHOWN = 12
_SMALLEST_BATCH, _LARGEST_BATCH = 64, 128
# A stream of the data seed of its own, beside those of the corrupted set.
_BATCH_STREAM = 4


class TrainingLogits(NamedTuple):
    """Logits `[M, C]` of the three models on the training images, not augmented; numpy, float32."""

    target: np.ndarray
    noise_robust: np.ndarray
    imbalance_robust: np.ndarray


def collect_examples(dataset: Dataset, term: DSink, logits: TrainingLogits) -> dict[str, np.ndarray]:
    """What examples.npz holds.

    Args:
      dataset: the data.
      term: what the target was trained with; its solver settings are used.
      logits: of the trained models.

    Returns:
      Arrays by name. `class_names` `[C]`. Of one batch of N images, drawn by the data seed: `batch_index`
      (original indices), `batch_true`, `batch_given` int32 `[N]`, and the predictions float32 `[N, C]`
      `batch_target`, `batch_noise_robust`, `batch_imbalance_robust`, `batch_surrogate` (Q, solved for this
      batch). Of some rows of it, wrong labels first: `shown_rows`, `shown_index` `[S]`, `shown_images` uint8
      `[S, h, w, channels]`. Of the K training images with the least Q of their given label, least first, Q
      solved in batches of the run's size in index order: `suspect_index`, `suspect_true`, `suspect_given`,
      `suspect_proposed` (argmax of Q) int32 `[K]`, `suspect_confidence` (max of Q), `suspect_given_share`
      float32 `[K]`, `suspect_images` uint8 `[K, h, w, channels]`.
    """
    drawn = dataset.corruption
    labels = solve_in_batches(logits, dataset.config.batch_size, term)
    rows = np.arange(len(labels))
    share = labels[rows, drawn.noisy_labels]
    suspects = np.argsort(share, kind="stable")[:SUSPECTS]
    batch = _draw_batch(dataset)
    of_batch = TrainingLogits(*(part[batch] for part in logits))
    wrong_first = np.argsort(drawn.clean_labels[batch] == drawn.noisy_labels[batch], kind="stable")
    wrong = int((drawn.clean_labels[batch] != drawn.noisy_labels[batch]).sum())
    # Half of those shown have wrong labels, where there are as many.
    half = min(wrong, SHOWN // 2)
    shown = np.concatenate([wrong_first[:half], wrong_first[wrong : wrong + SHOWN - half]])
    probabilities = {name: _softmax(part) for name, part in of_batch._asdict().items()}
    return {
        "class_names": np.array(dataset.data.class_names, dtype=str),
        "batch_index": drawn.index[batch],
        "batch_true": drawn.clean_labels[batch],
        "batch_given": drawn.noisy_labels[batch],
        **{f"batch_{name}": rows for name, rows in probabilities.items()},
        "batch_surrogate": solve_in_batches(of_batch, len(batch), term),
        "shown_rows": shown,
        "shown_index": drawn.index[batch[shown]],
        "shown_images": displayable(read_rows(dataset.images, batch[shown])),
        "suspect_index": drawn.index[suspects],
        "suspect_true": drawn.clean_labels[suspects],
        "suspect_given": drawn.noisy_labels[suspects],
        "suspect_proposed": labels[suspects].argmax(-1).astype(np.int32),
        "suspect_confidence": labels[suspects].max(-1),
        "suspect_given_share": share[suspects],
        "suspect_images": displayable(read_rows(dataset.images, suspects)),
    }


def solve_in_batches(logits: TrainingLogits, batch_size: int, term: DSink) -> np.ndarray:
    """Q of all examples, float32 `[M, C]`, solved for one batch after another in index order.

    The last batch may be smaller, and is a problem of its own like the others.

    Args:
      logits: of the examples.
      batch_size: examples solved for together.
      term: its solver settings are used.
    """
    count = len(logits.target)
    batch_size = min(batch_size, count)

    @jax.jit
    def solve(target, noise_robust, imbalance_robust, where):
        return surrogate_labels(
            target,
            noise_robust,
            class_marginal(imbalance_robust, where=where),
            where=where,
            threshold=term.threshold,
            max_iterations=term.max_iterations,
            epsilon=term.epsilon,
        ).labels

    solved = []
    for start in range(0, count, batch_size):
        # Filled up, so that all batches have one shape and are compiled for once.
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        where = jnp.asarray(np.arange(start, start + batch_size) < count)
        solved.append(np.asarray(solve(*(part[rows] for part in logits), where)))
    return np.concatenate(solved)[:count]


def _draw_batch(dataset: Dataset) -> Any:
    """Positions of the batch, in index order."""
    count = len(dataset.corruption.index)
    size = min(max(_SMALLEST_BATCH, min(dataset.config.batch_size, _LARGEST_BATCH)), count)
    rng = np.random.default_rng((dataset.config.data_seed, _BATCH_STREAM))
    return np.sort(rng.choice(count, size, replace=False))


def _softmax(logits):
    return np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1))
