"""Truncated generalised cross-entropy."""

import jax.numpy as jnp
import numpy as np
import pytest

from method_references import (
    CLASSES,
    EXAMPLES,
    LABELS,
    LOGITS,
    build,
    cross_entropy,
    loss_of,
    metrics_of,
    refreshes,
    softmax,
    tiny_training,
)

# Every other label is believed.
BELIEVED = LOGITS + 5 * np.eye(CLASSES, dtype=np.float32)[LABELS] * (np.arange(EXAMPLES) % 2)[:, None]
LIKELIHOOD = softmax(BELIEVED)[np.arange(EXAMPLES), LABELS]


@pytest.mark.parametrize("bound", [0.0, 0.1, 0.5, 1.0])
def test_examples_that_are_believed_are_kept(bound):
    before = np.zeros(EXAMPLES, np.float32)  # who was kept before has no part in it
    kept, shared = build("truncated_gce", bound=bound).refresh(BELIEVED, LABELS, before, ())
    np.testing.assert_array_equal(kept, bound <= LIKELIHOOD)
    assert kept.dtype == np.float32 and shared == ()
    if bound == 0.5:
        assert 0 < kept.sum() < EXAMPLES


def test_the_bound_itself_is_kept():
    logits = np.log(np.array([[0.25, 0.25, 0.5]], np.float32) * 4)
    kept, _ = build("truncated_gce").refresh(logits, np.array([2]), None, ())
    assert kept.tolist() == [1.0]


def test_values_by_hand():
    method = build("truncated_gce", q=0.4)
    all_values = (1 - np.exp(-cross_entropy(LOGITS)) ** 0.4) / 0.4
    np.testing.assert_allclose(loss_of(method).values, all_values, rtol=1e-5)
    state = jnp.asarray([1, 0, 1, 0, 0, 1, 1, 0], jnp.float32)
    result = loss_of(method, state=state)
    np.testing.assert_allclose(result.values, np.asarray(state) * all_values, rtol=1e-5)
    np.testing.assert_array_equal(result.example_state, state)
    np.testing.assert_array_equal(result.metrics["kept"], state)


def test_schedule():
    def passes(epochs, **options):
        return refreshes(build("truncated_gce", **options), epochs)

    assert passes(120) == [40, 50, 60, 70, 80, 90, 100, 110]  # as published
    assert passes(20, every=4) == [7, 11, 15, 19]
    assert passes(20, start_share=0.5, every=1) == list(range(10, 20))
    assert passes(20, start_share=0.0, every=5) == [5, 10, 15]  # never before a first epoch
    assert passes(1) == []


def test_in_training_some_are_left_out_after_the_first_pass(cpus):
    method = build("truncated_gce", every=1, bound=0.2)
    assert refreshes(method, 4) == [1, 2, 3]
    kept = np.array([metrics["kept"] for metrics in metrics_of(tiny_training(method, cpus))])
    assert kept[0] == 1
    assert ((kept[1:] > 0) & (kept[1:] < 1)).all()
    # In shares of the 60 examples.
    np.testing.assert_allclose(kept * 60, np.round(kept * 60), atol=1e-4)
