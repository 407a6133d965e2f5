"""D-SINK and naive distillation over every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsink_jax.methods import METHODS, DSink, NaiveDistillation, Weighting
from method_references import (
    CLASSES,
    EXAMPLES,
    IMBALANCE_ROBUST,
    NOISE_ROBUST,
    allocation,
    build,
    divergence,
    full_batch,
    prepared,
    rows,
    softmax,
)
from tiny_training import train, with_auxiliaries

EPOCH = 5.0


def predictions(name, logits):
    """The logits of each network's prediction, by the papers."""
    each = logits if logits.ndim == 3 else logits[None]
    if name == "ldam_drw":
        return 30 * each
    if name == "posthoc_logit_adjustment":
        return each - np.log([0.5, 0.3, 0.2])
    return each


def some_state(base):
    """Per-example state in the middle of a training."""
    rng = np.random.default_rng(3)
    empty = base.init(EXAMPLES, CLASSES)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(size=leaf.shape), leaf.dtype), empty)


def on_both(name, wrap):
    """Losses of a base alone and of a method over it, on the same outputs; and the outputs for the images."""
    base = build(name)
    method, state = wrap(base), some_state(base)
    alone, joined = (prepared(one, full_batch(), state, epoch=EPOCH) for one in (base, method))
    mixed = alone.inputs is not None
    count = len(jax.tree.leaves(alone.inputs)[0]) if mixed else EXAMPLES
    # As large as cosines, or the softmax of 30 times that is too sharp for the reference.
    scale = 0.05 if name == "ldam_drw" else 2.0
    outputs = rows(50, scale, count=2 * (count + EXAMPLES)).reshape(2, -1, CLASSES)[: base.networks]
    of_base, of_images = outputs[:, :count], outputs[:, count:] if mixed else outputs[:, :EXAMPLES]
    given = outputs if mixed else of_images
    if base.networks == 1:
        given, of_base, of_images = given[0], of_base[0], of_images[0]
    epoch = jnp.float32(EPOCH)
    alone_output = base.loss(jnp.asarray(of_base), alone, state, epoch=epoch, axis_name=None)
    output = method.loss(jnp.asarray(given), joined, state, epoch=epoch, axis_name=None)
    return alone_output, output, of_images


