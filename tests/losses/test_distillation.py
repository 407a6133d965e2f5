from functools import cache, partial

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax import class_marginal, losses, surrogate_labels
from dsink_jax.losses import divergence_from_labels, dsink_loss, naive_distillation_loss
from loss_references import numerical_gradient


def draw(num_examples, num_classes, count, scale=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((count, num_examples, num_classes))).astype(np.float32)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def divergence(labels, logits):
    """KL(labels || softmax(logits)) by its definition, float64."""
    return (labels * (np.log(labels) - log_softmax(logits))).sum(-1)


@cache
def total_gradient(loss, argnums=0):
    return jax.jit(jax.grad(lambda *arrays: loss(*arrays).sum(), argnums=argnums))


@cache
def losses_and_gradient(loss):
    def total(*arrays):
        losses = loss(*arrays)
        return losses.sum(), losses

    def swapped(*arrays):
        gradient, losses = jax.grad(total, has_aux=True)(*arrays)
        return losses, gradient

    return jax.jit(swapped)


# KL to given labels.


def test_divergence_by_hand():
    # 1/4 log(1/4 / (1/2)) + 3/4 log(3/4 / (1/2)), and log 2 for a label that is certain.
    labels = jnp.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    expected = [0.25 * np.log(0.5) + 0.75 * np.log(1.5), np.log(2), 0.0]
    got = divergence_from_labels(jnp.full((3, 2), 4.0), labels)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_examples", [1, 7])
def test_divergence_by_its_definition(num_examples):
    logits, other = draw(num_examples, 5, 2)
    labels = softmax(other)
    got = divergence_from_labels(logits, jnp.asarray(labels))
    np.testing.assert_allclose(got, divergence(labels, logits), rtol=1e-5, atol=1e-6)
    jitted = jax.jit(divergence_from_labels)(logits, jnp.asarray(labels))
    np.testing.assert_allclose(jitted, got, rtol=0, atol=1e-6)


def test_divergence_gradient():
    logits, other = draw(4, 5, 2)
    labels = softmax(other).astype(np.float32)
    to_logits, to_labels = total_gradient(divergence_from_labels, (0, 1))(logits, labels)
    exact = numerical_gradient(lambda z: divergence(labels.astype(np.float64), z).sum(), logits)
    np.testing.assert_allclose(to_logits, exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(to_logits, softmax(logits) - labels, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(to_labels, 0)


@hypothesis.given(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-15, 15, width=32)))
def test_divergence_is_zero_only_for_equal_distributions(logits):
    labels, predictions = softmax(logits)
    got = np.asarray(divergence_from_labels(jnp.asarray(logits[1]), jnp.asarray(labels)), np.float64)
    # Pinsker's inequality: at least half the squared L1 distance, so 0 only where they are equal.
    distance = np.abs(labels - predictions).sum(1)
    assert (got >= distance**2 / 2 - 1e-5).all()
    own = divergence_from_labels(jnp.asarray(logits[0]), jnp.asarray(labels))
    np.testing.assert_allclose(own, 0, rtol=0, atol=1e-5)


def test_divergence_of_a_class_ruled_out_on_both_sides():
    logits = jnp.array([[-np.inf, 0.0, 1.0], [0.0, -np.inf, 3.0]])
    labels = jnp.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    gradient = total_gradient(divergence_from_labels)(logits, labels)
    losses = divergence_from_labels(logits, labels)
    first = np.log(1 + np.e) - 0.5 - np.log(2)
    np.testing.assert_allclose(losses, [first, np.log(1 + np.exp(3))], rtol=1e-5)
    e, e3 = 1 / (1 + np.e), 1 / (1 + np.exp(3))
    expected = [[0, e - 0.5, 0.5 - e], [e3 - 1, 0, 1 - e3]]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6)


