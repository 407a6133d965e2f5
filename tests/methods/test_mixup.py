"""Mixup."""

import jax
import numpy as np
import pytest

from method_references import (
    EXAMPLES,
    LABELS,
    build,
    context,
    cross_entropy,
    full_batch,
    loss_of,
    prepared,
    rows,
)


@pytest.mark.parametrize("key", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_inputs_and_values_by_hand(key, alpha):
    method = build("mixup", alpha=alpha)
    batch = prepared(method, full_batch(), key=key)
    # As the method draws them.
    coefficient_key, partner_key = jax.random.split(jax.random.key(key))
    coefficient = float(jax.random.beta(coefficient_key, alpha, alpha))
    partner = np.asarray(jax.random.permutation(partner_key, EXAMPLES))
    assert 0 < coefficient < 1
    inputs = np.asarray(full_batch().inputs, np.float64)
    expected = coefficient * inputs + (1 - coefficient) * inputs[partner]
    np.testing.assert_allclose(batch.prepared, expected, rtol=1e-5, atol=1e-6)
    # What else is in the batch stays.
    np.testing.assert_array_equal(batch.inputs, full_batch().inputs)
    np.testing.assert_array_equal(batch.labels, LABELS)

    logits = rows(6)
    expected = coefficient * cross_entropy(logits)
    expected += (1 - coefficient) * cross_entropy(logits, LABELS[partner])
    np.testing.assert_allclose(loss_of(method, logits, batch=batch).values, expected, rtol=1e-5, atol=1e-6)


def test_coefficients_are_those_of_the_distribution():
    """One uniform number for each batch with alpha 1; near 0 and 1 with a small alpha."""

    def coefficients(alpha):
        method = build("mixup", alpha=alpha)

        def of_key(key):
            return method.prepare(full_batch(), (), None, key, context(method)).extra[0]

        return np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(0), 4000)))

    uniform, extreme = coefficients(1.0), coefficients(0.1)
    assert abs(uniform.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / 4000)
    assert abs(uniform.var() - 1 / 12) < 0.005
    # Var of Beta(a, a) is 1 / (4 (2a + 1)).
    assert abs(extreme.var() - 1 / 4.8) < 0.01
