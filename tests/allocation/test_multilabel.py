"""Q for several labels an example: against root finding, POT and the single-label problem."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from allocation_references import MAPPINGS, NUM_DEVICES
from dsink_jax import multilabel_class_marginal, multilabel_surrogate_labels, surrogate_labels

solve = jax.jit(multilabel_surrogate_labels, static_argnames=("threshold", "max_iterations"))


def problem(num_examples, num_labels, scale=3.0, seed=0):
    """Two models' logits and a marginal, float32."""
    rng = np.random.default_rng(seed)
    logits, noise_robust = scale * rng.standard_normal((2, num_examples, num_labels))
    return (each.astype(np.float32) for each in (logits, noise_robust, rng.random(num_labels)))


def by_root(logits, noise_robust, marginal):
    """The same label by label in float64."""
    scores = (logits.astype(float) + noise_robust.astype(float)) / 2
    labels = np.zeros(logits.shape)
    for c, wanted in enumerate(marginal.astype(float)):
        if wanted in (0.0, 1.0):
            labels[:, c] = wanted
            continue
        root = brentq(lambda b, c=c, m=wanted: expit(scores[:, c] + b).mean() - m, -1e6, 1e6, xtol=1e-12)
        labels[:, c] = expit(scores[:, c] + root)
    return labels


@pytest.mark.parametrize("scale", [1, 10, 1e4])
@pytest.mark.parametrize(("num_examples", "num_labels"), [(1, 3), (64, 10), (1024, 40)])
def test_each_label_is_the_root_of_its_own_equation(num_examples, num_labels, scale):
    logits, noise_robust, marginal = problem(num_examples, num_labels, scale)
    found = solve(logits, noise_robust, marginal)
    # Half the sum of two logits of 10,000 is known to 1e-3 in float32; a label's error is a quarter of that.
    exact = 1e-5 if scale < 100 else 2.5e-4
    np.testing.assert_allclose(found.labels, by_root(logits, noise_robust, marginal), atol=exact)
    np.testing.assert_allclose(np.mean(found.labels, 0), marginal, atol=1e-5)
    assert found.marginal_error < 1e-5 and found.labels.dtype == jnp.float32
    assert found.converged or scale > 100  # that the labels are as exact as was asked for is not said there


def test_each_label_is_a_transport_to_two_columns():
    """By POT in float64: the cost is -log f_N - log f of "has it" and "has it not", epsilon 2."""
    logits, noise_robust, marginal = problem(40, 6)
    found = solve(logits, noise_robust, marginal)
    for c in range(6):
        both = [np.stack([z[:, c], np.zeros(40)], 1).astype(float) for z in (logits, noise_robust)]
        cost = sum(np.log(np.exp(z).sum(1, keepdims=True)) - z for z in both)
        wanted = float(marginal[c])
        plan = ot.sinkhorn(
            np.full(40, 1 / 40), [wanted, 1 - wanted], cost, 2.0, method="sinkhorn_log", stopThr=1e-13
        )
        np.testing.assert_allclose(found.labels[:, c], 40 * plan[:, 0], atol=1e-5)


def test_two_classes_that_exclude_each_other_are_one_label():
    logits, noise_robust, marginal = problem(50, 1, seed=3)
    found = solve(logits, noise_robust, marginal)
    two = [np.concatenate([z, np.zeros_like(z)], 1) for z in (logits, noise_robust)]
    expected = surrogate_labels(*two, np.array([marginal[0], 1 - marginal[0]]), threshold=1e-7)
    np.testing.assert_allclose(found.labels[:, 0], expected.labels[:, 0], atol=1e-5)


def test_certain_labels():
    logits, noise_robust, _ = problem(30, 3)
    found = solve(logits, noise_robust, np.array([0.0, 1.0, 1e-4], np.float32))
    assert (found.labels[:, 0] == 0).all() and (found.labels[:, 1] == 1).all()
    assert np.mean(found.labels[:, 2]) == pytest.approx(1e-4, rel=1e-3)
    logits[:, 2] = -np.inf  # a label that a model rules out cannot be given: that is told
    assert not solve(logits, noise_robust, np.full(3, 0.5, np.float32)).converged


