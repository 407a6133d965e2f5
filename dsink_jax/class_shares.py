"""How often each true class occurs in data whose labels are partly wrong, from what models say of it.

NumPy only: a program would be compiled for every number of examples, and products of a matrix and a vector
are all there is to do.
"""

from typing import Any

import numpy as np

from dsink_jax.array_checks import check_arrays

_ITERATIONS = 50
_LEAST = np.float32(1e-12)  # a share of exactly 0 would stay such, whatever the examples are


def estimate_class_shares(balanced_logits: Any, noise_robust_logits: Any) -> np.ndarray:
    """Estimated shares of the true classes, float32 `[C]`, summing to 1.

    The mean of two estimates: (a) f_N's mean prediction, which gives frequent classes some of what rare ones
    have, and (b) the shares pi under which a model that counts all classes alike explains the examples best:
    pi <- the mean over the examples of normalise(softmax(balanced_logits) * pi), a fixed number of times from
    (a) on.

    Args:
      balanced_logits: floating `[M, C]`, logits of a model whose prediction counts all classes alike, such as
        f_L's, for M >= 1 examples.
      noise_robust_logits: floating `[M, C]`, f_N's for the same examples.

    Raises:
      ValueError: unless both are arrays of one shape `[M, C]`.

    Source: (b) is the EM algorithm of Saerens, Latinne and Decaestecker, Neural Computation 14, 2002.

    >>> import numpy as np
    >>> sure = np.log(np.array([[0.999, 0.001]] * 3 + [[0.001, 0.999]]))
    >>> estimate_class_shares(sure, sure).round(2).tolist()
    [0.75, 0.25]
    """
    check_arrays(balanced_logits=balanced_logits, noise_robust_logits=noise_robust_logits)
    shape, other = balanced_logits.shape, noise_robust_logits.shape
    if len(shape) != 2 or 0 in shape or other != shape:
        raise ValueError(f"Both logits must have one shape [M, C], got {list(shape)} and {list(other)}.")
    found = _softmax(noise_robust_logits).mean(0)
    return ((found + _likeliest(_softmax(balanced_logits), found)) / 2).astype(np.float32)


def _softmax(logits):
    logits = np.asarray(logits, np.float32)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _likeliest(posterior, shares):
    """Shares `[C]` from others on, by the posterior `[M, C]` of a model that counts all classes alike."""
    shares = np.maximum(shares, _LEAST)
    for _ in range(_ITERATIONS):
        # The mean of normalise(posterior * shares), without an array [M, C] of its own.
        shares = shares * ((1 / (posterior @ shares)) @ posterior)
        shares = np.maximum(shares / shares.sum(), _LEAST)
    return shares
