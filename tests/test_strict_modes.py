"""JAX's strict modes: 64 bits, NaN as errors, no promotion of ranks or types. Values stay what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsink_jax
from dsink_jax import audit, fit, losses

MODES = {
    "64 bits": lambda: jax.enable_x64(True),
    "NaN": lambda: jax.debug_nans(True),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "types": lambda: jax.numpy_dtype_promotion("strict"),
}

RNG = np.random.default_rng(0)
F, F_N, F_L = RNG.normal(size=(3, 12, 5)).astype(np.float32)
LABELS = (np.arange(12) % 5).astype(np.int32)
SHARES = np.full(5, 0.2, np.float32)
SEVERAL = np.eye(5, dtype=np.float32)[LABELS]
WHERE = np.arange(12) > 2
CONFIDENT = np.float32(1e4) * SEVERAL

LOSSES = {
    "dsink": lambda z: dsink_jax.dsink_loss(z, F_N, F_L, where=WHERE),
    "dsink of sure models": lambda z: dsink_jax.dsink_loss(z + CONFIDENT, CONFIDENT, CONFIDENT),
    "naive": lambda z: dsink_jax.naive_distillation_loss(z, F_N, F_L, 0.5),
    "open set": lambda z: dsink_jax.open_set_dsink_loss(z, F_N, F_L, 0.8, where=WHERE),
    "several": lambda z: dsink_jax.multilabel_dsink_loss(z, F_N, F_L, where=WHERE),
    "counted": lambda z: dsink_jax.multilabel_dsink_loss(z, F_N, F_L, label_counts=np.ones(12, np.float32)),
    "adjusted": lambda z: losses.logit_adjusted_cross_entropy(z, LABELS, SHARES, where=WHERE),
    "ldam": lambda z: losses.ldam(z, LABELS, 12 * SHARES),
    "focal": lambda z: losses.focal_cross_entropy(z, LABELS, where=WHERE),
    "gce": lambda z: losses.generalized_cross_entropy(z, LABELS),
    "sce": lambda z: losses.symmetric_cross_entropy(z, LABELS, where=WHERE),
    "elr": lambda z: losses.early_learning_regularized(z, LABELS, SEVERAL),
    "soft": lambda z: losses.soft_bootstrapping(z, LABELS),
    "hard": lambda z: losses.hard_bootstrapping(z, LABELS),
    "forward": lambda z: losses.forward_corrected_cross_entropy(z, LABELS, np.eye(5, dtype=np.float32)),
    "binary adjusted": lambda z: losses.logit_adjusted_binary_cross_entropy(z, SEVERAL, SHARES),
    "binary gce": lambda z: losses.generalized_binary_cross_entropy(z, SEVERAL, where=WHERE),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(name):
    def both():
        return jax.value_and_grad(lambda z: LOSSES[name](z).sum())(jnp.asarray(F))

    value, gradient = both()
    for mode, turned_on in MODES.items():
        with turned_on():
            got, uphill = both()
        assert got.dtype == uphill.dtype == jnp.float32, mode
        np.testing.assert_allclose(got, value, rtol=1e-5, err_msg=mode)
        np.testing.assert_allclose(uphill, gradient, rtol=1e-4, atol=1e-6, err_msg=mode)


# OTT's derivative promotes ranks and types in lines of its own, where no setting of ours reaches.
@pytest.mark.parametrize("mode", ["64 bits", "NaN"])
def test_gradient_through_the_transport(mode):
    def uphill():
        cost = losses.label_cost(jnp.asarray(LABELS), jnp.arange(5), 5)
        return jax.grad(losses.transport_distance)(jnp.asarray(F[:, 0]), cost)

    expected = uphill()
    with MODES[mode]():
        np.testing.assert_allclose(uphill(), expected, atol=1e-6)


OPTIONS = {
    "coteaching": {"coteaching_noise_rate": "estimated"},
    "ot_reweighting": {"ot_reweighting_meta_per_class": 2, "ot_reweighting_meta_labels": "observed"},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_trainings(mode):
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    vectors = np.eye(3)[labels] + 0.2 * rng.normal(size=(48, 3))
    how = {"epochs": 2, "batch_size": 16, "devices": jax.devices()[:1]}
    with MODES[mode]():
        for name in ("ot_reweighting", "coteaching", "tau_norm", "tabasco"):
            fitted = fit(vectors, labels, noise_method=name, target=False, options=OPTIONS.get(name), **how)
            assert np.isfinite(fitted.logits(vectors, "noise_robust")).all(), name
        fitted = fit(vectors, labels, known_share=0.9, **how)
        assert fitted.known_probability(vectors).dtype == np.float32
        assert np.isfinite(fitted.surrogate_labels(vectors).labels).all()
        assert fit(vectors, np.eye(3)[labels].astype(int), **how).predict_proba(vectors).shape == (48, 3)
        images = rng.integers(0, 256, (48, 8, 8, 3)).astype(np.uint8)
        assert np.isfinite(fit(images, labels, model="small_cnn", **how).logits(images)).all()
        found = audit.audit_labels(vectors, labels, epochs=2, batch_size=16)
        assert np.isfinite(found.wrong_probability).all()
