"""How a distillation term joins the base loss."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax.methods import (
    Weighting,
)

# The weighting.


def alpha_by_hand(alpha, warmup, ramp, epoch):
    if epoch < warmup:
        return 0.0
    if epoch >= warmup + ramp:
        return alpha
    return alpha * (epoch - warmup) / ramp


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 0), (4.999, 0), (5, 0), (6, 0.3), (7.5, 0.75), (10, 1.5), (14.9, 2.97), (15, 3), (100, 3)],
)
def test_warmup_then_ramp(epoch, expected):
    weighting = Weighting(3.0, warmup_epochs=5, ramp_epochs=10)
    assert alpha_by_hand(3.0, 5, 10, epoch) == pytest.approx(expected)
    assert float(weighting.alpha_at(jnp.float32(epoch))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("warmup", "epoch", "expected"), [(0, 0, 3), (0, 9, 3), (5, 0, 0), (5, 4.99, 0), (5, 5, 3), (5, 6, 3)]
)
def test_warmup_without_ramp(warmup, epoch, expected):
    assert float(Weighting(3.0, warmup_epochs=warmup).alpha_at(jnp.float32(epoch))) == expected


@given(
    alpha=st.floats(0, 20),
    warmup=st.integers(0, 20),
    ramp=st.integers(0, 20),
    quarters=st.integers(0, 200),
    loss_scale=st.sampled_from(["sum", "bounded"]),
)
def test_weighted_sum_by_hand(alpha, warmup, ramp, quarters, loss_scale):
    base, distillation = np.array([1.0, -2.0, 0.5]), np.array([0.25, 3.0, 0.0])
    weighting = Weighting(alpha, warmup, ramp, loss_scale)
    now = alpha_by_hand(alpha, warmup, ramp, quarters / 4)
    expected = base + now * distillation
    if loss_scale == "bounded":
        expected = expected / max(1, (1 + now) / 2)
    total = weighting.combine(jnp.asarray(base), jnp.asarray(distillation), jnp.float32(quarters / 4))
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@given(alpha=st.floats(0, 1))
def test_bounded_is_the_sum_up_to_alpha_one(alpha):
    base, distillation = jnp.array([1.0, 2.0]), jnp.array([0.5, 4.0])
    totals = [
        Weighting(alpha, loss_scale=scale).combine(base, distillation, jnp.float32(0))
        for scale in ("sum", "bounded")
    ]
    np.testing.assert_array_equal(*totals)


@given(alpha=st.floats(1, 1000))
def test_bounded_weights_sum_to_two_beyond(alpha):
    one, zero = jnp.ones(1), jnp.zeros(1)
    weighting = Weighting(alpha)
    assert weighting.loss_scale == "bounded"
    of_base, of_distillation = (
        float(weighting.combine(*pair, jnp.float32(0))[0]) for pair in ((one, zero), (zero, one))
    )
    assert of_base + of_distillation == pytest.approx(2, rel=1e-5)
    assert of_distillation / of_base == pytest.approx(alpha, rel=1e-5)
