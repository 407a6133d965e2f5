"""What scikit-learn's checks of features leave out: frames with categories."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_X_y, validate_data

from dsink_jax.estimator.arrays import as_columns, has_categories
from dsink_jax.estimator.inputs import InputKind, check_columns

KEPT = (np.float64, np.float32)  # float32 alone would lose how dates in seconds differ


def check_features(estimator: Any, X: Any, y: Any = None, *, reset: bool) -> Any:
    """Features as float32 or float64 `[M, D]`, and with labels these too, as `validate_data` gives them.

    Categories of a frame become columns of 0 and 1 here, the same in every call as in that of `fit`.

    Args:
      estimator: whose names and number of columns are kept, or compared.
      X: features `[M, D]`.
      y: labels, which `fit` needs; None for a prediction.
      reset: whether they are those of `fit`.

    Raises:
      ValueError: for anything else, or columns that are not those of `fit`.
    """
    how = {"ensure_min_samples": 2, "multi_output": True} if reset else {}
    before = () if reset else getattr(estimator, "_made_of", ())
    if not before and not has_categories(X):
        if reset:
            estimator._made_of = ()
        given = {"y": y} if reset else {}
        return validate_data(estimator, X, dtype=KEPT, reset=reset, **given, **how)
    validate_data(estimator, X, skip_check_array=True, reset=reset)  # names and number of columns
    array, columns = as_columns(X, "features")
    if reset:
        estimator._made_of = columns
    else:
        check_columns(columns, InputKind(array.shape[1:], str(array.dtype), before or columns))
    if not reset:
        return check_array(array, dtype=KEPT)
    return check_X_y(array, y, dtype=KEPT, **how)
