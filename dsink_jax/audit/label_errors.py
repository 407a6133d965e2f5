"""Which labels are probably wrong, from predictions of models that have not seen them.

Three steps. The shares of the true classes: half by f_N, and half by f_L, whose predictions count every class
alike and are weighted by the shares that f_N finds; so rare classes keep some of what f_N would give away to
frequent ones. Surrogate labels Q: f_N's predictions moved to these shares by D-SINK's transport. And Bayes'
rule: how classes are mistaken for one another, P(given | true), is estimated together with the true labels by
expectation maximisation, Q being what is known of each example before its label is looked at.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import allocation
from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.errors import InputError

_ITERATIONS = 30
_LEAST = -30.0  # of a logit next to its row's largest


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
      target_logits: the same of the D-SINK target; f_N's if left out.
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
    target = noise_robust if target_logits is None else _checked(target_logits)
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
    marginal = _true_shares(noise_robust, imbalance_robust)
    surrogate = allocation.surrogate_labels(target, noise_robust, marginal).labels
    probabilities, noise = _expectation_maximisation(surrogate, jnp.asarray(labels))
    rows = np.arange(count)
    probabilities = np.asarray(probabilities)
    wrong = 1 - probabilities[rows, labels]
    return LabelErrors(
        wrong_probability=wrong if judged is None else np.where(judged, wrong, np.float32("nan")),
        proposed=probabilities.argmax(-1).astype(np.int32),
        confidence=probabilities.max(-1),
        probabilities=probabilities,
        surrogate_labels=np.asarray(surrogate),
        class_marginal=np.asarray(marginal),
        noise=np.asarray(noise),
    )


def _checked(logits):
    logits = np.asarray(logits)
    if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f":
        raise InputError(f"Logits must be floating [M, C], got {logits.dtype} {list(logits.shape)}.")
    bad = np.isnan(logits).any(-1) | (logits == np.inf).any(-1) | (logits == -np.inf).all(-1)
    if bad.any():
        raise InputError(f"The logits of example {int(bad.argmax())} hold NaN or are no prediction.")
    # What is said to be impossible is only next to it: two models may rule out every class between them.
    return jnp.asarray(np.maximum(logits - logits.max(-1, keepdims=True), _LEAST), jnp.float32)


@jax.jit
def _true_shares(noise_robust, imbalance_robust):
    """Shares of the true classes `[C]`; f_L's own mean prediction would be that of classes of one size."""
    found = jax.nn.softmax(noise_robust, axis=-1).mean(0)
    weighted = jax.nn.softmax(imbalance_robust + jnp.log(found), axis=-1).mean(0)
    return (found + weighted) / 2


@jax.jit
def _expectation_maximisation(surrogate, labels):
    """P(true | example, given) `[M, C]` and P(given | true) `[C, C]`."""
    num_classes = surrogate.shape[-1]
    one_hot = jax.nn.one_hot(labels, num_classes)
    eye = jnp.eye(num_classes)

    def noise_of(probabilities):
        together = jnp.matmul(probabilities.T, one_hot, precision=jax.lax.Precision.HIGHEST)
        # What every class has in common stands in for C examples of each: a rare one has few of its own.
        kept = jnp.trace(together) / together.sum()
        common = kept * eye + (1 - kept) / (num_classes - 1) * (1 - eye)
        together += num_classes * common
        # Classes are told apart by their labels alone: each is given its own as often as any other, or else
        # models that know little would have all of them exchanged.
        together = jnp.where(eye > 0, together.max(-1, keepdims=True), together)
        return together / together.sum(-1, keepdims=True)

    def step(_, probabilities):
        joint = surrogate * noise_of(probabilities)[:, labels].T
        return joint / jnp.maximum(joint.sum(-1, keepdims=True), jnp.finfo(joint.dtype).tiny)

    probabilities = jax.lax.fori_loop(0, _ITERATIONS, step, surrogate)
    return probabilities, noise_of(probabilities)
