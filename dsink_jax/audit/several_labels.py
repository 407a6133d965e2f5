"""Which of several labels are probably missing or wrong: each label as a problem of two classes."""

from typing import NamedTuple

import numpy as np

from dsink_jax.audit.label_errors import find_label_errors
from dsink_jax.data.corruption import check_observed
from dsink_jax.errors import InputError


class MultilabelErrors(NamedTuple):
    """What is to be said of several labels an example. Arrays of NumPy.

    Attributes:
      wrong_probability: float32 `[M, C]` in [0, 1], probability that what is given is wrong: that a label is
        missing where it is not given, and that it is spurious where it is.
      probabilities: float32 `[M, C]`, that the example has the label, what is given taken into account.
      surrogate_labels: float32 `[M, C]`, Q: the same without what is given.
      label_shares: float32 `[C]`, estimated share of the examples that have each label.
      missing_rates: float32 `[C]`, estimated share of those with the label that were not given it.
      spurious_rates: float32 `[C]`, estimated share of those without that were given it.
      given: bool `[M, C]`.
    """

    wrong_probability: np.ndarray
    probabilities: np.ndarray
    surrogate_labels: np.ndarray
    label_shares: np.ndarray
    missing_rates: np.ndarray
    spurious_rates: np.ndarray
    given: np.ndarray

    @property
    def is_missing(self) -> np.ndarray:
        """Bool `[M, C]`, labels that are not given and more probably true than not."""
        return (self.wrong_probability > 0.5) & ~self.given

    @property
    def is_spurious(self) -> np.ndarray:
        """Bool `[M, C]`, labels that are given and more probably wrong than right."""
        return (self.wrong_probability > 0.5) & self.given

    @property
    def ranking(self) -> np.ndarray:
        """Int `[M * C, 2]`, pairs of example and label, the most probably wrong first."""
        order = np.argsort(-self.wrong_probability, axis=None, kind="stable")
        return np.stack(np.unravel_index(order, self.wrong_probability.shape), axis=1)


def find_multilabel_errors(
    labels: np.ndarray, noise_robust_logits: np.ndarray, imbalance_robust_logits: np.ndarray
) -> MultilabelErrors:
    """Finds which of several labels are probably missing or spurious.

    Every label is a problem of two classes, "has it not" and "has it", for `find_label_errors`: how often
    each is taken for the other and how many examples truly have the label is found for each label apart.

    Args:
      labels: 0 and 1 `[M, C]`, as given.
      noise_robust_logits: floating `[M, C]`, f_N's logits, a sigmoid for each label, for examples that it was
        not trained on; see `out_of_sample_logits`.
      imbalance_robust_logits: the same of f_L.

    Returns:
      The `MultilabelErrors`.

    Raises:
      InputError: if shapes do not go together, labels are others than 0 and 1, or a prediction is no number.

    Source: as `find_label_errors`.

    >>> import numpy as np
    >>> truth = np.tile([[1, 0], [0, 1], [1, 1], [0, 0]], (10, 1))
    >>> logits = 4.0 * (2 * truth - 1)
    >>> given = truth.copy()
    >>> given[0] = [0, 1]  # the first label is missing, the second spurious
    >>> found = find_multilabel_errors(given, logits, logits)
    >>> found.is_missing[0].tolist(), found.is_spurious[0].tolist(), int(found.is_missing.sum())
    ([True, False], [False, True], 1)
    """
    labels = np.asarray(labels)
    models = [np.asarray(logits) for logits in (noise_robust_logits, imbalance_robust_logits)]
    shapes = {logits.shape for logits in models} | {labels.shape}
    if len(shapes) > 1 or labels.ndim != 2 or not labels.size:
        raise InputError(
            f"Labels and logits must have one shape [M, C], got {list(labels.shape)} and "
            f"{' and '.join(str(list(logits.shape)) for logits in models)}."
        )
    labels = check_observed(labels, labels.shape[1])
    each = [
        find_label_errors(labels[:, c], *(_as_two_classes(logits[:, c]) for logits in models))
        for c in range(labels.shape[1])
    ]
    return MultilabelErrors(
        wrong_probability=np.stack([one.wrong_probability for one in each], 1),
        probabilities=np.stack([one.probabilities[:, 1] for one in each], 1),
        surrogate_labels=np.stack([one.surrogate_labels[:, 1] for one in each], 1),
        label_shares=np.array([one.class_marginal[1] for one in each], np.float32),
        missing_rates=np.array([one.noise[1, 0] for one in each], np.float32),
        spurious_rates=np.array([one.noise[0, 1] for one in each], np.float32),
        given=labels.astype(bool),
    )


def _as_two_classes(logits):
    return np.stack([np.zeros_like(logits), logits], 1)
