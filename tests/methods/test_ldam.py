"""LDAM with deferred re-weighting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.data import training_order
from dsink_jax.methods import DSink, LdamDrw, Weighting
from dsink_jax.models import build_model
from dsink_jax.training import OptimizerSettings, build_optimizer, create_state, make_train_step
from method_references import FACTS, LABELS, build, cross_entropy, loss_of, rows
from tiny_training import NUM_CLASSES, tiny_model

COUNTS = np.array([50, 30, 20])
COSINES = np.tanh(rows(4)).astype(np.float32)


def margin_loss(cosines, max_margin=0.5, scale=30.0):
    margins = max_margin * (COUNTS.min() / COUNTS) ** 0.25
    shifted = cosines.astype(np.float64)
    shifted[np.arange(len(LABELS)), LABELS] -= margins[LABELS]
    return cross_entropy(scale * shifted)


def effective_weights(beta=0.9999):
    """Of each example of the batch, with mean 1."""
    weights = ((1 - beta) / (1 - beta ** COUNTS.astype(float)))[LABELS]
    return weights / weights.mean()


@pytest.mark.parametrize(("epoch", "weighted"), [(0, False), (15.99, False), (16, True), (19.9, True)])
def test_weights_set_in_at_the_deferral(epoch, weighted):
    method = build("ldam_drw")  # 20 epochs, 0.8 of them without weights
    expected = margin_loss(COSINES) * (effective_weights() if weighted else 1)
    assert not np.allclose(effective_weights(), 1, atol=0.1)
    np.testing.assert_allclose(loss_of(method, COSINES, epoch=epoch).values, expected, rtol=1e-4, atol=1e-5)


def test_options_change_margin_scale_and_weights():
    options = {"max_margin": 0.25, "scale": 10.0, "deferral": 0.5, "beta": 0.9}
    method = build("ldam_drw", **{f"ldam_drw_{name}": value for name, value in options.items()})
    expected = margin_loss(COSINES, 0.25, 10.0) * effective_weights(0.9)
    np.testing.assert_allclose(loss_of(method, COSINES, epoch=10).values, expected, rtol=1e-4, atol=1e-5)


def test_ends_of_the_deferral():
    for deferral, epoch, weighted in ((0.0, 0.0, True), (1.0, 19.99, False)):
        method = build("ldam_drw", ldam_drw_deferral=deferral)
        expected = margin_loss(COSINES) * (effective_weights() if weighted else 1)
        values = loss_of(method, COSINES, epoch=epoch).values
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 49, 157, 391])
@pytest.mark.parametrize(("epochs", "deferral"), [(200, 0.8), (250, 0.8), (90, 0.7), (7, 0.3)])
def test_the_first_weighted_step_is_the_first_of_its_epoch(steps_per_epoch, epochs, deferral):
    method = LdamDrw((50, 30, 20), epochs, deferral=deferral)
    first = int(np.ceil(round(deferral * epochs * steps_per_epoch, 6)))

    @jax.jit
    def epoch_of(step):  # as the training step works it out
        return step / steps_per_epoch

    plain = loss_of(method, COSINES, epoch=0.0).values
    for step, weighted in ((first - 1, False), (first, True), (first + 1, True)):
        values = loss_of(method, COSINES, epoch=epoch_of(jnp.int32(step))).values
        assert np.array_equal(values, plain) != weighted


def test_prediction_is_the_softmax_of_scaled_cosines():
    for scale in (30.0, 5.0):
        method = build("ldam_drw", ldam_drw_scale=scale)
        np.testing.assert_allclose(method.predict(jnp.asarray(COSINES)), scale * COSINES, rtol=1e-6)
    distilled = DSink(build("ldam_drw"), Weighting(1.0))
    np.testing.assert_allclose(distilled.predict(jnp.asarray(COSINES)), 30 * COSINES, rtol=1e-6)


def test_it_asks_for_a_cosine_classifier():
    method = build("ldam_drw")
    assert method.classifier == DSink(method, Weighting(1.0)).classifier == "cosine"
    model = build_model("small_cnn", 3, classifier=method.classifier)
    classifier = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"][
        "classifier"
    ]
    assert set(classifier) == {"kernel"}


def test_counts_follow_the_prior_that_may_be_used():
    assert build("ldam_drw", FACTS._replace(prior="clean")).class_counts == (70, 20, 10)
    uniform = build("ldam_drw", FACTS._replace(prior="uniform"), ldam_drw_max_margin=0.0)
    # Without margins and with equal weights it is cross-entropy of the scaled cosines.
    values = loss_of(uniform, COSINES, epoch=19).values
    np.testing.assert_allclose(values, cross_entropy(30.0 * COSINES), rtol=1e-4, atol=1e-5)


def test_in_training_the_weights_set_in_with_the_right_step(small_data, plain):
    """The loss of the same batch and parameters, before and after the deferral."""
    method = LdamDrw((40, 10, 5, 5), 2, deferral=0.5)
    model = tiny_model(method, None)
    optimizer = build_optimizer(OptimizerSettings(1e-12, "constant", 0.0, False, 0.0), 10)
    state = create_state(model, method, optimizer, jax.random.key(0), small_data.images[:1], 60, NUM_CLASSES)
    order = training_order(60, 16, 1, seed=0, epoch=0)
    step = jax.jit(make_train_step(model, method, optimizer, plain, 3))
    losses = []
    for _ in range(5):
        state, metrics = step(
            state, small_data, None, jax.random.key(0), order.index[0, 0], order.where[0, 0]
        )
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[1:3], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[4], losses[3], rtol=1e-5)
    assert abs(losses[3] / losses[2] - 1) > 0.01
