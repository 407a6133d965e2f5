"""Training that reads its inputs batch by batch is the training that has them on the devices."""

import numpy as np
import pytest

from dsink_jax.data import Selected
from dsink_jax.data.streaming import is_streamed, read_batches, read_rows
from dsink_jax.methods import CrossEntropy, DivideMix, EarlyLearningRegularization, TransportReweighting
from dsink_jax.training import Checkpointer, TrainingStoppedError
from tiny_training import Counting, assert_equal_trees, some_variables, stop_at, streamed, train

METHODS = {
    "elr": EarlyLearningRegularization(),
    "dividemix": DivideMix(),  # two views, and looks at the training set between epochs
}


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", METHODS)
def test_streamed_training_is_bit_identical(name, devices, small_data, cpus):
    resident = train(METHODS[name], small_data, cpus[:devices], 3)
    data = streamed(small_data)
    read = train(METHODS[name], data, cpus[:devices], 3)
    assert read.history == resident.history
    assert_equal_trees(read.variables, resident.variables)
    assert set(data.inputs.read) == set(range(60))


@pytest.mark.slow
def test_meta_set_is_read_once(small_data, cpus):
    method = TransportReweighting(2, "observed", share=1.0)
    start = some_variables(method, small_data.inputs)
    resident = train(method, small_data, cpus[:2], 4, start_from=start)
    data = streamed(small_data)
    read = train(method, data, cpus[:2], 4, start_from=start)
    assert_equal_trees(read.variables, resident.variables)
    assert len(data.inputs.read) == 1 + 8 + 4 * 4 * 16


@pytest.mark.slow
def test_several_steps_in_a_dispatch_and_a_stop_in_the_middle(small_data, cpus, tmp_path):
    arguments, options = (cpus[:2], 2), {"steps_per_dispatch": 3}
    whole = train(CrossEntropy(), small_data, *arguments, **options)
    options["checkpointer"] = Checkpointer(tmp_path)
    with pytest.raises(TrainingStoppedError):
        train(CrossEntropy(), streamed(small_data), *arguments, should_stop=stop_at(3), **options)
    data = streamed(small_data)
    resumed = train(CrossEntropy(), data, *arguments, **options)
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)
    # One input for the shapes; then the calls of epoch 1 and 2 that are left, each filled up to three steps.
    assert len(data.inputs.read) == 1 + 3 * 16 + 2 * 3 * 16


def test_mapped_file_is_a_source(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert is_streamed(mapped) and is_streamed(mapped[2:])
    for in_memory in (np.array(mapped), mapped.copy(), mapped.astype(np.float32), mapped[[1, 2]]):
        assert not is_streamed(in_memory)
    positions = np.array([[3, 0], [9, 9]])
    read = read_rows(mapped, positions)
    assert type(read) is np.ndarray
    np.testing.assert_array_equal(read, np.array(mapped)[positions])


def test_batches_come_in_order_and_in_shape():
    images = np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1)
    source = Selected(Counting(images), np.array([9, 3, 3, 0]))
    assert is_streamed(source) and not is_streamed(images) and len(source) == 4
    positions = [np.array([[0, 1], [2, 3]]), np.array([[3, 3]])]
    batches = list(read_batches(source, positions))
    for batch, position in zip(batches, positions, strict=True):
        np.testing.assert_array_equal(batch, images[np.array([9, 3, 3, 0])[position]])
        np.testing.assert_array_equal(read_rows(source, position), batch)
    assert batches[0].shape == (2, 2, 2, 2, 1)
