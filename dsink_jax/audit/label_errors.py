"""Which labels are probably wrong, from predictions of models that have not seen them.

Three steps. The models are put together, the mean of their log-probabilities, and held against the labels
that were given: `fit_noise_model` finds how classes are mistaken for one another, P(given | true), the shares
of the true classes and how sure the models may be. Surrogate labels Q: what the models say, moved to these
shares by D-SINK's transport. And Bayes' rule: Q is what is known of each example before its label is looked
at. P(given | true) is there taken halfway between what was found for each class and what all classes have in
common, because a rare class has too few examples to tell how it is mistaken.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from dsink_jax import allocation, open_set
from dsink_jax.data.corruption import check_class_numbers
from dsink_jax.errors import InputError
from dsink_jax.estimator.arrays import as_array, as_labels
from dsink_jax.noise_model import fit_noise_model
from dsink_jax.open_set import ESTIMATED

_COMMON = 0.5  # weight of what all classes have in common
_LEAST = -30.0  # of a logit next to its row's largest


class LabelErrors(NamedTuple):
    """What is to be said of labels. Arrays of NumPy.

    Attributes:
      wrong_probability: float32 `[M]` in [0, 1], probability that the given label is wrong, because another
        class is true or none is; NaN where that could not be judged.
      proposed: int32 `[M]`, the most probable true class. It can be the given one of a label that `is_wrong`,
        where the others together are more probable but none of them is; files and pages then name the
        likeliest of the others.
      confidence: float32 `[M]`, probability of that class.
      probabilities: float32 `[M, C]`, of the true class, the given label taken into account.
      surrogate_labels: float32 `[M, C]`, Q: the same without the given label.
      class_marginal: float32 `[C]`, estimated shares of the true classes.
      noise: float32 `[C, C]`, estimated P(given | true), rows sum to 1; halfway to what is common to all
        classes.
      known: float32 `[M]` in [0, 1], how far each example is known to be of a class at all; None where that
        was not asked. The other attributes, but the first, are about examples of a class.
      given: int32 `[M]`, the labels as given.
    """

    wrong_probability: np.ndarray
    proposed: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray
    surrogate_labels: np.ndarray
    class_marginal: np.ndarray
    noise: np.ndarray
    known: np.ndarray | None = None
    given: np.ndarray | None = None

    @property
    def is_none(self) -> np.ndarray:
        """Bool `[M]`, whether an example is more probably of no class than of one; False if not judged."""
        if self.known is None:
            return np.zeros(len(self.proposed), bool)
        return (self.known < 0.5) & ~np.isnan(self.wrong_probability)

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

    def columns(self) -> dict[str, np.ndarray]:
        """A table by columns `[M]`, in the order of the examples, with the names that cleanlab gives them.

        `is_label_issue` is `is_wrong`; `label_score` is the probability that the given label is right, low
        for what is to be looked at first (NaN where not judged); `given_label`, and `predicted_label`, which
        is `proposed`. `pandas.DataFrame(found.columns())` makes a frame of it.
        """
        return {
            "is_label_issue": self.is_wrong,
            "label_score": 1 - self.wrong_probability,
            "given_label": np.asarray(self.given),
            "predicted_label": self.proposed,
        }


def find_label_errors(
    labels: np.ndarray,
    noise_robust_logits: np.ndarray | None = None,
    imbalance_robust_logits: np.ndarray | None = None,
    other_logits: Sequence[np.ndarray] = (),
    *,
    pred_probs: np.ndarray | None = None,
    judged: np.ndarray | None = None,
    known_share: float | str = 1.0,
) -> LabelErrors:
    """Finds labels that are probably wrong.

    Args:
      labels: integer `[M]` in 0..C-1, as given.
      noise_robust_logits: floating `[M, C]`, f_N's logits for examples that it was not trained on; see
        `out_of_sample_logits`. The log of probabilities will do.
      imbalance_robust_logits: the same of f_L.
      other_logits: the same of any more models; all count alike.
      pred_probs: `[M, C]`, rows sum to 1: probabilities of one model, out of sample, in the place of all
        logits. Who has no f_N and f_L gets the same steps for the model there is; two that err differently
        tell more.
      judged: bool `[M]`, False where the models cannot know the class that is given, as that of the only
        example there is of it; all True if left out.
      known_share: share of the examples that are of a class, in (0, 1]; `estimated` to find it by
        `dsink_jax.estimate_known_share`. Below 1 logits count as they are, no log-probabilities: which
        examples are of none is told by the energies of f_N and f_L.

    Returns:
      The `LabelErrors`.

    Raises:
      InputError: if shapes do not go together, a prediction is not a number, or probabilities are where
        logits are expected or the other way round.

    Source: Q by D-SINK, arXiv 2510.08179; the mistaking of classes by the EM algorithm of Dawid and Skene,
    Applied Statistics 28, 1979, for one annotator. That P(given | true) is halfway to a common one was chosen
    on digits of other seeds than those reported, and on the natural sets.

    >>> import numpy as np
    >>> sure = np.log(np.array([[0.98, 0.02]] * 10 + [[0.02, 0.98]] * 10))
    >>> found = find_label_errors(np.array([0] * 9 + [1] * 11), sure, sure)
    >>> found.ranking[:1].tolist(), found.proposed[9].item()
    ([9], 0)
    """
    if pred_probs is not None:
        if noise_robust_logits is not None or imbalance_robust_logits is not None or len(other_logits):
            raise InputError("Give pred_probs or logits of models, not both.")
        if known_share != 1:
            raise InputError("known_share needs logits of f_N and f_L: probabilities do not tell energies.")
        models = [_checked(_log_of(pred_probs))]
    elif noise_robust_logits is None or imbalance_robust_logits is None:
        raise InputError("Give the logits of f_N and f_L, or pred_probs of one model.")
    else:
        models = [_checked(one) for one in (noise_robust_logits, imbalance_robust_logits, *other_logits)]
        _refuse_probabilities(noise_robust_logits, imbalance_robust_logits, *other_logits)
    if len({logits.shape for logits in models}) > 1:
        shapes = " and ".join(str(list(logits.shape)) for logits in models)
        raise InputError(f"The models' logits must have one shape [M, C], got {shapes}.")
    count, num_classes = models[0].shape
    if num_classes < 2:
        raise InputError("There must be at least 2 classes to mistake one for another, got 1.")
    labels = check_class_numbers(as_labels(labels), num_classes, "Labels")
    if len(labels) != count:
        raise InputError(f"There must be one label for each of {count} examples, got {len(labels)}.")
    if judged is not None and np.shape(judged) != (count,):
        raise InputError(
            f"judged must be one bool for each of {count} examples, got {list(np.shape(judged))}."
        )
    known = None
    if pred_probs is None:
        known = _known(noise_robust_logits, imbalance_robust_logits, known_share)
    together = sum(log_softmax(logits, axis=-1) for logits in models) / np.float32(len(models))
    model = fit_noise_model(together, labels, balanced=False)
    scaled = jnp.asarray(together / np.float32(model.temperature))
    surrogate = np.asarray(
        allocation.surrogate_labels(scaled, scaled, jnp.asarray(model.class_shares)).labels
    )
    noise = (1 - _COMMON) * model.transition_matrix + _COMMON * _common(model.transition_matrix, labels)
    probabilities = surrogate * noise.T[labels]
    probabilities /= np.maximum(probabilities.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    wrong = 1 - probabilities[np.arange(count), labels] * (1 if known is None else known)
    return LabelErrors(
        wrong_probability=wrong if judged is None else np.where(judged, wrong, np.float32("nan")),
        proposed=probabilities.argmax(-1).astype(np.int32),
        confidence=probabilities.max(-1),
        probabilities=probabilities,
        surrogate_labels=surrogate,
        class_marginal=model.class_shares,
        noise=noise,
        known=known,
        given=labels,
    )


def _known(noise_robust_logits, imbalance_robust_logits, share):
    """How far each example is known, by the energies of both models; None where all examples are."""
    if isinstance(share, str) and share == ESTIMATED:
        share = open_set.estimate_known_share(imbalance_robust_logits, noise_robust_logits)
    elif isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
        raise InputError(f"known_share must be in (0, 1] or {ESTIMATED!r}, got {share!r}.")
    elif share == 1:
        return None
    energies = open_set.energies(jnp.asarray(imbalance_robust_logits), jnp.asarray(noise_robust_logits))
    known = (
        jax.nn.sigmoid(energies - open_set.energy_level(energies, share))
        if share < 1
        else jnp.ones_like(energies)
    )
    return np.asarray(known, np.float32)


def _sum_to_one(values):
    return ((values >= 0) & (values <= 1)).all() and np.allclose(values.sum(-1), 1, atol=1e-3)


def _log_of(probabilities):
    """Their logarithms, or `InputError` for what are none."""
    values = as_array(probabilities, "pred_probs")
    if values.ndim != 2 or not values.size:
        raise InputError(f"pred_probs must be floating [M, C], got {values.dtype} {list(values.shape)}.")
    values = values.astype(np.float64)
    if not np.isnan(values).any() and not _sum_to_one(values):
        raise InputError(
            "pred_probs must be probabilities: in [0, 1], rows that sum to 1.\n"
            "Give logits, or logarithms of probabilities, as noise_robust_logits and imbalance_robust_logits."
        )
    return np.log(np.maximum(values, np.exp(_LEAST)))


def _refuse_probabilities(*models):
    """Logits whose rows all sum to 1 within [0, 1] are meant as something else."""
    for logits in models:
        values = as_array(logits, "logits").astype(np.float32)
        if values.shape[-1] > 1 and _sum_to_one(values):
            raise InputError(
                "These logits are probabilities: in [0, 1], rows that sum to 1.\n"
                "Give their logarithms, or pred_probs= where there is one model."
            )


def _checked(logits):
    logits = as_array(logits, "logits")
    if jnp.issubdtype(logits.dtype, jnp.floating) and logits.dtype.kind != "f":
        logits = logits.astype(np.float32)  # bfloat16 and float8, which NumPy knows only by name
    if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f":
        raise InputError(f"Logits must be floating [M, C], got {logits.dtype} {list(logits.shape)}.")
    bad = np.isnan(logits).any(-1) | (logits == np.inf).any(-1) | (logits == -np.inf).all(-1)
    if bad.any():
        raise InputError(f"The logits of example {int(bad.argmax())} hold NaN or are no prediction.")
    # What is said to be impossible is only next to it: two models may rule out every class between them.
    return np.maximum(logits - logits.max(-1, keepdims=True), _LEAST).astype(np.float32)


def _common(noise, labels):
    """P(given | true) `[C, C]` were all classes mistaken alike: as often, and for others in their shares."""
    num_classes = len(noise)
    given = np.bincount(labels, minlength=num_classes) / len(labels)
    kept, eye = np.trace(noise) / num_classes, np.eye(num_classes)
    others = (1 - eye) * np.maximum(given, np.finfo(np.float32).tiny)
    mistaken = (1 - kept) * others / others.sum(-1, keepdims=True)
    return (kept * eye + mistaken).astype(np.float32)
