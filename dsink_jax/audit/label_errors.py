"""Which labels are probably wrong, from predictions of models that have not seen them.

Three steps. What both auxiliary models say of an example is joined as D-SINK joins two models, by the root of
their product. A noise model (`dsink_jax.noise_model`) finds how often each true class occurs, moves the
predictions to these shares, and finds how classes are mistaken for one another. And Bayes' rule: the chance
that a label is wrong is the mean of what the predictions say alone, counted twice, and of what they say once
the mistaking of classes is taken into account, counted once. The first is sure of frequent classes, whatever
kind of noise there is; the second of rare ones, which models see too little of.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.errors import InputError
from dsink_jax.noise_model import fit_noise_model

_LEAST = -30.0  # of a logit next to its row's largest
_WITHOUT_LABEL = 2 / 3  # weight of predictions alone; chosen on digits of other seeds and on natural noise


class LabelErrors(NamedTuple):
    """What is to be said of labels. Arrays of NumPy.

    Attributes:
      wrong_probability: float32 `[M]` in [0, 1], probability that the given label is wrong; NaN where that
        could not be judged.
      proposed: int32 `[M]`, the most probable true class. It can be the given one of a label that `is_wrong`,
        where the others together are more probable but none of them is; files and pages then name the
        likeliest of the others.
      confidence: float32 `[M]`, probability of that class.
      probabilities: float32 `[M, C]`, of the true class, the given label taken into account.
      surrogate_labels: float32 `[M, C]`, Q: the same without the given label.
      class_marginal: float32 `[C]`, estimated shares of the true classes.
      noise: float32 `[C, C]`, estimated P(given | true), rows sum to 1.
    """

    wrong_probability: np.ndarray
    proposed: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray
    surrogate_labels: np.ndarray
    class_marginal: np.ndarray
    noise: np.ndarray

    @property
    def is_wrong(self) -> np.ndarray:
        """Bool `[M]`, whether the given label is wrong more probably than right.

        No single other class need be more probable than the given one for that.
        """
        return self.wrong_probability > 0.5

    @property
    def ranking(self) -> np.ndarray:
        """Int `[M]`, positions of the examples, the most probably wrong first, what cannot be judged last."""
        return np.argsort(-self.wrong_probability, kind="stable")


def find_label_errors(
    labels: np.ndarray,
    noise_robust_logits: np.ndarray,
    imbalance_robust_logits: np.ndarray,
    target_logits: np.ndarray | None = None,
    *,
    judged: np.ndarray | None = None,
) -> LabelErrors:
    """Finds labels that are probably wrong.

    Args:
      labels: integer `[M]` in 0..C-1, as given.
      noise_robust_logits: floating `[M, C]`, f_N's logits for examples that it was not trained on; see
        `out_of_sample_logits`. The log of probabilities will do.
      imbalance_robust_logits: the same of f_L.
      target_logits: the same of the D-SINK target, to be joined with f_N in place of f_L.
      judged: bool `[M]`, False where the models cannot know the class that is given, as that of the only
        example there is of it; all True if left out.

    Returns:
      The `LabelErrors`.

    Raises:
      InputError: if shapes do not go together, or a prediction is not a number.

    Source: Q by D-SINK, arXiv 2510.08179; the mistaking of classes by the EM algorithm of Dawid and Skene,
    Applied Statistics 28, 1979, for one annotator.

    >>> import numpy as np
    >>> sure = np.log(np.array([[0.98, 0.02]] * 5 + [[0.02, 0.98]] * 5))
    >>> found = find_label_errors(np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]), sure, sure)
    >>> found.ranking[:1].tolist(), found.proposed[4].item()
    ([4], 0)
    """
    noise_robust, imbalance_robust = _checked(noise_robust_logits), _checked(imbalance_robust_logits)
    target = imbalance_robust if target_logits is None else _checked(target_logits)
    if not noise_robust.shape == imbalance_robust.shape == target.shape:
        raise InputError(
            "The models' logits must have one shape [M, C], got "
            f"{list(noise_robust.shape)}, {list(imbalance_robust.shape)} and {list(target.shape)}."
        )
    count, num_classes = noise_robust.shape
    if num_classes < 2:
        raise InputError("There must be at least 2 classes to mistake one for another, got 1.")
    labels = check_class_numbers(labels, num_classes, "Labels")
    if len(labels) != count:
        raise InputError(f"There must be one label for each of {count} examples, got {len(labels)}.")
    if judged is not None and np.shape(judged) != (count,):
        raise InputError(
            f"judged must be one bool for each of {count} examples, got {list(np.shape(judged))}."
        )
    found = fit_noise_model((noise_robust + target) / 2, labels, balanced=False)
    probabilities = _WITHOUT_LABEL * found.predictions + (1 - _WITHOUT_LABEL) * found.probabilities
    wrong = 1 - probabilities[np.arange(count), labels]
    return LabelErrors(
        wrong_probability=wrong if judged is None else np.where(judged, wrong, np.float32("nan")),
        proposed=probabilities.argmax(-1).astype(np.int32),
        confidence=probabilities.max(-1),
        probabilities=probabilities,
        surrogate_labels=found.predictions,
        class_marginal=found.class_shares,
        noise=found.transition_matrix,
    )


def _checked(logits):
    logits = np.asarray(logits)
    if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f":
        raise InputError(f"Logits must be floating [M, C], got {logits.dtype} {list(logits.shape)}.")
    bad = np.isnan(logits).any(-1) | (logits == np.inf).any(-1) | (logits == -np.inf).all(-1)
    if bad.any():
        raise InputError(f"The logits of example {int(bad.argmax())} hold NaN or are no prediction.")
    # What is said to be impossible is only next to it: two models may rule out every class between them.
    return log_softmax(np.maximum(logits - logits.max(-1, keepdims=True), _LEAST), axis=-1).astype(np.float32)
