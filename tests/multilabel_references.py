"""Problems with several labels an example, and independent solutions of them in float64."""

import numpy as np
import ot
import scipy.optimize
from scipy.special import expit


def draw_problem(num_examples, num_labels, scale, seed=0):
    """Logits of f and f_N that mostly agree, those of f_L, and f_L's mean; most labels are rare."""
    rng = np.random.default_rng(seed)
    shape = (num_examples, num_labels)
    base = scale * rng.standard_normal(shape) - np.linspace(0, 4, num_labels)
    logits = [(base + scale / 5 * rng.standard_normal(shape)).astype(np.float32) for _ in range(3)]
    return *logits, expit(np.float64(logits[2])).mean(0).astype(np.float32)


def scores_of(logits, noise_robust_logits):
    return (np.float64(logits) + np.float64(noise_robust_logits)) / 2


def root_of(scores, mean):
    """b with mean_i sigmoid(scores_i + b) = mean, by Brent's method."""
    edge = np.log(mean / (1 - mean))
    ends = edge - scores.max() - 1e-6, edge - scores.min() + 1e-6
    return scipy.optimize.brentq(lambda b: expit(scores + b).mean() - mean, *ends, xtol=1e-12, rtol=1e-14)


def reference_labels(logits, noise_robust_logits, marginal):
    scores = scores_of(logits, noise_robust_logits)
    return np.stack(
        [expit(s + root_of(s, m)) for s, m in zip(scores.T, np.float64(marginal), strict=True)], axis=1
    )


def pot_labels(logits, noise_robust_logits, marginal):
    """Each label's transport to two columns, "has it" and "has it not"."""
    found = []
    for z, n, m in zip(np.float64(logits).T, np.float64(noise_robust_logits).T, marginal, strict=True):
        has = np.logaddexp(0, -z) + np.logaddexp(0, -n)
        has_not = np.logaddexp(0, z) + np.logaddexp(0, n)
        plan = ot.sinkhorn(
            np.full(len(z), 1 / len(z)),
            np.array([m, 1 - np.float64(m)]),
            np.stack([has, has_not], axis=1),
            2.0,
            method="sinkhorn_log",
            stopThr=1e-13,
            numItermax=20_000,
        )
        found.append(len(z) * plan[:, 0])
    return np.stack(found, axis=1)


def shifted_marginal(marginal, total):
    """The marginal whose log-odds are moved by one number so that it sums to the total."""
    odds = np.log(np.float64(marginal)) - np.log1p(-np.float64(marginal))
    shift = scipy.optimize.brentq(lambda a: expit(odds + a).sum() - total, -100, 100, xtol=1e-13)
    return expit(odds + shift)


def counted_labels(logits, noise_robust_logits, marginal, counts, sweeps=300):
    """Rows that sum to the counts and columns with the marginal, by alternating Brent's roots."""
    scores = scores_of(logits, noise_robust_logits)
    counts = np.float64(counts)
    marginal = shifted_marginal(marginal, counts.mean())
    fixed = (counts == 0) | (counts == scores.shape[1])
    certain = np.where(counts == 0, 0.0, 1.0)[:, None] * np.ones(scores.shape[1])
    free_mean = (marginal * len(scores) - certain[fixed].sum(0)) / (~fixed).sum()
    rows, columns = np.zeros(len(scores)), np.zeros(len(marginal))
    for _ in range(sweeps):
        for c in range(len(columns)):
            columns[c] = root_of((scores[:, c] + rows)[~fixed], free_mean[c])
        before = rows.copy()
        for i in np.flatnonzero(~fixed):
            rows[i] = root_of(scores[i] + columns, counts[i] / len(columns))
        if np.abs(rows - before).max() < 1e-10:
            return np.where(fixed[:, None], certain, expit(scores + rows[:, None] + columns))
    raise AssertionError("the reference did not converge")
