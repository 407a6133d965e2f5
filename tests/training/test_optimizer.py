"""How parameters are stepped, against Optax's own loops and numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsink_jax.data import training_order
from dsink_jax.methods import CrossEntropy
from dsink_jax.models import build_model
from dsink_jax.training import Checkpointer, OptimizerSettings, TrainingStoppedError, build_optimizer
from tiny_training import Kept, assert_close_trees, assert_equal_trees, sequences, stop_at, tiny_model, train

TOTAL = 12  # three steps in each of four epochs: 48 examples in batches of 16
OWN = optax.chain(optax.clip_by_global_norm(0.5), optax.adamax(optax.linear_schedule(0.1, 0.0, TOTAL)))
# With what they are in Optax's own words.
OPTIMIZERS = {
    "sgd": (
        OptimizerSettings("sgd", 0.2, "cosine", 0.9, True, 0.01),
        optax.chain(
            optax.add_decayed_weights(0.01),
            optax.sgd(optax.cosine_decay_schedule(0.2, TOTAL), momentum=0.9, nesterov=True),
        ),
    ),
    "adamw": (
        OptimizerSettings("adamw", 0.05, "cosine", weight_decay=0.1),
        optax.adamw(optax.cosine_decay_schedule(0.05, TOTAL), weight_decay=0.1),
    ),
    "own": (OptimizerSettings(OWN), OWN),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_a_plain_optax_loop(name, cpus, tmp_path):
    """Softmax regression on [48, 15], the loop written out; it learns, and goes on after a stop."""
    settings, optimizer = OPTIMIZERS[name]
    data = sequences(48)
    data = data._replace(inputs=data.inputs.reshape(48, -1))
    model = build_model("linear", 4)
    options = {"model": model, "optimizer": settings, "preprocess": None, "standardization": None}
    options["steps_per_dispatch"] = 1
    trained = train(CrossEntropy(), data, cpus[:1], **options)

    def loss(params, inputs, labels):
        logits, _ = model.apply({"params": params}, inputs)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params = model.init(jax.random.split(jax.random.key(5))[0], data.inputs[:1])["params"]
    state = optimizer.init(params)
    for epoch in range(4):
        for rows in training_order(48, 16, 1, seed=5, epoch=epoch).index:
            gradient = jax.grad(loss)(params, data.inputs[rows[0]], data.labels[rows[0]])
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
    assert_close_trees(trained.variables["params"], jax.device_get(params), 1e-5)
    losses = [record["train"]["loss"] for record in trained.history]
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(TrainingStoppedError):
        train(
            *(CrossEntropy(), data, cpus[:1]),
            **{"checkpointer": Checkpointer(tmp_path), "should_stop": stop_at(5), **options},
        )
    resumed = train(CrossEntropy(), data, cpus[:1], checkpointer=Checkpointer(tmp_path), **options)
    assert resumed.history == trained.history
    assert_equal_trees(resumed.variables, trained.variables)


def test_sgd_with_momentum_and_weight_decay_by_hand():
    """v <- 0.9 v + (g + 0.1 w); w <- w - 0.5 v, as PyTorch's SGD steps."""
    settings = OptimizerSettings("sgd", 0.5, "constant", 0.9, False, 0.1)
    optimizer = build_optimizer(settings.kind(), settings.numbers(10))
    weight, velocity = 2.0, 0.0
    value, state = np.float32(2.0), optimizer.init(np.float32(2.0))
    for gradient in (1.0, -3.0, 0.5):
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight -= 0.5 * velocity
        update, state = optimizer.update(np.float32(gradient), state, value)
        value = value + update
    assert float(value) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_schedules_are_those_of_optax_at_every_step(schedule, total):
    theirs = {
        "constant": optax.constant_schedule(0.2),
        "cosine": optax.cosine_decay_schedule(0.2, total),
        "step": lambda count: 0.2 * 0.1 ** ((count >= total // 2) + (count >= 3 * total // 4)),
    }[schedule]
    settings = OptimizerSettings("sgd", 0.2, schedule, 0.0, False, 0.0)
    optimizer = build_optimizer(settings.kind(), settings.numbers(total))
    counts = jnp.arange(total + 2)

    def update(state, count):
        step, state = optimizer.update(jnp.float32(1.0), state, jnp.float32(0.0))
        return state, -step

    _, rates = jax.lax.scan(update, optimizer.init(jnp.float32(0.0)), counts)
    np.testing.assert_allclose(rates, [theirs(int(count)) for count in counts], rtol=1e-5, atol=1e-8)
    if schedule == "step" and total == 100:
        boundaries = optax.piecewise_constant_schedule(0.2, {50: 0.1, 75: 0.1})
        np.testing.assert_allclose(rates, jax.vmap(boundaries)(counts), rtol=1e-6)


def test_average_of_the_parameters_by_hand(small_data, cpus, tmp_path):
    """It is what the model predicts with; short at first, and saved and resumed with the rest."""
    kept, options = Kept(), {"average_decay": 0.3, "batch_size": 20}
    whole = train(
        *(CrossEntropy(), small_data, cpus[:1], 3),
        **{"checkpointer": kept, "checkpoint_minutes": 1e-12, **options},
    )
    states = [checkpoint.state for checkpoint in kept.checkpoints]
    assert [int(state.step) for state in states] == list(range(1, 10))
    init_key = jax.random.split(jax.random.key(5))[0]
    average = tiny_model(CrossEntropy()).init(init_key, np.zeros((1, 8, 8, 1), np.float32))["params"]
    for step, state in enumerate(states):
        decay = min(0.3, (1 + step) / (10 + step))
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, average, state.params)
        assert_close_trees(state.average, average, 1e-6)
    assert_equal_trees(whole.variables["params"], states[-1].average)
    assert (
        np.abs(states[-1].average["classifier"]["bias"] - states[-1].params["classifier"]["bias"]).max()
        > 1e-5
    )
    with pytest.raises(TrainingStoppedError):
        train(
            *(CrossEntropy(), small_data, cpus[:1], 3),
            **{"checkpointer": Checkpointer(tmp_path), "should_stop": stop_at(4), **options},
        )
    resumed = train(CrossEntropy(), small_data, cpus[:1], 3, checkpointer=Checkpointer(tmp_path), **options)
    assert_equal_trees(resumed.variables, whole.variables)