def test_divergence_from_a_class_the_model_rules_out_is_infinite():
    logits, labels = jnp.array([[-np.inf, 0.0], [0.0, 0.0]]), jnp.full((2, 2), 0.5)
    np.testing.assert_array_equal(divergence_from_labels(logits, labels), [np.inf, 0])
    gradient = total_gradient(divergence_from_labels)(logits, labels)
    np.testing.assert_array_equal(gradient, [[-0.5, 0.5], [0, 0]])


def test_divergence_of_huge_logits():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    labels = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    losses = divergence_from_labels(logits, labels)
    np.testing.assert_allclose(losses, [2e4, 0], rtol=1e-6, atol=1e-2)
    gradient = total_gradient(divergence_from_labels)(logits, labels)
    np.testing.assert_allclose(gradient, [[1, -1, 0], [0, 0, 0]], rtol=0, atol=1e-3)


def test_constant_added_to_the_logits_does_not_matter():
    # Multiples of 1/8 and a power of two: the sum is exact in float32, the distributions are the same.
    logits = np.round(8 * draw(20, 5, 1)[0]) / 8
    labels = jnp.asarray(softmax(draw(20, 5, 1, seed=1)[0]))
    shifted = logits + np.float32(8192)
    np.testing.assert_array_equal(shifted - np.float32(8192), logits)
    expected = divergence(np.asarray(labels, np.float64), logits)
    got = divergence_from_labels(jnp.asarray(shifted), labels)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, -np.inf, np.inf, np.nan])
@pytest.mark.parametrize("loss", [divergence_from_labels, naive_distillation_loss])
def test_padding(loss, padding):
    arrays = (
        list(draw(5, 3, 3))
        if loss is naive_distillation_loss
        else [draw(5, 3, 1)[0], softmax(draw(5, 3, 1)[0])]
    )
    where = np.array([True, False, True, True, False])
    expected = loss(*(jnp.asarray(array) for array in arrays))
    expected_gradient = total_gradient(loss)(*arrays)
    for array in arrays:
        array[~where] = padding
    masked = partial(loss, where=jnp.asarray(where))
    np.testing.assert_allclose(
        masked(*(jnp.asarray(array) for array in arrays)), np.where(where, expected, 0), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        total_gradient(masked)(*arrays), np.where(where[:, None], expected_gradient, 0), rtol=0, atol=1e-6
    )


# D-SINK.


def test_dsink_by_hand():
    # Q scales rows and columns of M = sqrt(f_N f) and so keeps its odds ratio, 3. With two examples and
    # equal classes Q = [[a, 1 - a], [1 - a, a]]: (a / (1 - a))^2 = 3.
    target, noise_robust = np.array([[0.6, 0.4], [0.6, 0.4]]), np.array([[0.9, 0.1], [0.5, 0.5]])
    a = np.sqrt(3) / (1 + np.sqrt(3))
    labels = np.array([[a, 1 - a], [1 - a, a]])
    expected = (labels * np.log(labels / target)).sum(1)
    losses, gradient = losses_and_gradient(dsink_loss)(
        jnp.log(target), jnp.log(noise_robust), jnp.zeros((2, 2))
    )
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(gradient, target - labels, rtol=0, atol=2e-6)


def test_dsink_of_one_example_is_the_divergence_from_f_l():
    # One example must take the whole class marginal, whatever f and f_N say.
    logits, noise_robust, imbalance_robust = draw(1, 6, 3)
    got = jax.jit(dsink_loss)(logits, noise_robust, imbalance_robust)
    np.testing.assert_allclose(got, divergence(softmax(imbalance_robust), logits), rtol=1e-5)


def test_dsink_is_zero_when_all_models_agree():
    logits = draw(9, 4, 1)[0]
    np.testing.assert_allclose(jax.jit(dsink_loss)(logits, logits, logits), 0, rtol=0, atol=1e-5)


def test_dsink_sees_only_the_mean_of_f_l():
    logits, noise_robust, imbalance_robust = draw(12, 4, 3)
    loss = jax.jit(dsink_loss)
    expected = loss(logits, noise_robust, imbalance_robust)
    mean = np.tile(np.log(softmax(imbalance_robust).mean(0)), (12, 1)).astype(np.float32)
    for same_mean in (imbalance_robust[::-1], mean):
        got = loss(logits, noise_robust, same_mean)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert np.abs(loss(logits, noise_robust, logits) - expected).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_iterations": 10}, {"threshold": 0.05}], ids=str)
