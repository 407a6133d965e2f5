"""TABASCO: two networks, labels selected class by class in two ways, MixMatch."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import softmax, xlogy

from dsink_jax.methods.hooks import LooksAtFeatures
from dsink_jax.methods.mixmatch import MixMatch
from dsink_jax.methods.mixture import TwoGaussians, two_gaussians

_STEPS = 30  # of expectation-maximisation
_LEAST = 1e-30  # what probabilities are divided by, at least
# Published numbers of the decision between the two measures.
_LEAST_SPREAD = 0.65  # of WJSD in its upper component, in units of that in the lower
_SPREAD_OF_EQUAL = 0.1  # taken for a group whose WJSD are all equal
_SPREAD_OF_NONE = 1.0  # and for a component that neither group falls in
_NEAR = 0.1  # how near the similarity to another class comes to that to the own, as a share of it

Group = Literal["W1", "A1", "A2", "all"]


@dataclasses.dataclass(frozen=True)
class Tabasco(LooksAtFeatures, MixMatch):
    """TABASCO (Lu et al., ICCV 2023, arXiv 2208.09833): DivideMix with a selection made for long tails.

    After a warm-up of cross-entropy, before each epoch each network selects labels, for each given class
    apart, by two measures: how far its prediction is from the label, weighted (WJSD), and how close its
    feature is to what the class looks like to it (ACD); see `select`. Where predictions of a rare class have
    gone over to a frequent one, the right labels are those that look *unlike* the rest. Each network is
    trained on the other's selection as in `DivideMix`.

    Differences from the published code: those of `DivideMix`; and the mean feature is that of the training
    set itself, where the code takes another draw of it. The prediction is the mean of both networks' logits.

    Attributes:
      warmup: share of the training before the first selection, in (0, 1). Published: 10 of 100 epochs, 30 of
        100 with a hundred classes.
      lambda_u: weight of the unlabelled loss, at least 0.
      temperature: of the sharpening, positive.
      mix_alpha: coefficients are drawn from Beta(alpha, alpha), the larger of l and 1 - l taken; positive.
      clean_bound: probability from which a label counts as right, in [0, 1].
      ramp: share of the training in which lambda_u grows from 0, in (0, 1]. Published: 16 of 100 epochs.
      penalty: prior that the mean prediction is drawn to, `prior` or `uniform`; `none` for no penalty.
    """

    lambda_u: float = 25.0
    ramp: float = 0.16
    penalty: Literal["prior", "uniform", "none"] = "uniform"

    forward_passes = 12
    needs = ("features",)

    def refresh(self, logits, labels, example_state, shared_state, features=None):
        """Selects labels by each network."""
        columns = [select(logits[:, k], features[:, k], labels).probabilities for k in range(2)]
        return np.stack(columns, -1).astype(np.float32), shared_state


class Selection(NamedTuple):
    """Which labels one network believes.

    Attributes:
      probabilities: float64 `[M]`, that a label is right: the posterior of the component that was chosen in
        its class. Above one half it is selected.
      groups: for each class that has examples the group that was chosen, by class; see `select`.
    """

    probabilities: np.ndarray
    groups: dict[int, Group]


def select(logits: np.ndarray, features: np.ndarray, labels: np.ndarray) -> Selection:
    """Selects labels, for each given class apart, by two measures and what they say of each other.

    A mixture of two Gaussians is fitted to each measure within the class. Groups are W1, of the lower WJSD,
    A1, of the lower ACD, and A2, the rest. W1 is chosen where the mean WJSD of A1 and of A2 both fall in
    WJSD's upper component, or WJSD spreads much less there than in the lower one. Else the ACD decides: A1,
    which looks unlike the class, where its centroid is about as near to that of a class with more confident
    examples, which has then taken this one over; A2, which looks like it, everywhere else.

    Within a class whose examples are all equal by one measure the other decides; if they are by both, as a
    single one is, all are believed (`all`). The published code ends in NaN there.

    Args:
      logits: float `[M, C]`, one network's, of images that are not augmented.
      features: float `[M, D]`, what its last layer is given.
      labels: int `[M]`, given.

    Source: Lu et al., arXiv 2208.09833, as its code (Wakings/TABASCO) has it.
    """
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
    directions = normalized_features(features)
    classes = np.unique(labels)
    found = {c: class_centroid(probabilities[labels == c], directions[labels == c]) for c in classes}
    centroids = np.stack([found[c].centroid for c in classes])
    counts = np.array([found[c].confident for c in classes])
    taken_over = overtaken(centroids, counts)
    result, groups = np.ones(len(labels)), {}
    for position, c in enumerate(classes):
        own = labels == c
        wjsd = weighted_divergences(probabilities[own], c)
        acd = directions[own] @ centroids[position]
        groups[int(c)], result[own] = choose(
            two_gaussians(wjsd, _STEPS), two_gaussians(acd, _STEPS), bool(taken_over[position]), len(wjsd)
        )
    return Selection(result, groups)


def weighted_divergences(probabilities: np.ndarray, label: int) -> np.ndarray:
    """WJSD `[m]` of the examples given one class: w * JS(p, one-hot of the class).

    With q the probability of the class, JS = log 2 + (q log q - (1 + q) log(1 + q)) / 2. The weight w is how
    many times likelier the likeliest class is than this one, but not above the same of the mean prediction.

    Args:
      probabilities: float64 `[m, C]`, predictions for these examples.
      label: the class.
    """
    own = probabilities[:, label]
    divergence = np.log(2.0) + 0.5 * (xlogy(own, own) - xlogy(1.0 + own, 1.0 + own))
    mean = probabilities.mean(0)
    most = mean.max() / max(mean[label], _LEAST)
    return np.minimum(probabilities.max(-1) / np.maximum(own, _LEAST), most) * divergence


def normalized_features(features: np.ndarray) -> np.ndarray:
    """Features `[M, D]` without their mean, each of length 1; float64."""
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(0)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)


class ClassCentroid(NamedTuple):
    """What a class looks like.

    Attributes:
      centroid: float64 `[D]`, mean direction of the confident examples.
      confident: how many these are.
    """

    centroid: np.ndarray
    confident: int


def class_centroid(probabilities: np.ndarray, directions: np.ndarray) -> ClassCentroid:
    """Mean direction of the examples given one class that are confidently what most of them look like.

    Let k be the likeliest class of their mean prediction. Confident are those predicted k with a probability
    above its mean after each has been multiplied by max(1, its ratio to the plain mean). Where nobody is, all
    are taken.

    Args:
      probabilities: float64 `[m, C]`, predictions for these examples.
      directions: float64 `[m, D]`, their normalised features.
    """
    mean = probabilities.mean(0)
    k = mean.argmax()
    towards = probabilities[:, k]
    bound = (towards * np.maximum(1.0, towards / max(mean[k], _LEAST))).mean()
    confident = (probabilities.argmax(-1) == k) & (towards > bound)
    if not confident.any():
        confident[:] = True
    return ClassCentroid(directions[confident].mean(0), int(confident.sum()))


def overtaken(centroids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which classes look as another one does that has more confident examples: bool `[C]`.

    By the softmax over classes of products of centroids: the largest of another is within a tenth of the own.

    Args:
      centroids: float64 `[C, D]`, of the classes that have examples.
      counts: int `[C]`, of confident examples.
    """
    if len(counts) < 2:
        return np.zeros(len(counts), bool)
    similarity = softmax(centroids @ centroids.T, axis=-1)
    own = similarity.diagonal().copy()
    np.fill_diagonal(similarity, -1.0)
    nearest = similarity.argmax(-1)
    return (np.abs(own - similarity.max(-1)) < _NEAR * own) & (counts < counts[nearest])


