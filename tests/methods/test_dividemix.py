"""DivideMix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from dsink_jax.methods.dividemix import probably_clean
from method_references import (
    CLASSES,
    EXAMPLES,
    LABELS,
    PRIOR,
    build,
    cross_entropy,
    full_batch,
    kernels,
    linear_networks,
    log_softmax,
    loss_of,
    metrics_of,
    prepared,
    refreshes,
    rows,
    softmax,
    tiny_training,
)

ONE_HOT = np.eye(CLASSES)[LABELS]
# Of each example, by each network, the probability that its label is right.
CLEAN = np.random.default_rng(5).uniform(size=(EXAMPLES, 2)).astype(np.float32)
# Logits of both networks for both views of the mixtures.
OUTPUTS = np.stack([rows(41, count=2 * EXAMPLES), rows(42, count=2 * EXAMPLES)])


# The division.


def two_heaps(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.7
    return np.where(right, rng.gamma(2, 0.1, count), rng.normal(3, 0.6, count)).astype(np.float32), right


def test_division_is_that_of_two_gaussians():
    losses, right = two_heaps()
    scaled = (losses - losses.min()) / (losses.max() - losses.min())
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    mixture.fit(scaled[:, None].astype(np.float64))
    # The posterior by Bayes' rule from means, variances and shares.
    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    density = (
        mixture.weights_ * np.exp(-((scaled[:, None] - means) ** 2) / 2 / variances) / np.sqrt(variances)
    )
    expected = (density / density.sum(-1, keepdims=True))[:, means.argmin()]
    result = probably_clean(losses)
    assert result.dtype == np.float32 and result.shape == losses.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.mean((result > 0.5) == right) > 0.98


def test_division_depends_on_neither_scale_nor_shift():
    losses, _ = two_heaps(500)
    np.testing.assert_allclose(probably_clean(2 * losses + 7), probably_clean(losses), atol=1e-3)


def test_equal_losses_are_all_clean():
    np.testing.assert_array_equal(probably_clean(np.full(5, 1.5, np.float32)), np.ones(5))


def test_each_network_divides_by_its_own_losses():
    method = build("dividemix")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 300).astype(np.int32)
    logits = rng.normal(0, 1, (300, 2, CLASSES)).astype(np.float32)
    logits[np.arange(200), 0, labels[:200]] += 6
    logits[np.arange(100, 300), 1, labels[100:]] += 6
    division, shared = method.refresh(logits, labels, np.ones((300, 2), np.float32), ())
    assert shared == () and division.shape == (300, 2)
    for k in range(2):
        expected = probably_clean(cross_entropy(logits[:, k], labels).astype(np.float32))
        np.testing.assert_allclose(division[:, k], expected, atol=1e-3)
    believed = (division > 0.5).mean(1)
    assert np.mean(division[:200, 0] > 0.5) > 0.95 > 0.5 > np.mean(division[200:, 0] > 0.5)
    assert np.mean(division[100:, 1] > 0.5) > 0.95 and believed.min() >= 0


def test_schedule():
    assert refreshes(build("dividemix"), 20) == list(range(2, 20))
    assert refreshes(build("dividemix"), 3) == [1, 2]
    assert refreshes(build("dividemix", warmup=0.7), 10) == [7, 8, 9]


def on_mixtures(method, batch=None, key=0, epoch=5.0, clean=CLEAN):
    """What `loss` returns for OUTPUTS, and the batch as it was prepared."""
    batch = full_batch() if batch is None else batch
    clean = jnp.asarray(clean)
    batch = prepared(method, batch, clean, key, epoch)
    return loss_of(method, OUTPUTS, clean, epoch, batch), batch


# The warm-up: before epoch 2 of 20.


@pytest.mark.parametrize(("epoch", "bound"), [(0.0, 0.5), (1.97, 0.5), (0.0, 1.0)])
def test_warmup_is_cross_entropy_of_both_networks_on_both_views(epoch, bound):
    method = build("dividemix", clean_bound=bound)
    state = method.init(EXAMPLES, CLASSES)
    np.testing.assert_array_equal(state, np.ones((EXAMPLES, 2)))
    result, batch = on_mixtures(method, epoch=epoch, clean=state)
    views = np.concatenate([full_batch().inputs, full_batch().second_view])
    assert len(batch.prepared) == 2
    for inputs in batch.prepared:
        np.testing.assert_array_equal(inputs, views)
    twice = np.tile(LABELS, 2)
    expected = sum(cross_entropy(one, twice).reshape(2, EXAMPLES).mean(0) for one in OUTPUTS)
    np.testing.assert_allclose(result.values, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.example_state, state)


# After it.


@functools.cache
def targets(temperature=0.5, bound=0.5):
    """What MixMatch makes of the labels, for each network by the other's division, and who is labelled."""
    networks = linear_networks(kernels(2))
    predictions = [
        softmax(np.asarray(networks.logits(views)))
        for views in (full_batch().inputs, full_batch().second_view)
    ]
    of_network = (predictions[0] + predictions[1]) / 2
    results = []
    for k in range(2):
        clean = CLEAN[:, 1 - k, None].astype(np.float64)
        labelled = clean[:, 0] > bound
        refined = clean * ONE_HOT + (1 - clean) * of_network[k]
        mean = np.where(labelled[:, None], refined, of_network.mean(0)) ** (1 / temperature)
        results.append((np.tile(mean / mean.sum(-1, keepdims=True), (2, 1)), labelled))
    return results


def mixtures(key, alpha=4.0):
    """Coefficient and partners of each network, as the method draws them."""
    for own in jax.random.split(jax.random.key(key)):
        partner_key, mix_key = jax.random.split(own)
        coefficient = float(jax.random.beta(mix_key, alpha, alpha))
        partner = np.asarray(jax.random.permutation(partner_key, 2 * EXAMPLES))
        yield max(coefficient, 1 - coefficient), partner


def network_values(k, key, rate, prior, where=None, **options):
    """The loss of one network, `rate` being lambda_u after its ramp."""
    where = np.ones(EXAMPLES, bool) if where is None else where
    (refined, labelled), (coefficient, partner) = targets(**options)[k], list(mixtures(key))[k]
    mixed = coefficient * refined + (1 - coefficient) * refined[partner]
    log_p = log_softmax(OUTPUTS[k])
    cross = -(mixed * log_p).sum(-1).reshape(2, EXAMPLES).mean(0)
    squared = ((np.exp(log_p) - mixed) ** 2).mean(-1).reshape(2, EXAMPLES).mean(0)
    number = where.sum()
    values = np.where(
        labelled,
        cross * number / max((where & labelled).sum(), 1),
        rate * squared * number / max((where & ~labelled).sum(), 1),
    )
    if prior is not None:
        mean = np.exp(log_p)[np.tile(where, 2)].mean(0)
        values = values + (prior * np.log(prior / mean)).sum()
    return values


# Epoch 2 ends the warm-up; lambda_u then grows over 0.05 * 20 = 1 epoch.
@pytest.mark.parametrize(
    ("epoch", "rate", "key"), [(2.0, 0.0, 0), (2.5, 12.5, 1), (3.0, 25.0, 0), (19.0, 25.0, 1)]
)
def test_inputs_and_values_by_numpy(epoch, rate, key):
    result, batch = on_mixtures(build("dividemix", lambda_u=25.0), key=key, epoch=epoch)
    views = np.concatenate([full_batch().inputs, full_batch().second_view])
    for inputs, (coefficient, partner) in zip(batch.prepared, mixtures(key), strict=True):
        assert 0.5 <= coefficient < 1
        mixed = coefficient * views + (1 - coefficient) * views[partner]
        np.testing.assert_allclose(inputs, mixed, rtol=1e-5, atol=1e-6)
    assert np.abs(batch.prepared[0] - batch.prepared[1]).max() > 0.01
    expected = sum(network_values(k, key, rate, PRIOR) for k in range(2))
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.metrics["clean"], CLEAN.mean(-1), rtol=1e-6)
    # Accuracy is that of the inputs as they are, by both networks' mean.
    predictions = np.asarray(linear_networks(kernels(2)).logits(full_batch().inputs)).mean(0)
    np.testing.assert_allclose(result.predictions, predictions, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("penalty", "prior"), [("uniform", np.full(CLASSES, 1 / CLASSES)), ("none", None)])
def test_penalty(penalty, prior):
    result, _ = on_mixtures(build("dividemix", lambda_u=25.0, penalty=penalty))
    expected = sum(network_values(k, 0, 25.0, prior) for k in range(2))
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-5)


def test_other_options():
    method = build("dividemix", temperature=0.25, clean_bound=0.8, lambda_u=3.0, ramp=0.25)
    result, _ = on_mixtures(method, epoch=4.0)
    # Two of the ramp's five epochs.
    expected = sum(network_values(k, 0, 3 * 2 / 5, PRIOR, temperature=0.25, bound=0.8) for k in range(2))
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-5)


def test_padding_has_no_part_in_the_means():
    where = np.array([True, True, False, True, True, True, False, True])
    result, _ = on_mixtures(build("dividemix", lambda_u=25.0), full_batch(where))
    expected = sum(network_values(k, 0, 25.0, PRIOR, where) for k in range(2))
    np.testing.assert_allclose(result.values[where], expected[where], rtol=1e-4, atol=1e-5)


def test_in_training_it_divides_after_the_warmup(cpus):
    clean = [metrics["clean"] for metrics in metrics_of(tiny_training(build("dividemix"), cpus, 3))]
    assert clean[0] == 1
    assert all(0 < share < 1 for share in clean[1:])
