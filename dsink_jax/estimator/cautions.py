"""What a person should know of auxiliary models that have learned next to nothing."""

import warnings
from collections.abc import Mapping

import numpy as np

_WORDS = {"imbalance_robust": "f_L", "noise_robust": "f_N"}
_DEVIATIONS = 3  # above chance, to be sure of it


def warn_of_hopeless(labels: np.ndarray, logits: Mapping[str, np.ndarray]) -> None:
    """Warns where a model predicts the labels that it was trained on no better than chance.

    Its balanced accuracy on them is then within three standard errors of that of guessing.

    Args:
      labels: int `[M]`, as observed.
      logits: of the auxiliary models for the training set, `[M, C]`, by role.
    """
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    for role, predicted in logits.items():
        right = np.bincount(index, predicted.argmax(-1) == labels) / counts
        chance = 1 / len(classes)
        error = np.sqrt((chance * (1 - chance) / counts).sum()) / len(classes)
        if right.mean() < chance + _DEVIATIONS * error:
            warnings.warn(
                f"{_WORDS[role]} predicts the labels that it was trained on no better than chance: balanced "
                f"accuracy {100 * right.mean():.0f} %, by guessing {100 * chance:.0f} %. The target learns "
                "from it. Do the inputs belong to these labels? If so, train longer (epochs=), change "
                "learning_rate= or choose another method.",
                stacklevel=3,
            )
