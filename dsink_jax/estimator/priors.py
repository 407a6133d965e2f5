"""Which shares of the classes predictions are for, as a person says it and as predictions need it."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from dsink_jax.errors import InputError

# "balanced": all classes alike; "estimated": the shares found in the training set; or shares [C].
Prior = Literal["balanced", "estimated"] | np.ndarray

_WORDS = ("balanced", "estimated")
_FORMS = 'It must be "balanced", "estimated" or an array [C] of class shares.'


def check_prior(prior: Any, num_classes: int, *, several_labels: bool = False) -> Prior:
    """The prior as it is kept: one of the words, or shares float64 `[C]` that sum to 1 and cannot be changed.

    Args:
      prior: `balanced`, `estimated`, or numbers `[C]` of at least 0, not all 0; any positive multiple is as
        good.
      num_classes: C.
      several_labels: whether examples may have several: then each share is that of the examples with the
        label, in (0, 1), and counts as it is.

    Raises:
      InputError: for anything else.

    >>> check_prior([3, 1], 2).tolist()
    [0.75, 0.25]
    """
    if isinstance(prior, str):
        if prior not in _WORDS:
            raise InputError(f"Unknown prior {prior!r}. {_FORMS}")
        return "balanced" if prior == "balanced" else "estimated"
    try:
        shares = np.asarray(prior)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"The prior is not one array: {error}") from None
    if not (shares.dtype.kind in "iu" or jnp.issubdtype(shares.dtype, jnp.floating)):
        shown = f"an array of {shares.dtype}" if shares.ndim else repr(prior)
        raise InputError(f"The prior cannot be {shown}. {_FORMS}")
    if shares.shape != (num_classes,):
        raise InputError(
            f"The prior must be one share for each of {num_classes} classes, got {list(shares.shape)}."
        )
    shares = shares.astype(np.float64)
    bad = ~np.isfinite(shares) | (shares < 0)
    if bad.any():
        raise InputError(
            f"The shares of a prior must be finite and at least 0, got {shares[bad][0]} for class "
            f"{int(bad.argmax())}."
        )
    if several_labels:
        if not ((shares > 0) & (shares < 1)).all():
            raise InputError("Of several labels the shares of a prior must be in (0, 1).")
        shares.flags.writeable = False
        return shares
    if not shares.any():
        raise InputError("The shares of a prior cannot all be 0.")
    shares /= shares.max()  # their sum alone could be too large
    shares /= shares.sum()
    shares.flags.writeable = False
    return shares


def convert_several(balanced_logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Logits float32 `[M, C]` for shares `[C]` of the examples with each label, from balanced ones.

    Source: as for `convert`, each label being a problem of two classes.
    """
    shares = np.clip(np.asarray(shares, np.float64), np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).eps)
    return balanced_logits + (np.log(shares) - np.log1p(-shares)).astype(np.float32)


def convert(balanced_logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Logits float32 `[M, C]` for shares `[C]` of the classes, from those that count all classes alike.

    Source: Bayes' rule; Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, equation 2.4.
    """
    possible = shares > 0
    log_shares = np.log(np.where(possible, shares, 1.0)).astype(np.float32)
    return np.where(possible, balanced_logits + log_shares, np.float32("-inf"))
