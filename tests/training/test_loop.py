import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dsink_jax.data import Augmentation
from dsink_jax.errors import InputError
from dsink_jax.methods import CrossEntropy, EarlyLearningRegularization
from dsink_jax.models import build_model
from dsink_jax.training import (
    AXIS,
    BarProgress,
    Checkpointer,
    FitSettings,
    LineProgress,
    OptimizerSettings,
    Preprocessing,
    TrainingDivergedError,
    build_optimizer,
    fit,
    make_predictor,
)
from dsink_jax.training.parallel import must_read

SGD = OptimizerSettings(0.05, "cosine", 0.9, False, 5e-4)
AUGMENTED = Preprocessing(Augmentation(1, False), (0.3,), (0.25,))


def train(data, devices, epochs=4, method=None, **options):
    settings = FitSettings(epochs, 16, options.pop("optimizer", SGD), checkpoint_every=1)
    model = build_model("small_cnn", 4, axis_name=AXIS)
    method = method or EarlyLearningRegularization()
    return fit(model, method, data, AUGMENTED, settings, num_classes=4, seed=5, devices=devices, **options)


class StoppedError(Exception):
    pass


def test_resumed_training_is_bit_identical_to_an_undisturbed_one(small_data, cpus, tmp_path):
    whole = train(small_data, cpus[:1])

    def stop(record):
        if record["epoch"] == 3:  # after epoch 3 was trained and before it is saved
            raise StoppedError

    with pytest.raises(StoppedError):
        train(small_data, cpus[:1], checkpointer=Checkpointer(tmp_path), on_record=stop)
    seen = []
    resumed = train(
        small_data,
        cpus[:1],
        checkpointer=Checkpointer(tmp_path),
        on_record=lambda record: seen.append(record["epoch"]),
    )
    assert seen == [3, 4]
    assert resumed.history == whole.history
    for ours, theirs in zip(
        jax.tree.leaves(resumed.variables), jax.tree.leaves(whole.variables), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    again = train(small_data, cpus[:1], checkpointer=Checkpointer(tmp_path), on_record=stop)
    assert again.history == whole.history


def test_checkpoint_of_another_model_is_refused_with_a_remedy(small_data, cpus, tmp_path):
    train(small_data, cpus[:1], epochs=1, checkpointer=Checkpointer(tmp_path))
    with pytest.raises(InputError, match="Remove that directory"):
        train(small_data, cpus[:1], method=CrossEntropy(), checkpointer=Checkpointer(tmp_path))


class Diverging(CrossEntropy):
    """Cross-entropy that is not a number from the second epoch on."""

    def loss(self, logits, batch, example_state, *, epoch, axis_name):
        result = super().loss(logits, batch, example_state, epoch=epoch, axis_name=axis_name)
        return result._replace(values=jnp.where(epoch < 1, result.values, jnp.nan))


def test_divergence_stops_the_training_and_says_when(small_data, cpus):
    with pytest.raises(TrainingDivergedError, match=r"loss was not finite in epoch 2, step 5 \(loss nan"):
        train(small_data, cpus[:1], method=Diverging())


@pytest.mark.slow
def test_long_epoch_on_many_cpu_devices_survives(small_data, cpus):
    """More unread collective steps than JAX on CPU bears would abort the whole process."""
    images = np.tile(small_data.images, (14, 1, 1, 1))
    data = small_data._replace(images=images, labels=np.tile(small_data.labels, 14))
    fitted = train(data, cpus, epochs=1, method=CrossEntropy())
    assert len(data.labels) / 16 > 50
    assert np.isfinite(fitted.history[-1]["train"]["loss"])
    assert must_read(16, cpus) and not must_read(15, cpus) and not must_read(16, cpus[:1])


def test_ending_early_is_the_longer_training_cut_off(small_data, cpus, tmp_path):
    """With the learning rate as it is then: not annealed over fewer epochs."""
    settings = FitSettings(4, 16, SGD, end_after=2)
    model = build_model("small_cnn", 4, axis_name=AXIS)
    cut = fit(model, CrossEntropy(), small_data, AUGMENTED, settings, num_classes=4, seed=5, devices=cpus[:1])
    seen = []
    train(
        small_data,
        cpus[:1],
        method=CrossEntropy(),
        epochs=4,
        evaluate=lambda variables: seen.append(jax.device_get(variables)) or {},
    )
    assert len(cut.history) == 2 and len(seen) == 4
    for ours, theirs in zip(jax.tree.leaves(cut.variables), jax.tree.leaves(seen[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("optimized")
def test_several_steps_in_a_dispatch_train_the_same(small_data, cpus):
    single = train(small_data, cpus[:1], epochs=1)
    settings = FitSettings(1, 16, SGD, steps_per_dispatch=3)  # 4 steps: a dispatch of 3 and one of 1
    model = build_model("small_cnn", 4, axis_name=AXIS)
    method = EarlyLearningRegularization()
    several = fit(model, method, small_data, AUGMENTED, settings, num_classes=4, seed=5, devices=cpus[:1])
    assert several.history[-1]["train"]["loss"] == pytest.approx(
        single.history[-1]["train"]["loss"], abs=1e-4
    )
    for ours, theirs in zip(
        jax.tree.leaves(several.variables), jax.tree.leaves(single.variables), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_evaluation_happens_when_asked_and_at_the_end(small_data, cpus):
    settings = FitSettings(5, 16, SGD, evaluate_every=2)
    model = build_model("small_cnn", 4, axis_name=AXIS)
    fitted = fit(
        model,
        CrossEntropy(),
        small_data,
        AUGMENTED,
        settings,
        num_classes=4,
        seed=0,
        devices=cpus[:1],
        evaluate=lambda variables: {"marker": sorted(variables)},
    )
    assert [record["epoch"] for record in fitted.history] == [2, 4, 5]
    assert fitted.history[0]["marker"] == ["batch_stats", "params"]


def test_training_learns(small_data, cpus):
    fitted = train(small_data, cpus[:2], epochs=8, method=CrossEntropy())
    predict = make_predictor(build_model("small_cnn", 4), CrossEntropy(), AUGMENTED, cpus[:2], batch_size=7)
    predictions = predict(fitted.variables, small_data.images).argmax(-1)
    assert np.mean(predictions == small_data.labels) > 0.9  # chance is 0.25


def test_predictor_does_not_depend_on_batching_or_devices(small_data, cpus):
    model = build_model("small_cnn", 4)
    variables = model.init(jax.random.key(0), small_data.images[:1].astype(np.float32))
    images = (small_data.images.astype(np.float32) / 255 - 0.3) / 0.25
    expected = np.asarray(model.apply(variables, images, False)[0])
    for devices, batch_size in ((cpus[:1], 512), (cpus[:3], 7), (cpus, 1)):
        predict = make_predictor(model, CrossEntropy(), AUGMENTED, devices, batch_size=batch_size)
        np.testing.assert_allclose(predict(variables, small_data.images), expected, atol=1e-5)


def test_sgd_with_momentum_and_weight_decay_by_hand():
    """v <- 0.9 v + (g + 0.1 w); w <- w - 0.5 v, as PyTorch's SGD steps."""
    optimizer = build_optimizer(OptimizerSettings(0.5, "constant", 0.9, False, 0.1), 10)
    weight, velocity = 2.0, 0.0
    value, state = np.float32(2.0), optimizer.init(np.float32(2.0))
    for gradient in (1.0, -3.0, 0.5):
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight -= 0.5 * velocity
        update, state = optimizer.update(np.float32(gradient), state, value)
        value = value + update
    assert float(value) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", {0: 1.0, 50: 1.0, 99: 1.0}),
        ("cosine", {0: 1.0, 50: 0.5, 75: 0.5 * (1 + np.cos(0.75 * np.pi))}),
        ("step", {0: 1.0, 49: 1.0, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}),
    ],
)
def test_schedules_by_hand(schedule, factors):
    optimizer = build_optimizer(OptimizerSettings(0.2, schedule, 0.0, False, 0.0), 100)
    state = optimizer.init(np.float32(0.0))
    for step in range(100):
        update, state = optimizer.update(np.float32(1.0), state, np.float32(0.0))
        if step in factors:
            assert -float(update) == pytest.approx(0.2 * factors[step], rel=1e-5)


def test_progress_off_a_terminal_is_a_rare_plain_line(small_data, cpus):
    quiet, chatty = io.StringIO(), io.StringIO()
    train(small_data, cpus[:1], epochs=2, progress=LineProgress("f_N", quiet))
    train(small_data, cpus[:1], epochs=2, progress=LineProgress("f_N", chatty, seconds_between=0.0))
    assert quiet.getvalue() == ""
    assert [line.split(",")[0] for line in chatty.getvalue().splitlines()] == [
        "  f_N: epoch 1/2",
        "  f_N: epoch 2/2",
    ]
    assert "\x1b" not in chatty.getvalue() and "images/s" in chatty.getvalue()


def test_progress_on_a_terminal_shows_loss_accuracy_speed_and_time(small_data, cpus):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    train(small_data, cpus[:1], epochs=3, progress=BarProgress("target", console))
    for word in ("target", "loss", "accuracy", "images/s", "epoch"):
        assert word in screen.getvalue()
