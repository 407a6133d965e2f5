"""Baselines made of two trained auxiliary models, without training a third. NumPy and SciPy only."""

import dataclasses

import numpy as np
from scipy.special import log_softmax

from dsink_jax.methods.base import TrainingFacts


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The mean of both auxiliary models' probabilities."""

    def combine(
        self,
        noise_robust: np.ndarray,
        imbalance_robust: np.ndarray,
        training_noise_robust: np.ndarray,
        facts: TrainingFacts,
    ) -> np.ndarray:
        """Logits `[M, C]` of the combination.

        Args:
          noise_robust: float `[M, C]`, logits of f_N.
          imbalance_robust: float `[M, C]`, logits of f_L.
          training_noise_robust: float `[T, C]`, logits of f_N on the training set; not used.
          facts: of the training set; not used.
        """
        del training_noise_robust, facts
        return np.logaddexp(_log_softmax(noise_robust), _log_softmax(imbalance_robust)) - np.log(2.0)


@dataclasses.dataclass(frozen=True)
class AdjustedNoiseRobust:
    """f_N with its logits adjusted after training: the cheap cure of imbalance.

    Post-hoc logit adjustment (Menon et al., ICLR 2021, arXiv 2007.07314) of the noise-robust model, by the
    mean prediction of f_N on the training set, which is closer to the true shares than counts of wrong labels
    are; or by the class prior that methods know. A class without examples is left as it is: nothing is known
    to lift it by.

    Attributes:
      prior: `predicted`, or `counts`.
      tau: strength, at least 0.
    """

    prior: str = "predicted"
    tau: float = 1.0

    def combine(
        self,
        noise_robust: np.ndarray,
        imbalance_robust: np.ndarray,
        training_noise_robust: np.ndarray,
        facts: TrainingFacts,
    ) -> np.ndarray:
        """Logits `[M, C]`; arguments as for `Ensemble.combine`, f_L's are not used."""
        del imbalance_robust
        seen = np.asarray(facts.class_counts) > 0
        if self.prior == "predicted":
            log_prior = np.logaddexp.reduce(_log_softmax(training_noise_robust)) - np.log(
                len(training_noise_robust)
            )
        else:
            log_prior = np.log(np.where(seen, np.asarray(facts.class_prior, np.float64), 1.0))
        return _log_softmax(noise_robust) - self.tau * np.where(seen, log_prior, 0.0)


def _log_softmax(logits):
    return log_softmax(np.asarray(logits, np.float64), axis=-1)
