"""What the tests of the losses share."""

import numpy as np


def numerical_gradient(function, x, step=1e-5):
    """Central differences of a scalar function, float64."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        offset = np.zeros_like(x)
        offset[index] = step
        gradient[index] = (function(x + offset) - function(x - offset)) / (2 * step)
    return gradient
