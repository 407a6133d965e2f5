"""What models are trained on: the examples, and what methods may know of them."""

import dataclasses
import functools
from typing import Any

import numpy as np

from dsink_jax.data.copies import find_copies
from dsink_jax.data.meta_set import draw_meta_set
from dsink_jax.data.streaming import Selected, is_streamed
from dsink_jax.errors import InputError
from dsink_jax.methods import TrainingFacts, make_facts
from dsink_jax.methods.hooks import UsesMetaSet
from dsink_jax.training import Standardization

_FOLD_STREAM = 7  # of a seed


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSet:
    """What models are trained on.

    Attributes:
      inputs: `[M, ...]`, an array or a `data.Source` to stream from.
      labels: integer `[M]` in 0..C-1, as observed; or 0 and 1 `[M, C]`, which of several labels each has.
      num_classes: C.
      class_counts: numbers `[C]`, examples of each class as far as methods may know; None for those of the
        observed labels.
      clean_labels: integer `[M]`, true labels for meta sets that are to have them; None where nobody knows.
      transition_matrix: `[C, C]`, P(observed | true), or None.
      standardization: of the inputs, or None to leave them as they are.
      meta_seed: seed of the draw of a meta set.
    """

    inputs: Any
    labels: np.ndarray
    num_classes: int
    class_counts: Any = None
    clean_labels: np.ndarray | None = None
    transition_matrix: Any = None
    standardization: Standardization | None = None
    meta_seed: int = 0

    @functools.cached_property
    def folds_by(self) -> np.ndarray | None:
        """Int `[M]`, equal for examples that are the same; None where all differ, or inputs are streamed."""
        if is_streamed(self.inputs):
            return None
        groups = find_copies(self.inputs)
        return groups if len(groups) and groups.max() + 1 < len(groups) else None

    def make_folds(self, folds: int, seed: int) -> np.ndarray:
        """Int `[M]`, the fold of each example, copies of one in the same fold; see `make_folds`."""
        return make_folds(self.labels, folds, seed, self.folds_by)

    def facts(self, epochs: int) -> TrainingFacts:
        """What methods may know."""
        counts = self.class_counts
        if self.labels.ndim == 2:
            facts = make_facts(self.labels.sum(0), epochs)
            return facts._replace(class_prior=self.labels.mean(0, dtype=np.float64).astype(np.float32))
        if counts is None:
            counts = np.bincount(self.labels, minlength=self.num_classes)
        return make_facts(counts, epochs, self.transition_matrix)

    def rows(self, index: np.ndarray) -> "TrainingSet":
        """The examples at some positions, int `[m]`."""
        inputs = Selected(self.inputs, index) if is_streamed(self.inputs) else self.inputs[index]
        clean = None if self.clean_labels is None else self.clean_labels[index]
        return dataclasses.replace(self, inputs=inputs, labels=self.labels[index], clean_labels=clean)

    def meta_set(self, method: Any) -> dict[str, np.ndarray]:
        """Positions and labels of a method's meta set, nothing for a method without.

        Raises:
          InputError: if it is larger than a class, or is to have clean labels that nobody knows.
        """
        if not isinstance(method, UsesMetaSet):
            return {}
        labels = self.clean_labels if method.meta_labels == "clean" else self.labels
        if labels is None:
            raise InputError("Clean labels are not known here: a meta set must have observed labels.")
        index = draw_meta_set(labels, method.meta_per_class or 0, self.num_classes, self.meta_seed)
        return {"meta_index": index, "meta_labels": labels[index]}


def make_folds(labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Int `[M]`, the fold of each example: those of a class are dealt out in turn, in random order.

    Of several labels, `[M, C]`, the rarest that an example has counts as its class. Examples of one of the
    `groups`, int `[M]` from 0 on, come into the same fold, as the first of them.

    Raises:
      InputError: for fewer than 2 folds, or more than there are examples.
    """
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= len(labels):
        raise InputError(f"folds must be between 2 and the number of examples, {len(labels)}, got {folds!r}.")
    if groups is not None:
        _, first = np.unique(groups, return_index=True)
        if len(first) < folds:
            raise InputError(f"There are {len(first)} different examples, too few for {folds} folds.")
        return make_folds(labels[first], folds, seed)[groups]
    rng = np.random.default_rng((seed, _FOLD_STREAM))
    if labels.ndim == 2:
        rarity = np.where(labels > 0, labels.sum(0), len(labels) + 1)
        labels = np.where(labels.any(1), rarity.argmin(1), labels.shape[1])
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold
