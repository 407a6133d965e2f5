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
    FACTS,
    LABELS,
    build,
    cross_entropy,
    full_batch,
    linear_networks,
    log_softmax,
    prepared,
    rows,
    softmax,
)
from tiny_training import train

PRIOR = np.array([0.5, 0.3, 0.2])
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
    def divisions(epochs, warmup=0.1):
        method = build("dividemix", FACTS._replace(epochs=epochs), dividemix_warmup=warmup)
        return [epoch for epoch in range(epochs) if method.refresh_before(epoch)]

    assert divisions(20) == list(range(2, 20))
    assert divisions(3) == [1, 2]
    assert divisions(10, 0.7) == [7, 8, 9]


# The warm-up: before epoch 2 of 20.


def loss(method, batch, outputs=OUTPUTS, epoch=5.0, axis_name=None, clean=CLEAN):
    return method.loss(
        jnp.asarray(outputs), batch, jnp.asarray(clean), epoch=jnp.float32(epoch), axis_name=axis_name
    )


@pytest.mark.parametrize("epoch", [0.0, 1.0, 1.97])
def test_warmup_is_cross_entropy_of_both_networks_on_both_views(epoch):
    method = build("dividemix")
    state = method.init(EXAMPLES, CLASSES)
    np.testing.assert_array_equal(state, np.ones((EXAMPLES, 2)))
    batch = prepared(method, full_batch(), epoch=epoch)
    views = np.concatenate([full_batch().images, full_batch().second_view])
    assert len(batch.inputs) == 2
    for inputs in batch.inputs:
        np.testing.assert_array_equal(inputs, views)
    output = loss(method, batch, epoch=epoch, clean=state)
    twice = np.tile(LABELS, 2)
    expected = sum(cross_entropy(one, twice).reshape(2, EXAMPLES).mean(0) for one in OUTPUTS)
    np.testing.assert_allclose(output.values, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(output.example_state, state)


def test_warmup_is_the_same_with_the_highest_bound():
    method = build("dividemix", dividemix_clean_bound=1.0)
    state = method.init(EXAMPLES, CLASSES)
    batch = prepared(method, full_batch(), epoch=0.0)
    values = loss(method, batch, epoch=0.0, clean=state).values
    expected = sum(cross_entropy(one, np.tile(LABELS, 2)).reshape(2, EXAMPLES).mean(0) for one in OUTPUTS)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


# After it.


@functools.cache
def targets(temperature=0.5, bound=0.5):
    """What MixMatch makes of the labels, for each network by the other's division, and who is labelled."""
    networks = linear_networks(2)
    predictions = [
        softmax(np.asarray(networks.logits(views)))
        for views in (full_batch().images, full_batch().second_view)
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


@pytest.mark.parametrize("key", [0, 1])
def test_inputs_are_mixtures_of_both_views(key):
    batch = prepared(
        build("dividemix", dividemix_lambda_u=25.0), full_batch(), state=jnp.asarray(CLEAN), key=key
    )
    views = np.concatenate([full_batch().images, full_batch().second_view])
    for inputs, (coefficient, partner) in zip(batch.inputs, mixtures(key), strict=True):
        assert 0.5 <= coefficient < 1
        expected = coefficient * views + (1 - coefficient) * views[partner]
        np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(batch.inputs[0] - batch.inputs[1]).max() > 0.01


# Epoch 2 ends the warm-up; lambda_u then grows over 0.05 * 20 = 1 epoch.
@pytest.mark.parametrize(("epoch", "rate"), [(2.0, 0.0), (2.5, 12.5), (3.0, 25.0), (19.0, 25.0)])
@pytest.mark.parametrize("key", [0, 1])
def test_values_by_numpy(epoch, rate, key):
    method = build("dividemix", dividemix_lambda_u=25.0)
    batch = prepared(method, full_batch(), state=jnp.asarray(CLEAN), key=key, epoch=epoch)
    output = loss(method, batch, epoch=epoch)
    expected = sum(network_values(k, key, rate, PRIOR) for k in range(2))
    np.testing.assert_allclose(output.values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.metrics["clean"], CLEAN.mean(-1), rtol=1e-6)
    # Accuracy is that of the images as they are, by both networks' mean.
    predictions = np.asarray(linear_networks(2).logits(full_batch().images)).mean(0)
    np.testing.assert_allclose(output.predictions, predictions, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("penalty", "prior"), [("prior", PRIOR), ("uniform", np.full(CLASSES, 1 / CLASSES)), ("none", None)]
)
def test_penalty(penalty, prior):
    method = build("dividemix", dividemix_lambda_u=25.0, dividemix_penalty=penalty)
    batch = prepared(method, full_batch(), state=jnp.asarray(CLEAN))
    expected = sum(network_values(k, 0, 25.0, prior) for k in range(2))
    np.testing.assert_allclose(loss(method, batch).values, expected, rtol=1e-4, atol=1e-5)


def test_other_options():
    options = {"temperature": 0.25, "clean_bound": 0.8, "lambda_u": 3.0, "ramp": 0.25}
    method = build("dividemix", **{f"dividemix_{name}": value for name, value in options.items()})
    batch = prepared(method, full_batch(), state=jnp.asarray(CLEAN), epoch=4.0)
    # Two of the ramp's five epochs.
    expected = sum(network_values(k, 0, 3 * 2 / 5, PRIOR, temperature=0.25, bound=0.8) for k in range(2))
    np.testing.assert_allclose(loss(method, batch, epoch=4.0).values, expected, rtol=1e-4, atol=1e-5)


def test_padding_has_no_part_in_the_means():
    where = np.array([True, True, False, True, True, True, False, True])
    method = build("dividemix", dividemix_lambda_u=25.0)
    batch = full_batch()._replace(where=jnp.asarray(where))
    values = loss(method, prepared(method, batch, state=jnp.asarray(CLEAN))).values
    expected = sum(network_values(k, 0, 25.0, PRIOR, where) for k in range(2))
    np.testing.assert_allclose(values[where], expected[where], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_gradient_does_not_depend_on_the_number_of_devices(count, cpus):
    """Of the loss given the mixtures: means over the batch and the penalty are those of all devices."""
    method = build("dividemix", dividemix_lambda_u=25.0)
    where = np.array([True] * 6 + [False] * 2)
    whole = prepared(method, full_batch()._replace(where=jnp.asarray(where)), state=jnp.asarray(CLEAN))
    (pairs, guessed) = whole.extra

    def of_device(x, axis, views):
        """`[devices, ...]`: rows of each device, of both views where there are two."""
        x = jnp.asarray(x)
        if views:
            x = x.reshape(*x.shape[:axis], 2, EXAMPLES, *x.shape[axis + 1 :])
            parts = jnp.split(x, count, axis + 1)
            return jnp.stack([part.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]) for part in parts])
        return jnp.stack(jnp.split(x, count, axis))

    def value_and_gradient(outputs, extra, labels, where, clean, axis_name=None):
        batch = full_batch()._replace(labels=labels, where=where, extra=extra)

        def total(outputs):
            values = loss(method, batch, outputs, axis_name=axis_name, clean=clean).values
            return jnp.where(where, values, 0.0).sum(), values

        return jax.grad(total, has_aux=True)(outputs)

    gradient, values = value_and_gradient(
        jnp.asarray(OUTPUTS), whole.extra, whole.labels, whole.where, jnp.asarray(CLEAN)
    )
    split_extra = (
        tuple((of_device(t, 0, True), of_device(labelled, 0, False)) for t, labelled in pairs),
        of_device(guessed, 1, False),
    )
    mapped = jax.pmap(
        functools.partial(value_and_gradient, axis_name="devices"),
        axis_name="devices",
        devices=cpus[:count],
    )
    own_gradient, own_values = mapped(
        *(of_device(OUTPUTS, 1, True), split_extra, of_device(LABELS, 0, False)),
        *(of_device(where, 0, False), of_device(CLEAN, 0, False)),
    )
    np.testing.assert_allclose(own_values.reshape(-1), values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own_gradient, of_device(gradient, 1, True), rtol=1e-4, atol=1e-5)


def test_split_over_devices_mixes_the_same_pairs(cpus):
    method = build("dividemix", dividemix_lambda_u=25.0)
    whole = prepared(method, full_batch(), state=jnp.asarray(CLEAN))

    def one_device(images, second_view, labels, clean):
        batch = full_batch()._replace(images=images, second_view=second_view, labels=labels)
        return prepared(method, batch, state=clean, axis_name="devices").inputs

    batch = full_batch()
    arrays = (batch.images, batch.second_view, batch.labels, jnp.asarray(CLEAN))
    split = [x.reshape(2, EXAMPLES // 2, *x.shape[1:]) for x in arrays]
    inputs = jax.pmap(one_device, axis_name="devices", devices=cpus[:2])(*split)
    for own, expected in zip(inputs, whole.inputs, strict=True):
        own = np.asarray(own).reshape(2, 2, EXAMPLES // 2, 4).swapaxes(0, 1)  # views first
        np.testing.assert_allclose(own.reshape(-1, 4), expected.reshape(-1, 4), rtol=1e-5, atol=1e-6)


def test_in_training_it_divides_after_the_warmup(small_data, cpus):
    facts = FACTS._replace(num_classes=4, observed_counts=(15,) * 4, clean_counts=(15,) * 4, epochs=4)
    history = [record["train"] for record in train(build("dividemix", facts), small_data, cpus[:1]).history]
    assert history[0]["clean"] == 1
    assert all(0 < record["clean"] < 1 for record in history[1:])
