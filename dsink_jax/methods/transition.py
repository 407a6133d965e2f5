"""What the predictions of a half-trained model tell about label noise. NumPy and SciPy only."""

import numpy as np
from scipy.special import softmax


def estimate_transition_matrix(logits: np.ndarray, labels: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """P(observed j | true i), from the examples that the model is confident about.

    Of the examples predicted as i, those with at least the mean confidence of their kind are taken for true
    members of i; their observed labels are counted. Right as far as confident predictions are, so it wants a
    model that has learned the classes and not yet memorised wrong labels. A row with few members is drawn
    towards the diagonal by `smoothing` examples counted as right.

    Args:
      logits: float `[M, C]`, on the training set.
      labels: integer `[M]`, observed labels.
      smoothing: examples added to each diagonal entry, positive.

    Returns:
      float64 `[C, C]`, rows summing to 1.

    Source: in the manner of confident learning (Northcutt et al., JAIR 2021, arXiv 1911.00068) with predicted
    in place of observed classes; Patrini et al. (arXiv 1609.03683) read the same matrix off single
    probabilities.

    >>> logits = np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    >>> estimate_transition_matrix(logits, np.array([0, 0, 1, 1])).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    num_classes = logits.shape[-1]
    confidence = softmax(logits.astype(np.float64), axis=-1).max(-1)
    predicted = logits.argmax(-1)
    matrix = smoothing * np.eye(num_classes)
    for c in range(num_classes):
        members = np.flatnonzero(predicted == c)
        if len(members):
            # Against rounding, so that equal confidences are all kept.
            bound = confidence[members].mean() * (1 - 1e-9)
            sure = members[confidence[members] >= bound]
            matrix[c] += np.bincount(labels[sure], minlength=num_classes)
    return matrix / matrix.sum(-1, keepdims=True)


def estimate_noise_rate(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of wrong labels in [0, 1]: 1 - the transition matrix's diagonal, weighted by predicted classes.

    >>> logits = np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    >>> round(estimate_noise_rate(logits, np.array([0, 0, 1, 1])), 4)
    0.1875
    """
    matrix = estimate_transition_matrix(logits, labels)
    shares = np.bincount(logits.argmax(-1), minlength=logits.shape[-1]) / len(labels)
    return float(1.0 - shares @ np.diag(matrix))
