"""Co-teaching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from method_references import (
    CLASSES,
    EXAMPLES,
    FACTS,
    LABELS,
    build,
    cross_entropy,
    facts_of,
    full_batch,
    loss_of,
    metrics_of,
    refreshes,
    rows,
    softmax,
    tiny_data,
    tiny_training,
)

BOTH = np.stack([rows(31), rows(32)])
LOSSES = np.stack([cross_entropy(one) for one in BOTH])


def by_hand(kept, where=(True,) * EXAMPLES):
    """Each network's loss on the other's `kept` smallest ones; the mean is that of the chosen, summed."""
    valid = np.flatnonzero(where)
    values = np.zeros(EXAMPLES)
    for own, other in ((0, 1), (1, 0)):
        chosen = valid[np.argsort(LOSSES[other][valid])[:kept]]
        values[chosen] += LOSSES[own][chosen] * len(valid) / kept
    return values


# Rate 0.4 and 20 epochs, so the ramp is one epoch; or 0.5 and 200, so it is ten, as published.
@pytest.mark.parametrize(
    ("rate", "epochs", "epoch", "kept"),
    [
        *((0.4, 20, 0, 8), (0.4, 20, 0.25, 7), (0.4, 20, 0.5, 6), (0.4, 20, 1, 4), (0.4, 20, 7.3, 4)),
        *((0.5, 200, 2.5, 7), (0.5, 200, 5, 6), (0.5, 200, 10, 4), (0.5, 200, 150, 4)),
        *((0.99, 20, 5, 1), (0.0, 20, 5, 8)),  # one at least; without noise all
    ],
)
def test_the_smallest_losses_of_the_other_network(rate, epochs, epoch, kept):
    result = loss_of(build("coteaching", noise_rate=rate), BOTH, epoch=epoch, facts=facts_of(epochs))
    np.testing.assert_allclose(result.values, by_hand(kept), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["kept"].mean(), kept / EXAMPLES, rtol=1e-6)
    assert result.metrics["noise_rate"] == np.float32(rate)
    # The mean of the step is the sum of two means over what was chosen.
    orders = [np.argsort(LOSSES[k])[:kept] for k in (1, 0)]
    means = sum(LOSSES[k][order].mean() for k, order in enumerate(orders))
    np.testing.assert_allclose(result.values.mean(), means, rtol=1e-5)


def test_padding_is_neither_chosen_nor_counted():
    where = (True, False, True, True, False, True, True, True)
    result = loss_of(build("coteaching"), BOTH, epoch=5, batch=full_batch(where))
    np.testing.assert_allclose(result.values, by_hand(3, where), rtol=1e-5, atol=1e-6)  # floor(6 * 0.6)
    assert not result.metrics["kept"][~np.array(where)].any()


def test_gradient_goes_through_the_chosen_losses_alone():
    def total(logits):
        return loss_of(build("coteaching"), logits, epoch=5).values.sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(BOTH)))
    for own, other in ((0, 1), (1, 0)):
        chosen = np.zeros(EXAMPLES, bool)
        chosen[np.argsort(LOSSES[other])[:4]] = True
        assert not gradient[own][~chosen].any()
        expected = 2 * (softmax(BOTH[own]) - np.eye(CLASSES)[LABELS])  # of 8 examples 4
        np.testing.assert_allclose(gradient[own][chosen], expected[chosen], rtol=1e-4, atol=1e-5)


def test_an_estimated_rate_is_nothing_until_the_ramp_is_over():
    method, facts = build("coteaching", noise_rate="estimated"), facts_of(100)
    assert refreshes(method, 100) == [5]
    assert method.init_shared(facts) == 0
    np.testing.assert_allclose(loss_of(method, BOTH, epoch=4.9, facts=facts).values, LOSSES.sum(0), rtol=1e-5)
    # Then dropping starts from there, over as long a ramp.
    for epoch, kept in ((5, 8), (7.5, 6), (10, 4), (50, 4)):
        values = loss_of(method, BOTH, epoch=epoch, facts=facts, shared=jnp.float32(0.5)).values
        np.testing.assert_allclose(values, by_hand(kept), rtol=1e-5, atol=1e-6)


def test_the_estimate_is_of_both_networks_together():
    method = build("coteaching", noise_rate="estimated")
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
    method = build("coteaching", noise_rate=0.25)
    assert refreshes(method, 20) == []
    assert method.init_shared(FACTS) == 0.25


def test_in_training_the_estimate_is_used(cpus):
    method = build("coteaching", noise_rate="estimated")
    history = metrics_of(tiny_training(method, cpus, 6, tiny_data(wrong=True)))
    rates = np.array([metrics["noise_rate"] for metrics in history])
    assert rates[0] == 0 and len(set(rates[1:])) == 1 and 0.05 < rates[1] < 0.8
    kept = np.array([metrics["kept"] for metrics in history])
    assert kept[0] == 1
    # From the third epoch on the whole share is dropped, up to whole examples of a batch.
    assert (1 - rates[-1] - 1 / 12 < kept[2:]).all() and (kept[2:] <= 1 - rates[-1] + 1e-5).all()
