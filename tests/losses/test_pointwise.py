"""Losses of each example alone: any shape before the classes, and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax import losses

RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(2, 3, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, (2, 3))
SHARES = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
MATRIX = (0.8 * np.eye(4) + 0.05).astype(np.float32)
TARGETS = np.asarray(jax.nn.softmax(RNG.normal(size=(2, 3, 4)).astype(np.float32)))
SEVERAL = RNG.integers(0, 2, (2, 3, 4)).astype(np.float32)

OF_ONE_LABEL = {
    "logit_adjusted_cross_entropy": (SHARES,),
    "ldam": (100 * SHARES,),
    "focal_cross_entropy": (),
    "generalized_cross_entropy": (),
    "symmetric_cross_entropy": (),
    "soft_bootstrapping": (),
    "hard_bootstrapping": (),
    "forward_corrected_cross_entropy": (MATRIX,),
    "early_learning_regularized": (TARGETS,),
}
OF_SEVERAL = {"logit_adjusted_binary_cross_entropy": (SHARES,), "generalized_binary_cross_entropy": ()}
ALL = [(name, LABELS, others) for name, others in OF_ONE_LABEL.items()]
ALL += [(name, SEVERAL, others) for name, others in OF_SEVERAL.items()]


def of_row(others, row):
    return [other[row] if other is TARGETS else other for other in others]


@pytest.mark.parametrize(("name", "labels", "others"), ALL, ids=[name for name, *_ in ALL])
def test_any_shape_gives_what_rows_and_single_examples_give(name, labels, others):
    loss = getattr(losses, name)
    whole = loss(LOGITS, labels, *others)
    assert whole.shape == (2, 3)
    for row in np.ndindex(2):
        by_row = loss(LOGITS[row], labels[row], *of_row(others, row))
        np.testing.assert_allclose(whole[row], by_row, rtol=1e-6)
    one = loss(LOGITS[1, 2], labels[1, 2], *of_row(others, (1, 2)))
    assert one.shape == ()
    np.testing.assert_allclose(one, whole[1, 2], rtol=1e-6)


@pytest.mark.parametrize(("name", "labels", "others"), ALL, ids=[name for name, *_ in ALL])
def test_padding_has_no_loss_and_no_gradient_whatever_it_holds(name, labels, others):
    loss = getattr(losses, name)
    where = np.array([[True, False, True], [False, True, True]])
    bad = np.where(where[..., None], LOGITS, np.nan)
    value, gradient = jax.value_and_grad(lambda z: loss(z, labels, *others, where=where).sum())(
        jnp.asarray(bad)
    )
    whole, expected = jax.value_and_grad(lambda z: jnp.where(where, loss(z, labels, *others), 0.0).sum())(
        jnp.asarray(LOGITS)
    )
    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
    assert (np.asarray(gradient)[~where] == 0).all()


@pytest.mark.parametrize("where", [np.ones(3, bool), np.ones((2, 3), int), np.ones((2, 3, 4), bool)])
def test_where_of_another_shape_or_type_is_refused(where):
    with pytest.raises(ValueError, match="where must be bool"):
        losses.generalized_cross_entropy(LOGITS, LABELS, where=where)
