"""A mixture of two Gaussians of one number an example, by which labels are divided."""

import warnings
from typing import Any, NamedTuple

import numpy as np


class TwoGaussians(NamedTuple):
    """A fitted mixture.

    Attributes:
      values: float64 `[M]`, what it was fitted to: the numbers, the least 0 and the largest 1.
      lower: float64 `[M]`, posterior of the component with the lower mean.
      mixture: scikit-learn's.
    """

    values: np.ndarray
    lower: np.ndarray
    mixture: Any

    def is_lower(self, value: float) -> bool:
        """Whether one more number, scaled as the others are, falls in the component with the lower mean."""
        return bool(self.mixture.predict([[value]])[0] == self.mixture.means_.argmin())


def two_gaussians(numbers: np.ndarray, max_iter: int) -> TwoGaussians | None:
    """Fits a mixture of two Gaussians by expectation-maximisation.

    Args:
      numbers: float `[M]`.
      max_iter: steps at most, converged or not.

    Returns:
      The mixture; None where all numbers are equal, and there is nothing to divide by.

    Source: the limits of the fit are those that the code of DivideMix (Li et al., arXiv 2002.07394) and of
    TABASCO (Lu et al., arXiv 2208.09833) share; only the number of steps differs.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    low, high = numbers.min(), numbers.max()
    if not high > low:
        return None
    scaled = ((numbers - low) / (high - low)).reshape(-1, 1).astype(np.float64)
    mixture = GaussianMixture(2, max_iter=max_iter, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():
        # So many steps are what a method takes, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(scaled)
    posterior = mixture.predict_proba(scaled)
    return TwoGaussians(scaled[:, 0], posterior[:, mixture.means_.argmin()], mixture)