def test_dsink_is_the_divergence_from_the_surrogate_labels(options):
    arrays = draw(32, 5, 3, scale=6)
    marginal = class_marginal(arrays[2])
    solve = jax.jit(partial(surrogate_labels, **options))
    allocation = solve(arrays[0], arrays[1], marginal)
    labels = np.asarray(allocation.labels, np.float64)
    assert (allocation.iterations <= 20) == bool(options)  # both options stop the solver early

    def total(*arrays):
        losses = dsink_loss(*arrays, **options)
        return losses.sum(), losses

    gradients, losses = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)
    np.testing.assert_allclose(losses, divergence(labels, arrays[0]), rtol=1e-5, atol=1e-5)
    # Q is a constant, so differences are taken with Q held.
    exact = numerical_gradient(lambda z: divergence(labels, z).sum(), arrays[0])
    np.testing.assert_allclose(gradients[0], exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradients[0], softmax(arrays[0]) - labels, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(gradients[1], 0)
    np.testing.assert_array_equal(gradients[2], 0)


def test_dsink_hessian_is_that_of_cross_entropy_with_constant_labels():
    arrays = draw(3, 4, 3)
    hessian = jax.jit(jax.hessian(lambda z, n, i: dsink_loss(z, n, i).sum()))(*arrays)
    predictions = softmax(arrays[0])
    for i, j in np.ndindex(3, 3):
        p = predictions[i]
        expected = np.diag(p) - np.outer(p, p) if i == j else np.zeros((4, 4))
        np.testing.assert_allclose(hessian[i, :, j], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_dsink_without_jit_is_the_same():
    arrays = draw(12, 4, 3)
    np.testing.assert_allclose(dsink_loss(*arrays), jax.jit(dsink_loss)(*arrays), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_dsink_of_low_precision_logits(dtype):
    arrays = [jnp.asarray(array, dtype) for array in draw(8, 3, 3)]
    losses, gradient = losses_and_gradient(dsink_loss)(*arrays)
    expected = losses_and_gradient(dsink_loss)(*(array.astype(jnp.float32) for array in arrays))
    assert (losses.dtype, gradient.dtype) == (jnp.float32, dtype)
    np.testing.assert_allclose(losses, expected[0], rtol=0, atol=1e-6)
    rounding = jnp.finfo(dtype).eps / 2
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected[1], rtol=rounding, atol=1e-6)


# Naive distillation.


@pytest.mark.parametrize(
    ("weight", "num_examples"), [(None, 1), (None, 6), (0.0, 6), (0.3, 6), (0.5, 6), (1.0, 6)]
)
def test_naive_by_its_definition(weight, num_examples):
    logits, noise_robust, imbalance_robust = draw(num_examples, 5, 3)
    loss = naive_distillation_loss
    if weight is not None:
        loss = partial(loss, noise_weight=weight)
    share = 0.5 if weight is None else weight

    def exact(z):
        from_noise_robust = divergence(softmax(noise_robust), z)
        from_imbalance_robust = divergence(softmax(imbalance_robust), z)
        return share * from_noise_robust + (1 - share) * from_imbalance_robust

    got = loss(logits, noise_robust, imbalance_robust)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact(logits), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(loss)(logits, noise_robust, imbalance_robust), got, rtol=0, atol=1e-6)
    gradients = total_gradient(loss, (0, 1, 2))(logits, noise_robust, imbalance_robust)
    exact_gradient = numerical_gradient(lambda z: exact(z).sum(), logits)
    np.testing.assert_allclose(gradients[0], exact_gradient, rtol=0, atol=1e-5)
    mixed = share * softmax(noise_robust) + (1 - share) * softmax(imbalance_robust)
    np.testing.assert_allclose(gradients[0], softmax(logits) - mixed, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(gradients[1], 0)
    np.testing.assert_array_equal(gradients[2], 0)


def test_naive_by_hand():
    # A target that is certain of nothing; f_N (0.9, 0.1), f_L (0.2, 0.8).
    target, noise_robust, imbalance_robust = np.zeros((1, 2)), np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
    from_noise_robust = 0.9 * np.log(1.8) + 0.1 * np.log(0.2)
    from_imbalance_robust = 0.2 * np.log(0.4) + 0.8 * np.log(1.6)
    got = naive_distillation_loss(jnp.asarray(target), jnp.log(noise_robust), jnp.log(imbalance_robust), 0.25)
    np.testing.assert_allclose(got, [0.25 * from_noise_robust + 0.75 * from_imbalance_robust], rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_naive_teacher_of_weight_zero_has_no_part(weight):
    # The target rules out class 1. The teacher that counts does too, the other one does not.
    logits, same, other = jnp.array([[0.0, -np.inf]]), jnp.array([[3.0, -np.inf]]), jnp.zeros((1, 2))
    noise_robust, imbalance_robust = (same, other) if weight == 1 else (other, same)
    got = naive_distillation_loss(logits, noise_robust, imbalance_robust, weight)
    np.testing.assert_allclose(got, [0.0], rtol=0, atol=1e-6)


# Both.

FLAT = np.zeros((3, 3))
NO_CLASS_0 = np.array([[-np.inf, 0.0, 0.0]] * 3)
EDGES = {
    "one-hot, agreeing": (1e4 * np.eye(3), 1e4 * np.eye(3), 1e4 * np.eye(3)),
    "one-hot, contradicting": (1e4 * np.eye(3), 1e4 * np.eye(3)[::-1], -1e4 * np.eye(3)),
    "target without a class": (NO_CLASS_0, FLAT, FLAT),
    "target without a class in one example": (np.r_[NO_CLASS_0[:1], FLAT[1:]], FLAT, FLAT),
    "teachers without a class": (FLAT, NO_CLASS_0, NO_CLASS_0),
}


def test_a_marginal_of_ones_own_and_the_allocation():
    rng = np.random.default_rng(0)
    logits, noise_robust, imbalance_robust = jnp.asarray(rng.standard_normal((3, 8, 4)), jnp.float32)
    marginal = class_marginal(imbalance_robust)
    expected = dsink_loss(logits, noise_robust, imbalance_robust)
    np.testing.assert_allclose(
        dsink_loss(logits, noise_robust, class_marginal=marginal), expected, rtol=1e-6, atol=1e-7
    )
    own = jnp.array([4.0, 3.0, 2.0, 1.0])  # any positive multiple of shares
    values, allocation = dsink_loss(logits, noise_robust, class_marginal=own, has_aux=True)
    reference = surrogate_labels(logits, noise_robust, own)
    np.testing.assert_array_equal(allocation.labels, reference.labels)
    np.testing.assert_allclose(allocation.labels.mean(0), own / 10, atol=1e-5)
    np.testing.assert_array_equal(values, divergence_from_labels(logits, reference.labels))

    def total(z):
        losses, found = dsink_loss(z, noise_robust, class_marginal=own, has_aux=True)
        return losses.sum(), found

    gradient, found = jax.jit(jax.grad(total, has_aux=True))(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - found.labels, atol=1e-5)
    for given in ((), (imbalance_robust, own)):
        how = {"class_marginal": given[1]} if given else {}
        with pytest.raises(ValueError, match="Give one of imbalance_robust_logits and class_marginal"):
            dsink_loss(logits, noise_robust, *given[:1], **how)


@pytest.mark.parametrize("loss", [dsink_loss, naive_distillation_loss])
@pytest.mark.parametrize("case", EDGES)
def test_gradient_is_finite_at_the_edges(case, loss):
    arrays = [jnp.asarray(array, jnp.float32) for array in EDGES[case]]
    losses, gradient = losses_and_gradient(loss)(*arrays)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(1), 0, rtol=0, atol=1e-6)
    # Q gives nothing to a class that the target rules out; a teacher does, and the divergence is infinite.
    infinite = np.isinf(arrays[0]).any(1) & (loss is naive_distillation_loss)
    assert np.isfinite(losses[~infinite]).all()
    assert np.isposinf(losses[infinite]).all()


Z = jnp.zeros((4, 3))
MASK = jnp.ones(4, bool)
WRONG = [
    (divergence_from_labels, (Z[0], Z[0]), {}, r"^logits must have shape \[N, C\], got \[3\]"),
    (divergence_from_labels, (Z.astype(int), Z), {}, "^logits must be floating point, got int32"),
    (divergence_from_labels, (Z, Z[:2]), {}, r"labels must have the shape of logits, \[4, 3\], got \[2, 3\]"),
    (divergence_from_labels, (Z, jnp.zeros(4, int)), {}, r"labels must have the shape of logits"),
    (divergence_from_labels, (Z, Z.astype(int)), {}, "labels must be floating point, got int32"),
    (
        divergence_from_labels,
        (Z, Z),
        {"where": MASK[:3]},
        r"where must be bool \[N\] = \[4\], got bool \[3\]",
    ),
    (
        divergence_from_labels,
        (Z, Z),
        {"where": Z[:, 0]},
        r"where must be bool \[N\] = \[4\], got float32 \[4\]",
    ),
    *(
        (loss, arguments, options, message)
        for loss in (dsink_loss, naive_distillation_loss)
        for arguments, options, message in [
            ((Z[0], Z, Z), {}, r"^logits must have shape \[N, C\], got \[3\]"),
            ((Z.astype(int), Z, Z), {}, "^logits must be floating point, got int32"),
            ((Z, Z[:, :2], Z), {}, r"noise_robust_logits must have the shape of logits, .* got \[4, 2\]"),
            ((Z, Z.astype(int), Z), {}, "noise_robust_logits must be floating point, got int32"),
            ((Z, Z, Z[0]), {}, r"imbalance_robust_logits must have the shape of logits, .* got \[3\]"),
            ((Z, Z, Z > 0), {}, "imbalance_robust_logits must be floating point, got bool"),
            ((Z, Z, Z), {"where": MASK[:3]}, r"where must be bool \[N\] = \[4\], got bool \[3\]"),
            ((Z, Z, Z), {"where": jnp.ones(4)}, r"where must be bool \[N\] = \[4\], got float32"),
        ]
    ),
    (dsink_loss, (Z, Z, Z), {"threshold": 0.0}, "threshold must be positive, got 0.0"),
    (dsink_loss, (Z, Z, Z), {"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
    (naive_distillation_loss, (Z, Z, Z, -0.1), {}, r"noise_weight must be in \[0.0, 1.0\], got -0.1"),
    (naive_distillation_loss, (Z, Z, Z, 1.5), {}, r"noise_weight must be in \[0.0, 1.0\], got 1.5"),
    (naive_distillation_loss, (Z, Z, Z, np.nan), {}, r"noise_weight must be in \[0.0, 1.0\], got nan"),
]


@pytest.mark.parametrize(("loss", "arguments", "options", "message"), WRONG)
def test_wrong_arguments(loss, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **options)


@hypothesis.given(
    alpha=st.floats(0, 100),
    traced=st.booleans(),
    values=st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=2),
)
def test_the_weighted_sum_by_hand(alpha, traced, values):
    base, distilled = (jnp.array([value, 1.0], jnp.float32) for value in values)
    add = losses.add_distillation
    given_alpha = jnp.float32(alpha) if traced else alpha
    total = np.asarray(base) + np.float32(alpha) * np.asarray(distilled)
    np.testing.assert_allclose(
        (jax.jit(add) if traced else add)(base, distilled, given_alpha),
        total / max(1, (1 + alpha) / 2),
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(add(base, distilled, alpha, bounded=False), total, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_summed_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        losses.add_distillation(jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match="alpha"):
        losses.add_distillation(jnp.zeros(3), jnp.zeros(3), -1.0)
