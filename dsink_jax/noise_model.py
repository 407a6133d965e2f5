"""What given labels say of models, and models of given labels: noise, true shares, and who is to be believed.

A model's predictions for examples that it has not seen are held against the labels that were given. How
classes are mistaken for one another, P(given | true), and how often each true class occurs are found by
expectation maximisation, and the likelihood of the given labels then says how good the model is. No clean
label is needed: a model that repeats the noise of the labels gains nothing over one that sees through it, as
the noise has a model of its own.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.array_checks import check_arrays

TEMPERATURES = (4.0, 2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 1 / 3, 0.25, 1 / 6, 1 / 9)
_ITERATIONS = 40
_LEAST_LOGIT = -30.0  # next to its row's largest: a model may rule a class out in error
_LEAST = 1e-9  # of a probability
_FEW_CLASSES = 64
_LARGEST = 2**22  # numbers M C by which the temperature is chosen; of more, evenly spaced rows


class NoiseModel(NamedTuple):
    """How labels came about, by a model's predictions. Arrays of NumPy.

    Attributes:
      score: nats: the mean log-likelihood of the given labels, plus its gain over their shares as a mean over
        the given classes, weighted by the roots of their shares. So rare classes count, though not as much
        as frequent ones. Differences tell which model is better.
      temperature: what the logits are divided by here: the labels are then most likely.
      score_temperature: what they would be divided by for the best score, which is that of `score`.
      class_shares: float32 `[C]`, shares of the true classes.
      transition_matrix: float32 `[C, C]`, P(given | true), rows sum to 1.
      predictions: float32 `[M, C]`, P(true | example), moved to the class shares.
      probabilities: float32 `[M, C]`, P(true | example, given label).
    """

    score: float
    temperature: float
    score_temperature: float
    class_shares: np.ndarray
    transition_matrix: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray


def fit_noise_model(logits: Any, labels: Any, *, balanced: bool) -> NoiseModel:
    """Finds the noise of given labels by the predictions of a model that has not seen them.

    Args:
      logits: floating `[M, C]`, for examples that the model was not trained on. Minus infinity is taken for
        next to impossible.
      labels: integer `[M]` in 0..C-1, as given.
      balanced: whether the model's predictions count all classes alike, as those of logit adjustment do: then
        they are brought to the shares of the true classes by Bayes' rule. Otherwise the column of each class
        is scaled so that the mean prediction is these shares, whatever prior the model has: D-SINK's
        transport.

    Returns:
      The `NoiseModel` of the temperature, among `TEMPERATURES`, under which the labels are most likely.

    Raises:
      ValueError: for arrays that do not go together.

    Source: the EM algorithm of Dawid and Skene, Applied Statistics 28, 1979, for one annotator; of Saerens,
    Latinne and Decaestecker, Neural Computation 14, 2002, for the shares; the transport of D-SINK, arXiv
    2510.08179; temperature scaling, Guo et al., ICML 2017, arXiv 1706.04599.

    >>> import numpy as np
    >>> sure = 4.0 * np.eye(2)[[0] * 6 + [1] * 4]
    >>> found = fit_noise_model(sure, np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]), balanced=True)
    >>> found.class_shares.argmax().item(), found.probabilities[5].argmax().item()
    (0, 0)
    """
    check_arrays(logits=logits, labels=labels)
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(logits, labels)
    wide = logits.astype(np.promote_types(logits.dtype, np.float32), copy=False)
    with np.errstate(over="ignore"):
        logits = np.maximum(wide - wide.max(-1, keepdims=True), _LEAST_LOGIT).astype(np.float32)
    some = slice(None, None, max(logits.size // _LARGEST, 1))
    fits = _fit_each(*_filled(logits[some], labels[some]), np.asarray(TEMPERATURES, np.float32), balanced)
    best, scores = int(np.argmax(fits.likelihood)), np.asarray(fits.likelihood + fits.by_class)
    if len(logits[some]) < len(logits):
        only = np.asarray(TEMPERATURES[best : best + 1], np.float32)
        fits, best = _fit_each(*_filled(logits, labels), only, balanced), 0
    found = jax.device_get(jax.tree.map(lambda each: each[best], fits))
    filled, given, _ = _filled(logits, labels)
    scaled = filled / np.float32(found.temperature)
    predictions, probabilities = jax.device_get(_explain_all(scaled, given, found.offset, found.matrix))
    return NoiseModel(
        score=float(scores.max()),
        temperature=float(found.temperature),
        score_temperature=TEMPERATURES[int(scores.argmax())],
        class_shares=found.shares,
        transition_matrix=found.matrix,
        predictions=predictions[: len(labels)],
        probabilities=probabilities[: len(labels)],
    )


def _check(logits, labels):
    if logits.ndim != 2 or 0 in logits.shape or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"Logits must be [M, C] and labels [M], got {list(logits.shape)} and {list(labels.shape)}."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"Logits must be floating, got {logits.dtype}.")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"Labels must be in [0, {logits.shape[1]}), got {labels.min()} to {labels.max()}.")
    usable = np.isfinite(logits.max(-1))
    if not usable.all():
        raise ValueError(
            "Logits must hold no NaN nor plus infinity, and one that is finite in each row; others are "
            f"first in row {usable.argmin()}."
        )


def _filled(logits, labels):
    """Rows filled up, so that sets of about the same size share a program, and which of them are real."""
    count = len(labels)
    missing = _rounded_up(count) - count
    rows = np.concatenate([logits, np.zeros((missing, logits.shape[1]), np.float32)])
    given = np.concatenate([labels, np.zeros(missing, labels.dtype)]).astype(np.int32)
    return rows, given, (np.arange(count + missing) < count).astype(np.float32)


def _rounded_up(count):
    """At most an eighth more, one of a few numbers."""
    unit = 2 ** max(count.bit_length() - 4, 0)
    return -(-count // unit) * unit


class _Fit(NamedTuple):
    """What is found at one temperature: see `NoiseModel`; `offset` `[C]` is added to the logits."""

    temperature: jax.Array
    likelihood: jax.Array
    by_class: jax.Array
    shares: jax.Array
    offset: jax.Array
    matrix: jax.Array


@partial(jax.jit, static_argnames="balanced")
def _fit_each(logits, labels, valid, temperatures, balanced):
    return jax.lax.map(lambda one: _Fit(one, *_fit(logits / one, labels, valid, balanced)), temperatures)


def _explain(logits, labels, offset, matrix):
    """P(true | example) and P(true | example, given label), both `[M, C]`."""
    predictions = jax.nn.softmax(logits + offset[None], axis=-1)
    joint = predictions * matrix.T[labels]
    return predictions, joint / jnp.maximum(joint.sum(-1, keepdims=True), jnp.finfo(joint.dtype).tiny)


_explain_all = jax.jit(_explain)


def _fit(logits, labels, valid, balanced):
    num_classes = logits.shape[-1]
    count = valid.sum()
    given = jnp.zeros(num_classes, jnp.float32).at[labels].add(valid) / count
    seen = given > 0
    eye = jnp.eye(num_classes, dtype=jnp.float32)

    def mean(rows):
        return (valid[:, None] * rows).sum(0) / count

    def matrix_of(probabilities):
        weighted = valid[:, None] * probabilities
        if num_classes <= _FEW_CLASSES:  # a product is the faster sum where there are few
            one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
            together = jnp.matmul(weighted.T, one_hot, precision=jax.lax.Precision.HIGHEST)
        else:
            together = jnp.zeros((num_classes, num_classes), jnp.float32).at[labels].add(weighted).T
        # What all classes have in common stands in for two examples of each: a rare one has few of its own.
        kept = jnp.trace(together) / count
        together += 2 * (kept * eye + (1 - kept) * (1 - eye) * given[None]) + _LEAST * eye
        # Classes are told apart by their labels alone: each is given its own as often as any other, or else
        # models that know little would have all of them exchanged.
        together = jnp.where(eye > 0, together.max(-1, keepdims=True), together)
        return together / together.sum(-1, keepdims=True)

    def step(_, state):
        shares, offset, matrix = state
        predictions, probabilities = _explain(logits, labels, offset, matrix)
        shares = 0.5 * (shares + mean(probabilities))
        log_shares = jnp.log(jnp.maximum(shares, _LEAST))
        if balanced:
            offset = log_shares
        else:
            offset += log_shares - jnp.log(jnp.maximum(mean(predictions), _LEAST))
        return shares, offset, matrix_of(probabilities)

    start = given, jnp.log(jnp.maximum(given, _LEAST)), 0.7 * eye + 0.3 * given[None]
    shares, offset, matrix = jax.lax.fori_loop(0, _ITERATIONS, step, start)
    predictions, _ = _explain(logits, labels, offset, matrix)
    likely = (predictions * matrix.T[labels]).sum(-1)
    log_likelihood = valid * jnp.log(jnp.maximum(likely, _LEAST))
    of_class = jnp.zeros(num_classes, jnp.float32).at[labels].add(log_likelihood) / jnp.maximum(
        given * count, 1
    )
    gain = jnp.where(seen, of_class - jnp.log(jnp.where(seen, given, 1.0)), 0.0)
    root = jnp.sqrt(given)
    by_class = (root * gain).sum() / root.sum()
    return log_likelihood.sum() / count, by_class, shares, offset, matrix