@pytest.mark.parametrize("counts", ["integers", "shares"])
def test_counts_of_labels_are_kept(counts):
    """Rows sum to their counts, and labels have the shares asked for, brought to the counts' total."""
    logits, noise_robust, marginal = problem(60, 8)
    marginal = (0.2 + 0.5 * marginal).astype(np.float32)  # with rows of none and of all labels not all go
    rng = np.random.default_rng(1)
    given = rng.integers(0, 7, 60) if counts == "integers" else rng.uniform(0.5, 3, 60).astype(np.float32)
    found = solve(logits, noise_robust, marginal, label_counts=given)
    np.testing.assert_allclose(np.sum(found.labels, 1), given, atol=1e-5)
    shares = np.mean(found.labels, 0)
    moved = np.log(shares / (1 - shares)) - np.log(marginal / (1 - marginal))
    np.testing.assert_allclose(moved, moved.mean(), atol=1e-3)
    # Of the form that is asked for: score + a_i + b_c.
    inside = (given > 0) & (given < 8)
    labels = np.asarray(found.labels, float)[inside]
    rest = np.log(labels / (1 - labels)) - ((logits + noise_robust) / 2)[inside]
    rest -= rest.mean(0) + rest.mean(1, keepdims=True) - rest.mean()
    np.testing.assert_allclose(rest, 0, atol=2e-3)
    assert found.converged


def test_padding_takes_no_part():
    logits, noise_robust, marginal = problem(24, 5)
    where = np.arange(24) % 3 > 0
    alone = solve(logits[where], noise_robust[where], marginal)
    logits[~where], noise_robust[~where] = np.nan, np.inf
    found = solve(logits, noise_robust, marginal, where=where)
    np.testing.assert_allclose(found.labels[where], alone.labels, atol=2e-6)
    assert (found.labels[~where] == 0).all()
    imbalance_robust = np.where(where[:, None], logits, np.nan)
    np.testing.assert_allclose(
        multilabel_class_marginal(imbalance_robust, where=where), expit(logits[where]).mean(0), atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_a_marginal_that_is_none_is_told(bad):
    logits, noise_robust, marginal = problem(10, 4)
    marginal[2] = bad
    found = solve(logits, noise_robust, marginal)
    assert np.isnan(found.labels).all() and not found.converged


def test_a_row_that_is_nan_is_told():
    logits, noise_robust, marginal = problem(10, 4)
    logits[3, 1] = np.nan
    assert np.isnan(solve(logits, noise_robust, marginal).labels).all()
    counts = np.full(10, 2)
    assert np.isnan(solve(logits, noise_robust, marginal, label_counts=counts).labels).all()


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("counts", [False, True])
def test_eight_devices_solve_one_problem(mapping, counts):
    logits, noise_robust, marginal = problem(NUM_DEVICES * 6, 7)
    given = np.arange(len(logits)) % 5 if counts else None
    alone = solve(logits, noise_robust, marginal, label_counts=given)

    def one(logits, noise_robust, *given):
        how = {"label_counts": given[0][:, 0].astype(jnp.int32)} if given else {}
        return multilabel_surrogate_labels(
            logits, noise_robust, jnp.asarray(marginal), axis_name="batch", **how
        )

    columns = [] if given is None else [np.repeat(given[:, None], 7, 1).astype(np.float32)]
    several = jax.device_get(mapping(one, logits, noise_robust, *columns))
    np.testing.assert_allclose(several.labels.reshape(logits.shape), alone.labels, atol=5e-6)
    assert np.ptp(several.marginal_error) == 0 and several.converged.all()


def test_no_gradient_flows():
    logits, noise_robust, marginal = problem(8, 3)
    gradient = jax.grad(lambda *each: multilabel_surrogate_labels(*each).labels[0].sum(), (0, 1, 2))
    for each in gradient(*(jnp.asarray(x) for x in (logits, noise_robust, marginal))):
        assert not np.asarray(each).any()


def test_several_problems_at_once():
    several = [list(problem(12, 4, seed=seed)) for seed in range(3)]
    stacked = [np.stack(each) for each in zip(*several, strict=True)]
    found = jax.vmap(multilabel_surrogate_labels)(*(jnp.asarray(x) for x in stacked))
    for labels, own in zip(found.labels, several, strict=True):
        np.testing.assert_allclose(labels, by_root(*own), atol=1e-5)


FINITE = st.floats(-1e4, 1e4, width=32)


@hypothesis.given(
    logits=hnp.arrays(np.float32, (2, 6, 3), elements=FINITE),
    marginal=hnp.arrays(np.float32, 3, elements=st.floats(0, 1, width=32)),
)
def test_whatever_finite_logits(logits, marginal):
    found = solve(*logits, marginal)
    labels = np.asarray(found.labels)
    assert ((labels >= 0) & (labels <= 1)).all()
    if found.converged:
        np.testing.assert_allclose(labels.mean(0), marginal, atol=2e-5)
