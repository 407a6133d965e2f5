"""Mixup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from method_references import EXAMPLES, LABELS, build, cross_entropy, full_batch, prepared, rows


def draws(key, alpha=1.0):
    """Coefficient and partners of a key, as the method draws them."""
    coefficient_key, partner_key = jax.random.split(jax.random.key(key))
    coefficient = float(jax.random.beta(coefficient_key, alpha, alpha))
    return coefficient, np.asarray(jax.random.permutation(partner_key, EXAMPLES))


@pytest.mark.parametrize("key", [0, 1, 2])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_inputs_and_values_by_hand(key, alpha):
    method = build("mixup", mixup_alpha=alpha)
    batch = prepared(method, full_batch(), key=key)
    coefficient, partner = draws(key, alpha)
    assert 0 < coefficient < 1 and sorted(partner) == list(range(EXAMPLES))
    images = np.asarray(full_batch().images, np.float64)
    expected = coefficient * images + (1 - coefficient) * images[partner]
    np.testing.assert_allclose(batch.inputs, expected, rtol=1e-5, atol=1e-6)
    # What else is in the batch stays.
    np.testing.assert_array_equal(batch.images, full_batch().images)
    np.testing.assert_array_equal(batch.labels, LABELS)

    logits = rows(6)
    output = method.loss(jnp.asarray(logits), batch, (), epoch=jnp.float32(0), axis_name=None)
    expected = coefficient * cross_entropy(logits)
    expected += (1 - coefficient) * cross_entropy(logits, LABELS[partner])
    np.testing.assert_allclose(output.values, expected, rtol=1e-5, atol=1e-6)


def test_other_keys_mix_otherwise():
    method = build("mixup")
    inputs = [np.asarray(prepared(method, full_batch(), key=key).inputs) for key in range(4)]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(inputs) for b in inputs[:i])


def test_coefficients_are_those_of_the_distribution():
    """One uniform number for each batch with alpha 1; near 0 and 1 with a small alpha."""
    batch = full_batch()

    def coefficients(alpha):
        method = build("mixup", mixup_alpha=alpha)

        def of_key(key):
            networks = None  # not asked
            return method.prepare(batch, (), networks, key, epoch=0.0, axis_name=None).extra[0]

        return np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(0), 4000)))

    uniform, extreme = coefficients(1.0), coefficients(0.1)
    assert abs(uniform.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / 4000)
    assert abs(uniform.var() - 1 / 12) < 0.005
    # Var of Beta(a, a) is 1 / (4 (2a + 1)).
    assert abs(extreme.var() - 1 / 4.8) < 0.01


def test_split_over_devices_mixes_the_same_pairs(cpus):
    method = build("mixup")
    whole = prepared(method, full_batch(), key=3)
    logits = jnp.asarray(rows(6))

    def one_device(images, labels, logits):
        batch = full_batch()._replace(images=images, labels=labels)
        batch = prepared(method, batch, key=3, axis_name="devices")
        output = method.loss(logits, batch, (), epoch=jnp.float32(0), axis_name="devices")
        return batch.inputs, output.values

    whole_values = method.loss(logits, whole, (), epoch=jnp.float32(0), axis_name=None).values
    for count in (2, 8):

        def split(x, count=count):
            return x.reshape(count, EXAMPLES // count, *x.shape[1:])

        mapped = jax.pmap(one_device, axis_name="devices", devices=cpus[:count])
        inputs, values = mapped(split(full_batch().images), split(full_batch().labels), split(logits))
        np.testing.assert_allclose(inputs.reshape(whole.inputs.shape), whole.inputs, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(values.reshape(-1), whole_values, rtol=1e-5)