def choose(
    wjsd: TwoGaussians | None, acd: TwoGaussians | None, is_overtaken: bool, count: int
) -> tuple[Group, np.ndarray]:
    """The group to select in one class, and for each of its examples the posterior of being in it, `[m]`.

    Args:
      wjsd: mixture of WJSD, None where all are equal.
      acd: mixture of ACD, likewise.
      is_overtaken: whether the class looks as another one does; see `overtaken`.
      count: m.
    """
    if acd is None:
        return ("all", np.ones(count)) if wjsd is None else ("W1", wjsd.lower)
    first = acd.lower > 0.5
    groups = {"A1": (first, acd.lower), "A2": (~first, 1.0 - acd.lower)}
    # A group that nobody is in is the other one.
    if first.all() or not first.any():
        groups = dict.fromkeys(groups, groups["A1" if first.all() else "A2"])
    if wjsd is not None and _wjsd_decides(wjsd, [members for members, _ in groups.values()]):
        return "W1", wjsd.lower
    chosen: Group = "A1" if is_overtaken else "A2"
    return chosen, groups[chosen][1]


def _wjsd_decides(wjsd, groups):
    """Whether WJSD tells right from wrong, by the WJSD of the two groups of the ACD."""
    spread = {True: _SPREAD_OF_NONE, False: _SPREAD_OF_NONE}  # of WJSD, in its lower component and the upper
    falls_in_lower = []
    for members in groups:
        values = wjsd.values[members]
        falls_in_lower.append(wjsd.is_lower(values.mean()))
        spread[falls_in_lower[-1]] = values.std() or _SPREAD_OF_EQUAL
    return not any(falls_in_lower) or spread[False] / spread[True] < _LEAST_SPREAD
