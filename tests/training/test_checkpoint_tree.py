"""What lies on disk is the state as it is: plain Orbax reads it, and every structure comes back."""

import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from dsink_jax.errors import InputError
from dsink_jax.training import Checkpoint, Checkpointer, TrainState, integrity, load_variables

RNG = np.random.default_rng(0)
LAYERS = {
    "Dense_0": {"kernel": RNG.normal(size=(3, 4)).astype(np.float32), "bias": np.arange(4, dtype=np.float32)},
    "classifier": {"kernel": RNG.normal(size=(4, 2)).astype(np.float32)},
}
STATISTICS = {"batch_stats": {"BatchNorm_0": {"mean": np.full(4, 0.1, np.float32)}}, "spectral": {}}


def state_of(params=LAYERS, optimizer=None, **parts):
    optimizer = optimizer or optax.sgd(0.1, momentum=0.9)
    parts = {"collections": {}, "example_state": (), **parts}
    return TrainState(jnp.int32(7), params, opt_state=optimizer.init(params), **parts)


def save(state, place, **parts):
    Checkpointer(place).save(Checkpoint(state, 1, [{"epoch": 1}], 2.5, **parts))


def assert_same_arrays(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def test_plain_orbax_reads_the_natural_tree(tmp_path):
    state = state_of(collections=STATISTICS, example_state={"targets": np.ones((5, 2), np.float16)})
    save(state, tmp_path, step=3, sums={"loss": jnp.float32(0.5)})
    with ocp.StandardCheckpointer() as plain:
        tree = plain.restore(tmp_path / "7" / "state")
    assert tree.keys() == set(TrainState._fields)
    assert_same_arrays(tree["params"], LAYERS)
    assert_same_arrays(tree["collections"], STATISTICS)
    assert_same_arrays(tree["opt_state"][0]["trace"], jax.tree.map(np.zeros_like, LAYERS))
    assert_same_arrays(tree["example_state"], state.example_state)
    assert int(tree["step"]) == 7
    assert json.loads((tmp_path / "7" / "record").read_text()) == {
        **{"epoch": 1, "history": [{"epoch": 1}], "seconds": 2.5, "step": 3},
        "sums": {"loss": 0.5},
    }
    assert_same_arrays(load_variables(tmp_path), {"params": LAYERS, **STATISTICS})


def test_parameters_to_predict_with_are_the_averages(tmp_path):
    average = jax.tree.map(lambda leaf: leaf / 3, LAYERS)
    save(state_of(collections=STATISTICS, average=average), tmp_path)
    assert_same_arrays(load_variables(tmp_path), {"params": average, **STATISTICS})


@flax.struct.dataclass
class Queue:
    rows: jax.Array
    place: jax.Array


TWO = {"network_0": LAYERS, "network_1": jax.tree.map(np.negative, LAYERS)}
BY_NUMBER = {"layers": {i: {"kernel": np.full(2, i, np.float32)} for i in range(12)}}
MASK = {"Dense_0": True, "classifier": False}
STATES = {
    "no statistics": state_of(),
    "statistics": state_of(collections=STATISTICS),
    "parts of the optimiser that hold nothing": state_of(
        optimizer=optax.chain(optax.add_decayed_weights(0.1), optax.masked(optax.adamw(0.1), MASK))
    ),
    "two networks and their averages": state_of(TWO, average=jax.tree.map(lambda leaf: leaf / 3, TWO)),
    "numbers as names": state_of(BY_NUMBER, optax.adam(0.1)),
    "state of examples": state_of(
        example_state={"half": RNG.normal(size=(9, 3)).astype(np.float16), "counts": np.arange(9)},
        shared_state=(
            Queue(jnp.ones((4, 2), jnp.bfloat16), jnp.int32(3)),
            (),
            [np.array([True, False]), {}, np.float32([np.nan, -np.inf, -0.0])],
        ),
    ),
    "no rows": state_of(example_state={"rows": np.zeros((0, 3), np.float16)}),
    "long lists": state_of(shared_state=[np.full(2, i) for i in range(12)]),
}


@pytest.mark.parametrize("name", STATES)
def test_every_structure_comes_back_bit_for_bit(name, tmp_path):
    state = STATES[name]
    save(state, tmp_path)
    template = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), state)
    assert_same_arrays(Checkpointer(tmp_path).restore(template).state, state)


