"""D-SINK with a queue of past predictions, and with one class marginal for all batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.allocation import class_marginal, surrogate_labels
from dsink_jax.errors import InputError
from dsink_jax.losses import divergence_from_labels
from dsink_jax.methods import CrossEntropy, DSink, ForwardCorrection, Weighting
from dsink_jax.methods.base import Batch

N, C = 6, 4


def batches(count, seed=0):
    """Batches with logits of three models; the third row of the second batch is padding that holds NaN."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        f, f_n, f_l = rng.normal(size=(3, N, C)).astype(np.float32) * 2
        where = np.ones(N, bool)
        if number == 1:
            where[2] = False
            f[2] = f_n[2] = f_l[2] = np.nan
        yield f, f_n, f_l, where


def losses_of(method, all_batches):
    """Distillation losses of batch after batch, the state carried along."""
    state = method.init_shared(C)
    loss = jax.jit(lambda f, batch: method.loss(f, batch, (), epoch=jnp.ones(()), axis_name=None))
    for f, f_n, f_l, where in all_batches:
        batch = Batch(
            jnp.zeros((N, 1)),
            jnp.zeros(N, jnp.int32),
            jnp.asarray(where),
            noise_robust_logits=jnp.asarray(f_n),
            imbalance_robust_logits=jnp.asarray(f_l),
            shared_state=state,
        )
        output = loss(jnp.asarray(f), batch)
        state = output.shared_state
        yield np.asarray(output.metrics["distillation"])


@pytest.mark.parametrize("length", [4, 6, 10, 100])
def test_past_rows_are_part_of_the_problem(length):
    """Against one problem put together by hand from the last valid rows."""
    found = losses_of(DSink(CrossEntropy(), Weighting(1.0), queue=length), batches(4))
    past = []
    for (f, f_n, f_l, where), values in zip(batches(4), found, strict=True):
        own = [(f[i], f_n[i], f_l[i]) if where[i] else None for i in range(N)]
        rows = [row for row in own + past[-length:] if row is not None]
        stacked = [jnp.asarray(np.stack(part)) for part in zip(*rows, strict=True)]
        labels = surrogate_labels(stacked[0], stacked[1], class_marginal(stacked[2])).labels[: where.sum()]
        expected = divergence_from_labels(jnp.asarray(f[where]), labels)
        np.testing.assert_allclose(values[where], expected, atol=2e-5)
        assert (values[~where] == 0).all()
        past += own


def test_without_a_queue_there_is_no_state():
    method = DSink(CrossEntropy(), Weighting(1.0))
    assert method.init_shared(C) == () == CrossEntropy().init_shared(C)
    first = next(losses_of(method, batches(1)))
    with_empty = next(losses_of(DSink(CrossEntropy(), Weighting(1.0), queue=50), batches(1)))
    np.testing.assert_allclose(first, with_empty, atol=1e-5)  # nothing is in it yet


def test_state_of_the_base_is_its_own():
    base = ForwardCorrection(10, None)
    method = DSink(base, Weighting(1.0), queue=5)
    state = method.init_shared(2)
    assert jax.tree.all(jax.tree.map(np.array_equal, state["base"], base.init_shared(2)))
    assert [leaf.shape for leaf in state["term"][0]] == [(5, 2), (5, 2), (5, 2), (5,)]


def test_gradient_is_that_of_the_batch_alone():
    """Past predictions are constants: the gradient of example i is softmax - q, none through the queue."""
    method = DSink(CrossEntropy(), Weighting(1.0), queue=8)
    (first, second) = list(batches(3))[::2]
    state = method.init_shared(C)

    def batch(arrays, state):
        parts = [jnp.asarray(part) for part in arrays]
        return Batch(
            jnp.zeros((N, 1)),
            jnp.zeros(N, jnp.int32),
            parts[3],
            noise_robust_logits=parts[1],
            imbalance_robust_logits=parts[2],
            shared_state=state,
        )

    def distillation(f, batch):
        output = method.loss(f, batch, (), epoch=jnp.ones(()), axis_name=None)
        return output.metrics["distillation"].sum(), output.shared_state

    _, state = distillation(jnp.asarray(first[0]), batch(first, state))
    gradient = jax.grad(lambda f: distillation(f, batch(second, state))[0])(jnp.asarray(second[0]))
    stacked = [
        jnp.concatenate([jnp.asarray(two), jnp.asarray(one)])
        for one, two in zip(first[:3], second[:3], strict=True)
    ]
    labels = surrogate_labels(stacked[0], stacked[1], class_marginal(stacked[2])).labels[:N]
    np.testing.assert_allclose(gradient, jax.nn.softmax(second[0]) - labels, atol=2e-5)


def test_one_marginal_for_all_batches():
    marginal = (0.4, 0.3, 0.2, 0.1)
    method = DSink(CrossEntropy(), Weighting(1.0), marginal="dataset", class_marginal=marginal)
    (f, f_n, _, _), values = next(batches(1)), next(losses_of(method, batches(1)))
    labels = surrogate_labels(jnp.asarray(f), jnp.asarray(f_n), jnp.asarray(marginal)).labels
    np.testing.assert_allclose(values, divergence_from_labels(jnp.asarray(f), labels), atol=2e-5)


def test_marginal_that_is_not_known():
    with pytest.raises(InputError, match="Unknown marginal 'epoch'"):
        DSink(CrossEntropy(), Weighting(1.0), marginal="epoch")
    with pytest.raises(InputError, match="queue"):
        DSink(CrossEntropy(), Weighting(1.0), queue=-1)
    with pytest.raises(ValueError, match="needs class_marginal"):
        next(losses_of(DSink(CrossEntropy(), Weighting(1.0), marginal="dataset"), batches(1)))
