"""Q where some examples are of no class: against POT with one more column, and against `surrogate_labels`."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, softmax

from allocation_references import MAPPINGS, NUM_DEVICES, by_pmap
from dsink_jax import (
    class_marginal,
    dsink_loss,
    estimate_known_share,
    open_set_class_marginal,
    open_set_dsink_loss,
    open_set_surrogate_labels,
    surrogate_labels,
)

solve = jax.jit(open_set_surrogate_labels, static_argnames=("known_share", "threshold", "max_iterations"))


def problem(num_examples=48, num_classes=5, scale=2.0, seed=0):
    """Two models' logits and a marginal, float32."""
    rng = np.random.default_rng(seed)
    logits, noise_robust = scale * rng.standard_normal((2, num_examples, num_classes))
    marginal = rng.dirichlet(np.ones(num_classes))
    return tuple(each.astype(np.float32) for each in (logits, noise_robust, marginal))


def by_pot(logits, noise_robust, marginal, share):
    """The plan with a column for none, whose cost is 0, `[N, C + 1]`, in float64."""
    count = len(logits)
    cost = -np.concatenate([logits.astype(float) + noise_robust, np.zeros((count, 1))], 1)
    masses = np.append(share * marginal.astype(float) / marginal.sum(dtype=float), 1 - share)
    how = {"method": "sinkhorn_log", "stopThr": 1e-13, "numItermax": 20000}
    return count * ot.sinkhorn(np.full(count, 1 / count), masses, cost, 2.0, **how)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_is_the_transport_with_one_more_column(share, scale):
    given = problem(scale=scale)
    found, plan = solve(*given, share), by_pot(*given, share)
    np.testing.assert_allclose(found.known, plan[:, :-1].sum(1), atol=1e-5)
    np.testing.assert_allclose(
        found.labels * found.known[:, None], plan[:, :-1], atol=1e-5, err_msg="mass of the classes"
    )
    np.testing.assert_allclose(found.labels.sum(1), 1, atol=1e-6)
    assert np.mean(found.known) == pytest.approx(share, abs=1e-5)
    assert found.converged and found.marginal_error < 1e-5


def test_where_all_are_known_it_is_the_transport_of_the_classes():
    given = problem()
    found, closed = solve(*given, 1.0), surrogate_labels(*given)
    np.testing.assert_allclose(found.labels, closed.labels, atol=1e-6)
    np.testing.assert_array_equal(found.known, np.ones(48, np.float32))
    np.testing.assert_allclose(
        jax.jit(open_set_dsink_loss)(*given[:2], given[0], 1.0),
        jax.jit(dsink_loss)(*given[:2], given[0]),
        atol=1e-5,
    )