@pytest.mark.parametrize("name", METHODS)
def test_dsink_adds_its_loss_to_that_of_every_method(name):
    alone_output, output, of_images = on_both(name, lambda base: DSink(base, Weighting(3.0)))
    each = predictions(name, of_images)
    term = sum(divergence(allocation(one), one) for one in each)
    expected = (np.asarray(alone_output.values) + 3 * term) / 2  # bounded: (1 + 3) / 2
    np.testing.assert_allclose(output.metrics["distillation"], term, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(output.metrics["base"], alone_output.values, rtol=1e-6)
    np.testing.assert_allclose(output.values, expected, rtol=1e-3, atol=1e-4)
    # Its accuracy is that of the images themselves.
    np.testing.assert_allclose(output.predictions, each.mean(0), rtol=1e-5, atol=1e-6)
    for one, two in zip(
        jax.tree.leaves(output.example_state), jax.tree.leaves(alone_output.example_state), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert alone_output.metrics.keys() < output.metrics.keys()


@pytest.mark.parametrize("name", METHODS)
def test_naive_distillation_does_too(name):
    alone_output, output, of_images = on_both(name, lambda base: NaiveDistillation(base, Weighting(1.0), 0.9))
    term = sum(
        0.9 * divergence(softmax(NOISE_ROBUST), one) + 0.1 * divergence(softmax(IMBALANCE_ROBUST), one)
        for one in predictions(name, of_images)
    )
    np.testing.assert_allclose(output.values, alone_output.values + term, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cross_entropy", "crt"])
def test_the_term_sets_in_once_with_two_stages(name):
    """A second stage goes on with the full weight, whatever the warm-up; a first stage warms up."""
    method = DSink(build(name), Weighting(1.0, warmup_epochs=5, ramp_epochs=10))
    full = DSink(build(name), Weighting(1.0))
    batch, epoch = full_batch(), jnp.float32(0)
    logits = jnp.asarray(rows(50))
    one, other, first = (
        each.loss(logits, batch, (), epoch=epoch, axis_name=None)
        for each in (method, full, method.first_stage or method)
    )
    if name == "crt":
        np.testing.assert_array_equal(one.values, other.values)
    assert np.abs(first.values - other.values).max() > 0.1
    np.testing.assert_allclose(first.values, first.metrics["base"], rtol=1e-6)


def test_which_methods_have_inputs_of_their_own():
    mixed = {name for name in METHODS if prepared(build(name), full_batch()).inputs is not None}
    assert mixed == {"mixup", "dividemix", "ot_reweighting"}


@pytest.mark.parametrize("name", ["mixup", "dividemix", "ot_reweighting"])
def test_images_join_the_inputs_of_a_base(name):
    base = build(name)
    alone, joined = (prepared(one, full_batch()) for one in (base, DSink(base, Weighting(1.0))))
    images = np.asarray(full_batch().images)
    for own, both in zip(jax.tree.leaves(alone.inputs), jax.tree.leaves(joined.inputs), strict=True):
        np.testing.assert_array_equal(both, np.concatenate([own, images]))


@pytest.mark.parametrize("name", METHODS)
def test_what_a_base_needs_is_passed_on(name):
    base = build(name)
    for method in (DSink(base, Weighting(1.0)), NaiveDistillation(base, Weighting(1.0))):
        for need in ("networks", "views", "classifier", "second_stage", "meta_per_class", "meta_labels"):
            assert getattr(method, need) == getattr(base, need), need
        for epoch in range(20):
            assert method.refresh_before(epoch) == base.refresh_before(epoch)
        np.testing.assert_array_equal(*(jax.tree.leaves(one.init_shared(CLASSES)) for one in (method, base)))
        stages = method.first_stage, base.first_stage
        assert stages == (None, None) or stages[0] == type(method)(stages[1], Weighting(1.0))


@pytest.mark.parametrize("name", ["truncated_gce", "forward_correction", "dividemix", "coteaching"])
def test_a_refresh_is_that_of_the_base(name):
    options = {"coteaching_noise_rate": "estimated"} if name == "coteaching" else {}
    base = build(name, **options)
    logits = rows(60, count=40)
    if base.networks == 2:
        logits = np.stack([logits, rows(61, count=40)], 1)
    labels = (np.arange(40) % CLASSES).astype(np.int32)
    states = [
        one.refresh(logits, labels, base.init(40, CLASSES), base.init_shared(CLASSES))
        for one in (base, DSink(base, Weighting(1.0)))
    ]
    own, through = (jax.tree.leaves(state) for state in states)
    assert own and len(own) == len(through)
    for one, two in zip(own, through, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["mixup", "coteaching", "ot_reweighting"])
def test_dsink_trains_over_methods_of_every_kind(name, small_data, cpus):
    data = with_auxiliaries(small_data)
    facts_options = {"facts": _facts_of(small_data)}
    method = DSink(build(name, **facts_options), Weighting(2.0))
    start = None
    if method.first_stage is not None:
        first = train(method.first_stage, data, cpus[:1], epochs=1)
        start = first.variables
        assert first.history[-1]["train"]["distillation"] > 0
    fitted = train(method, data, cpus[:1], epochs=2, start_from=start)
    last = fitted.history[-1]["train"]
    assert last["sinkhorn_converged"] == 1 and last["distillation"] > 0
    combined = (last["base"] + 2 * last["distillation"]) / 1.5
    assert last["loss"] == pytest.approx(combined, rel=1e-4)


def _facts_of(data):
    from dsink_jax.methods import TrainingFacts

    counts = tuple(np.bincount(data.labels).tolist())
    return TrainingFacts(len(counts), counts, counts, 4)
