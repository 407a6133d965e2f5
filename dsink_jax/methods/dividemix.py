"""DivideMix: two networks, a mixture model of their losses, MixMatch."""

import dataclasses

import numpy as np

from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.mixmatch import MixMatch
from dsink_jax.methods.mixture import two_gaussians


@dataclasses.dataclass(frozen=True)
class DivideMix(MixMatch):
    """DivideMix (Li et al., ICLR 2020, arXiv 2002.07394).

    After a warm-up of cross-entropy, before each epoch a mixture of two Gaussians is fitted to each network's
    losses on the training set; the component of small losses gives the probability that a label is right.
    Each network is trained on the other's division: labels that are probably right are refined, the others
    replaced, by the networks' sharpened predictions on two views; pairs are mixed.

    Differences from the published code: both networks are trained in the same step and guess in evaluation
    mode; labelled and unlabelled examples come as the batch has them, not as many of each; the warm-up trains
    on both views, without a penalty of confidence; the prior of the penalty is the class prior methods may
    know (`penalty` uniform is the published one, wrong on long tails).
    The prediction is the mean of both networks' logits.

    Attributes:
      warmup: share of the training before the first division, in (0, 1).
      lambda_u: weight of the unlabelled loss, at least 0. Published values go from 0 to 150 by noise; the one
        default is ours, chosen on long-tailed, mislabelled digits, where 25 lost the rare classes.
      temperature: of the sharpening, positive.
      mix_alpha: coefficients are drawn from Beta(alpha, alpha), the larger of l and 1 - l taken; positive.
      clean_bound: probability from which a label counts as right, in [0, 1].
      ramp: share of the training in which lambda_u grows from 0, in (0, 1].
      penalty: prior that the mean prediction is drawn to, `prior` or `uniform`; `none` for no penalty.
    """

    forward_passes = 10

    def refresh(self, logits, labels, example_state, shared_state):
        """Divides the training set by each network's losses."""
        columns = [probably_clean(np.asarray(integer_cross_entropy(logits[:, k], labels))) for k in range(2)]
        return np.stack(columns, -1), shared_state


def probably_clean(losses: np.ndarray) -> np.ndarray:
    """Probability that each label is right: the posterior of the small-loss one of two Gaussians.

    Args:
      losses: float `[M]`, each example's loss.

    Returns:
      float32 `[M]` in [0, 1]; 1 where all losses are equal.

    Source: Li et al., arXiv 2002.07394, section 3.1; limits of the fit as in its code.
    """
    mixture = two_gaussians(losses, max_iter=10)
    return np.ones(len(losses), np.float32) if mixture is None else mixture.lower.astype(np.float32)
