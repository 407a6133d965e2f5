"""Co-teaching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.errors import InputError
from method_references import CLASSES, EXAMPLES, FACTS, LABELS, batch, build, cross_entropy, rows
from tiny_training import train

BOTH = np.stack([rows(31), rows(32)])
LOSSES = np.stack([cross_entropy(one) for one in BOTH])


def output(method, epoch, where=None, shared=None, logits=BOTH):
    shared = method.init_shared(CLASSES) if shared is None else jnp.float32(shared)
    now = batch(where)._replace(shared_state=shared)
    return method.loss(jnp.asarray(logits), now, (), epoch=jnp.float32(epoch), axis_name=None)


def by_hand(kept, where=(True,) * EXAMPLES):
    """Each network's loss on the other's `kept` smallest ones; the mean is that of the chosen, summed."""
    valid = np.flatnonzero(where)
    values = np.zeros(EXAMPLES)
    for own, other in ((0, 1), (1, 0)):
        chosen = valid[np.argsort(LOSSES[other][valid])[:kept]]
        values[chosen] += LOSSES[own][chosen] * len(valid) / kept
    return values


# Rate 0.4 and 20 epochs: the ramp is one epoch.
@pytest.mark.parametrize(("epoch", "kept"), [(0, 8), (0.25, 7), (0.5, 6), (0.75, 5), (1, 4), (7.3, 4)])
def test_the_smallest_losses_of_the_other_network(epoch, kept):
    result = output(build("coteaching"), epoch)  # floor(8 * (1 - 0.4 * epoch))
    expected = int(np.floor(EXAMPLES * (1 - 0.4 * min(epoch, 1)) + 1e-9))
    assert expected == kept
    np.testing.assert_allclose(result.values, by_hand(kept), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["kept"].mean(), kept / EXAMPLES, rtol=1e-6)
    assert result.metrics["noise_rate"] == np.float32(0.4)
    # The mean of the step is the sum of two means over what was chosen.
    orders = [np.argsort(LOSSES[k])[:kept] for k in (1, 0)]
    means = sum(LOSSES[k][order].mean() for k, order in enumerate(orders))
    np.testing.assert_allclose(result.values.mean(), means, rtol=1e-5)


def test_the_ramp_is_a_share_of_the_training():
    method = build("coteaching", FACTS._replace(epochs=200), coteaching_noise_rate=0.5)
    for epoch, kept in ((0, 8), (2.5, 7), (5, 6), (10, 4), (150, 4)):  # 10 epochs, as published
        np.testing.assert_allclose(output(method, epoch).values, by_hand(kept), rtol=1e-5, atol=1e-6)


def test_padding_is_neither_chosen_nor_counted():
    where = (True, False, True, True, False, True, True, True)
    result = output(build("coteaching"), 5, where)
    np.testing.assert_allclose(result.values, by_hand(3, where), rtol=1e-5, atol=1e-6)  # floor(6 * 0.6)
    assert not result.metrics["kept"][~np.array(where)].any()


def test_at_least_one_example_is_kept():
    result = output(build("coteaching", coteaching_noise_rate=0.99), 5)
    np.testing.assert_allclose(result.values, by_hand(1), rtol=1e-5, atol=1e-6)


def test_no_noise_is_cross_entropy_of_both():
    result = output(build("coteaching", coteaching_noise_rate=0.0), 5)
    np.testing.assert_allclose(result.values, LOSSES.sum(0), rtol=1e-5)


def test_gradient_goes_through_the_chosen_losses_alone():
    def total(logits):
        return output(build("coteaching"), 5, logits=logits).values.sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(BOTH)))
    for own, other in ((0, 1), (1, 0)):
        chosen = np.zeros(EXAMPLES, bool)
        chosen[np.argsort(LOSSES[other])[:4]] = True
        assert not gradient[own][~chosen].any()
        probabilities = np.exp(BOTH[own]) / np.exp(BOTH[own]).sum(-1, keepdims=True)
        expected = 2 * (probabilities - np.eye(CLASSES)[LABELS])  # of 8 examples 4
        np.testing.assert_allclose(gradient[own][chosen], expected[chosen], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_the_choice_is_made_over_all_devices(count, cpus):
    method = build("coteaching")
    where = np.array([True] * 7 + [False])

    def one_device(logits, labels, where):
        now = batch()._replace(labels=labels, where=where, shared_state=method.init_shared(CLASSES))

        def local(logits):
            result = method.loss(logits, now, (), epoch=jnp.float32(5), axis_name="devices")
            return jnp.where(where, result.values, 0.0).sum(), result.values

        return jax.grad(local, has_aux=True)(logits)

    def split(x, axis=0):
        return jnp.stack(jnp.split(jnp.asarray(x), count, axis))

    mapped = jax.pmap(one_device, axis_name="devices", devices=cpus[:count])
    gradient, values = mapped(split(BOTH, 1), split(LABELS), split(where))
    np.testing.assert_allclose(values.reshape(-1), by_hand(4, tuple(where)), rtol=1e-5, atol=1e-6)

    def total(logits):
        return output(method, 5, tuple(where.tolist()), logits=logits).values[:7].sum()

    whole = jax.grad(total)(jnp.asarray(BOTH))
    np.testing.assert_allclose(np.concatenate(list(gradient), 1), whole, rtol=1e-5, atol=1e-6)


def test_an_estimated_rate_is_nothing_until_the_ramp_is_over():
    method = build("coteaching", FACTS._replace(epochs=100), coteaching_noise_rate="estimated")
    assert [epoch for epoch in range(100) if method.refresh_before(epoch)] == [5]
    assert method.init_shared(CLASSES) == 0
    np.testing.assert_allclose(output(method, 4.9).values, LOSSES.sum(0), rtol=1e-5)
    # Then dropping starts from there, over as long a ramp.
    for epoch, kept in ((5, 8), (7.5, 6), (10, 4), (50, 4)):
        np.testing.assert_allclose(
            output(method, epoch, shared=0.5).values, by_hand(kept), rtol=1e-5, atol=1e-6
        )


def test_the_estimate_is_of_both_networks_together():
    method = build("coteaching", coteaching_noise_rate="estimated")
    rng = np.random.default_rng(0)
    true = rng.integers(0, CLASSES, 20_000)
    flipped = rng.random(20_000) < 0.3
    observed = np.where(flipped, (true + rng.integers(1, CLASSES, 20_000)) % CLASSES, true)
    # Each network alone errs half of the time, the mean of their logits seldom.
    logits = np.zeros((20_000, 2, CLASSES), np.float32)
    sure = rng.integers(0, 2, 20_000)
    logits[np.arange(20_000), sure, true] = 6.0
    logits[np.arange(20_000), 1 - sure, rng.integers(0, CLASSES, 20_000)] = 1.0
    state, rate = method.refresh(logits, observed.astype(np.int32), (), jnp.float32(0))
    assert state == ()
    assert float(rate) == pytest.approx(0.3, abs=0.02)


def test_rates_that_are_given_are_not_estimated():
    method = build("coteaching", coteaching_noise_rate=0.25)
    assert not any(method.refresh_before(epoch) for epoch in range(FACTS.epochs))
    assert method.init_shared(CLASSES) == 0.25


def test_it_must_be_told():
    with pytest.raises(InputError, match="coteaching must be told its noise rate: --coteaching-noise-rate"):
        build("coteaching", coteaching_noise_rate=None)


def test_in_training_the_estimate_is_used(small_data, cpus):
    labels = np.where(np.arange(60) % 3 == 0, (small_data.labels + 1) % 4, small_data.labels)
    data = small_data._replace(labels=labels.astype(np.int32))
    method = build("coteaching", FACTS._replace(epochs=6), coteaching_noise_rate="estimated")
    history = [record["train"] for record in train(method, data, cpus[:1], epochs=6).history]
    rates = np.array([record["noise_rate"] for record in history])
    assert rates[0] == 0 and len(set(rates[1:])) == 1 and 0.05 < rates[1] < 0.8
    kept = np.array([record["kept"] for record in history])
    assert kept[0] == 1
    # From the third epoch on the whole share is dropped, up to whole examples of a batch.
    assert (1 - rates[-1] - 1 / 12 < kept[2:]).all() and (kept[2:] <= 1 - rates[-1] + 1e-5).all()