def test_unfamiliar_examples_go_first():
    """Half of them with logits near 0, which no class speaks for."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((200, 4)).astype(np.float32)
    logits[:100] += 7 * np.eye(4, dtype=np.float32)[rng.integers(0, 4, 100)]
    found = solve(logits, logits, softmax(logits[:100], 1).mean(0), 0.5)
    assert np.min(found.known[:100]) > np.max(found.known[100:])
    assert estimate_known_share(logits, logits) == pytest.approx(0.5, abs=0.05)


def test_where_nothing_is_to_be_told_apart_all_are_known():
    rng = np.random.default_rng(0)
    assert estimate_known_share(*rng.standard_normal((2, 300, 6))) == 1.0
    assert estimate_known_share(np.zeros((50, 3)), np.zeros((50, 3))) == 1.0
    assert estimate_known_share(np.eye(3), np.eye(3)) == 1.0
    # One kind with a long tail: two Gaussians describe it better than one, but it has one peak.
    skewed = np.zeros((2000, 3)) + rng.gamma(4.0, 2.0, (2000, 1))
    assert estimate_known_share(skewed, skewed) == 1.0


def test_padding_takes_no_part():
    logits, noise_robust, marginal = (each.copy() for each in problem(24))
    where = np.arange(24) % 3 > 0
    alone = solve(logits[where], noise_robust[where], marginal, 0.7)
    logits[~where], noise_robust[~where] = np.nan, np.inf
    found = solve(logits, noise_robust, marginal, 0.7, where=where)
    np.testing.assert_allclose(found.labels[where], alone.labels, atol=2e-6)
    np.testing.assert_allclose(found.known[where], alone.known, atol=2e-6)
    assert (found.labels[~where] == 0).all() and (found.known[~where] == 0).all()


@pytest.mark.parametrize("bad", ["row", "marginal", "share"])
def test_what_is_not_a_problem_is_told(bad):
    logits, noise_robust, marginal = (each.copy() for each in problem(12))
    share = 0.5
    if bad == "row":
        logits[3, 1] = np.nan
    elif bad == "marginal":
        marginal[1] = -0.1
    else:
        share = 1.5
    found = jax.jit(open_set_surrogate_labels)(logits, noise_robust, marginal, jnp.float32(share))
    assert np.isnan(found.labels).all() and np.isnan(found.known).all() and not found.converged


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_eight_devices_solve_one_problem(mapping):
    logits, noise_robust, marginal = problem(NUM_DEVICES * 6)
    alone = solve(logits, noise_robust, marginal, 0.6)

    def one(logits, noise_robust):
        return open_set_surrogate_labels(logits, noise_robust, jnp.asarray(marginal), 0.6, axis_name="batch")

    several = jax.device_get(mapping(one, logits, noise_robust))
    np.testing.assert_allclose(several.labels.reshape(logits.shape), alone.labels, atol=5e-6)
    np.testing.assert_allclose(several.known.reshape(-1), alone.known, atol=5e-6)
    assert np.ptp(several.marginal_error) == 0 and several.converged.all()


def test_gradient_is_what_is_left_where_an_example_is_known():
    logits, noise_robust, _ = problem(16)
    imbalance_robust = problem(16, seed=1)[0]
    found = solve(
        logits, noise_robust, open_set_class_marginal(imbalance_robust, logits, noise_robust, 0.7), 0.7
    )
    models = [jnp.asarray(each) for each in (logits, noise_robust, imbalance_robust)]
    total = jax.jit(lambda *each: open_set_dsink_loss(*each, 0.7).sum())
    gradients = jax.grad(total, (0, 1, 2))(*models)
    p = softmax(logits.astype(float), 1)
    np.testing.assert_allclose(gradients[0], found.known[:, None] * (p - found.labels), atol=1e-5)
    assert not np.asarray(gradients[1]).any() and not np.asarray(gradients[2]).any()


@hypothesis.given(
    logits=hnp.arrays(np.float32, (2, 6, 3), elements=st.floats(-1e4, 1e4, width=32)),
    share=st.floats(2**-7, 1.0, width=32),
)
def test_whatever_finite_logits(logits, share):
    found = jax.jit(open_set_surrogate_labels)(*logits, np.full(3, 1 / 3, np.float32), jnp.float32(share))
    np.testing.assert_allclose(np.sum(found.labels, 1), 1, atol=1e-5)
    assert ((found.known >= 0) & (found.known <= 1)).all()
    assert np.mean(found.known) == pytest.approx(share, abs=1e-3)  # float32 has no more digits at 20,000
    plan = np.append(found.known[:, None] * found.labels, 1 - found.known[:, None], axis=1)
    masses = np.append(np.full(3, share / 3), 1 - share)
    assert found.marginal_error == pytest.approx(np.abs(plan.mean(0) - masses).sum(), abs=1e-5)
    assert found.marginal_error < 2e-5 or not found.converged


@pytest.mark.parametrize("spread", [20.0, 1e2, 1e4])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_energies_far_apart_take_no_more_iterations(spread, share):
    """From level 0 each few nats take an iteration, and at 10,000 it may stop at what is rounding."""
    rng = np.random.default_rng(0)
    energy = np.linspace(0, spread, 64, dtype=np.float32)[rng.permutation(64), None]
    base, noise = rng.standard_normal((2, 64, 10)).astype(np.float32)
    marginal = rng.dirichlet(np.ones(10)).astype(np.float32)
    found = solve(5 * base + energy, 5 * base + noise + energy, marginal, share)
    assert found.converged and found.iterations <= 100
    assert found.marginal_error < 1e-5
    assert np.mean(found.known) == pytest.approx(share, abs=1e-6)
    lowest = np.argsort(energy[:, 0])[: int(32 * (1 - share))]
    assert spread < 1e4 or np.max(found.known[lowest]) < 1e-6


def test_labels_weighted_by_known_have_the_class_marginal_and_known_its_share_at_any_stop():
    given = problem(scale=4.0)
    short, whole = (solve(*given, 0.6, max_iterations=limit) for limit in (1, 500))
    for found in (short, whole):
        assert np.mean(found.known) == pytest.approx(0.6, abs=1e-6)
        np.testing.assert_allclose(np.sum(found.labels, 1), 1, atol=1e-6)
    assert short.marginal_error > 1e-4 and not short.converged
    mean = (whole.known[:, None] * whole.labels).sum(0) / whole.known.sum()
    np.testing.assert_allclose(mean, given[2] / given[2].sum(), atol=1e-5)


# The class marginal of the examples of a class.


def test_class_marginal_of_the_known():
    """The unknown, which all look most like class 0, have no say in it."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, 200)
    logits = (9 * np.eye(4)[classes] + rng.standard_normal((200, 4))).astype(np.float32)
    logits[:80] = np.float32([3, -2, -2, -2]) + rng.standard_normal((80, 4))
    true = np.bincount(classes[80:], minlength=4) / 120
    found = open_set_class_marginal(logits, logits, logits, 0.6)
    assert np.abs(found - true).sum() < 0.1 < np.abs(class_marginal(logits) - true).sum()
    np.testing.assert_allclose(np.sum(found), 1, atol=1e-6)
    everyone = open_set_class_marginal(logits, logits, logits, 1.0)
    np.testing.assert_allclose(everyone, class_marginal(logits), atol=1e-6)


