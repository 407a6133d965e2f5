"""LDAM with deferred re-weighting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.models import build_model
from dsink_jax.training import OptimizerSettings
from method_references import (
    LABELS,
    build,
    cross_entropy,
    facts_of,
    loss_of,
    metrics_of,
    rows,
    tiny_training,
)

COUNTS = np.array([50, 30, 20])
COSINES = np.tanh(rows(4)).astype(np.float32)


def by_hand(weighted, max_margin=0.5, scale=30.0, beta=0.9999):
    """Margins, and weights by the effective number of examples with mean 1 over the batch."""
    margins = max_margin * (COUNTS.min() / COUNTS) ** 0.25
    shifted = COSINES.astype(np.float64)
    shifted[np.arange(len(LABELS)), LABELS] -= margins[LABELS]
    weights = ((1 - beta) / (1 - beta ** COUNTS.astype(float)))[LABELS]
    return cross_entropy(scale * shifted) * (weights / weights.mean() if weighted else 1)


# 20 epochs, 0.8 of them without weights.
@pytest.mark.parametrize(
    ("deferral", "epoch", "weighted"),
    [
        *((0.8, 0, False), (0.8, 15.99, False), (0.8, 16, True), (0.8, 19.9, True)),
        *((0.0, 0.0, True), (1.0, 19.99, False)),
    ],
)
def test_weights_set_in_at_the_deferral(deferral, epoch, weighted):
    values = loss_of(build("ldam_drw", deferral=deferral), COSINES, epoch=epoch).values
    np.testing.assert_allclose(values, by_hand(weighted), rtol=1e-4, atol=1e-5)


def test_options_change_margin_scale_and_weights():
    method = build("ldam_drw", max_margin=0.25, scale=10.0, deferral=0.5, beta=0.9)
    expected = by_hand(True, 0.25, 10.0, 0.9)
    np.testing.assert_allclose(loss_of(method, COSINES, epoch=10).values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("epochs", "deferral"), [(200, 0.8), (250, 0.8), (90, 0.7), (7, 0.3)])
def test_the_first_weighted_step_is_the_first_of_its_epoch(epochs, deferral):
    method, facts = build("ldam_drw", deferral=deferral), facts_of(epochs)

    @jax.jit
    def values(step, steps_per_epoch):  # epochs as the training step works them out
        return loss_of(method, COSINES, epoch=step / steps_per_epoch, facts=facts).values

    plain = values(0, np.float32(1))
    for steps_per_epoch in (1, 3, 7, 49, 157, 391):
        first = int(np.ceil(round(deferral * epochs * steps_per_epoch, 6)))
        for step, weighted in ((first - 1, False), (first, True), (first + 1, True)):
            assert np.array_equal(values(step, np.float32(steps_per_epoch)), plain) != weighted


def test_it_asks_for_a_cosine_classifier():
    method = build("ldam_drw")
    assert method.classifier == "cosine"
    model = build_model("small_cnn", 3, classifier=method.classifier)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert set(shapes["params"]["classifier"]) == {"kernel"}


def test_in_training_the_weights_set_in_with_the_right_epoch(cpus):
    """With a model that stands still and all examples in a batch, the loss changes there alone."""
    still = OptimizerSettings(learning_rate=1e-12, schedule="constant", momentum=0.0, weight_decay=0.0)
    method, facts = build("ldam_drw", deferral=0.5), facts_of(4, (40, 10, 5, 5))
    trained = tiny_training(method, cpus, facts=facts, optimizer=still, batch=60, augment=False)
    losses = [metrics["loss"] for metrics in metrics_of(trained)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(losses[3], losses[2], rtol=1e-5)
    assert abs(losses[2] / losses[1] - 1) > 0.01