def test_random_keys_come_back(tmp_path):
    """As a network keeps them for its dropout."""
    save(state_of(collections={"rng": {"key": jax.random.key(5)}}), tmp_path)
    back = Checkpointer(tmp_path).restore(state_of(collections={"rng": {"key": jax.random.key(0)}})).state
    one, other = (jax.random.bits(key) for key in (back.collections["rng"]["key"], jax.random.key(5)))
    assert one == other


OTHERS = {
    "a shape": state_of(LAYERS | {"classifier": {"kernel": np.zeros((2, 4), np.float32)}}),
    "a type": state_of(LAYERS | {"classifier": {"kernel": np.zeros((4, 2), np.float16)}}),
    "a name": state_of({("Dense_1" if name == "Dense_0" else name): LAYERS[name] for name in LAYERS}),
    "one less": state_of({"Dense_0": LAYERS["Dense_0"]}),
    "one more": state_of(collections=STATISTICS),
    "the optimiser": state_of(optimizer=optax.adam(0.1)),
    "the number of networks": state_of(TWO),
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoint_of_another_model_or_method_is_refused(name, tmp_path):
    save(state_of(), tmp_path)
    with pytest.raises(InputError, match=r"is of another model or method\.\nRemove that directory"):
        Checkpointer(tmp_path).restore(OTHERS[name])


def test_sums_of_the_epoch_under_way_come_back_bit_for_bit(tmp_path):
    numbers = RNG.integers(0, 2**31, 200, np.uint32).view(np.float32)
    sums = {str(i): x for i, x in enumerate(numbers) if not np.isnan(x)} | {
        **{"large": np.finfo(np.float32).max, "small": np.float32(1e-45), "none": np.float32(-0.0)},
        **{"infinite": np.float32(np.inf), "on the device": jnp.float32(0.1), "double": np.pi},
    }
    save(state_of(), tmp_path, step=2, sums=sums)
    back = Checkpointer(tmp_path).restore(state_of())
    assert back.step == 2 and back.sums.keys() == sums.keys()
    for name, value in back.sums.items():
        assert np.float64(value).tobytes() == np.float64(sums[name]).tobytes()


def test_whichever_file_is_damaged_is_named(tmp_path):
    save(state_of(collections=STATISTICS), tmp_path)
    folder = tmp_path / "7"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "checksums.json"]
    assert {"record", "state/_METADATA"} <= {str(path.relative_to(folder)) for path in files}
    for path in files:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert integrity.damage(folder) == f"{path.relative_to(folder)} is not as it was written"
        path.unlink()
        assert integrity.damage(folder) == f"{path.relative_to(folder)} is missing"
        path.write_bytes(content)
    assert integrity.damage(folder) is None


def test_what_cannot_be_read_is_said(tmp_path):
    """As in a folder of an earlier version, where the record was a folder."""
    save(state_of(), tmp_path)
    checkpointer, record = Checkpointer(tmp_path), tmp_path / "7" / "record"
    record.unlink()
    record.mkdir()
    for ask in (checkpointer.latest_epoch, lambda: checkpointer.restore(state_of())):
        with pytest.raises(InputError, match=r"cannot be used: .*\nRemove that directory"):
            ask()
    assert checkpointer.newest() == "no epoch: nothing is saved yet"


def test_steps_that_follow_each_other_leave_nothing_but_themselves(tmp_path):
    """And a step that is there already is left alone."""
    checkpointer, state = Checkpointer(tmp_path, keep=2), state_of()
    for step in (8, 9, 10, 10):
        checkpointer.save(Checkpoint(state._replace(step=np.int32(step)), step, [], 0.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9"]
    assert sorted(path.name for path in (tmp_path / "10").iterdir()) == ["checksums.json", "record", "state"]
    assert checkpointer.latest_epoch() == 10 and checkpointer.newest() == "epoch 10"
    assert checkpointer.restore(state).epoch == 10
    checkpointer.close()