def test_class_marginal_of_the_known_by_hand():
    logits, noise_robust, _ = problem(24)
    where = np.arange(24) % 3 > 0
    found = open_set_class_marginal(
        *(np.where(where[:, None], each, np.nan) for each in (noise_robust, logits, noise_robust)),
        0.7,
        where=where,
    )
    logits, noise_robust = logits[where].astype(float), noise_robust[where].astype(float)
    odds = (logsumexp(logits, 1) + logsumexp(noise_robust, 1)) / 2
    level = brentq(lambda level: expit(odds - level).mean() - 0.7, -50, 50, xtol=1e-12)
    known = expit(odds - level)[:, None]
    np.testing.assert_allclose(found, (known * softmax(noise_robust, 1)).sum(0) / known.sum(), atol=2e-6)


def test_class_marginal_of_the_known_is_one_over_devices_and_has_no_gradient():
    logits, noise_robust, _ = problem(NUM_DEVICES * 6)
    alone = open_set_class_marginal(logits, logits, noise_robust, 0.6)
    several = by_pmap(
        lambda z, n: open_set_class_marginal(z, z, n, 0.6, axis_name="batch"), logits, noise_robust
    )
    np.testing.assert_allclose(several, np.tile(alone, (NUM_DEVICES, 1)), atol=1e-6)
    jacobian = jax.jacobian(lambda z: open_set_class_marginal(z, z, z, 0.6))(logits[:6])
    assert not np.asarray(jacobian).any()


@pytest.mark.parametrize("bad", ["row", "share"])
def test_class_marginal_of_what_is_not_a_problem(bad):
    logits = problem(12)[0].copy()
    if bad == "row":
        logits[3, 1] = np.nan
    share = jnp.float32(0.5 if bad == "row" else 1.5)
    assert np.isnan(jax.jit(open_set_class_marginal)(logits, logits, logits, share)).all()
