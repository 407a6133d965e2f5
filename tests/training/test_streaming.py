"""Training that reads its images batch by batch is the training that has them on the devices."""

import jax
import numpy as np
import pytest

from dsink_jax.data import Selected
from dsink_jax.data.streaming import gather, is_streamed, read_batches
from dsink_jax.methods import CrossEntropy, DivideMix, EarlyLearningRegularization, TransportReweighting
from dsink_jax.training import Checkpointer, FitSettings, TrainingStoppedError, fit, make_predictor
from tiny_training import AUGMENTED, NUM_CLASSES, SGD, assert_equal_trees, tiny_model, train


class Counting:
    """A source that can only be asked for one image at a time, and counts."""

    def __init__(self, images):
        self._images, self.read = images, []
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self):
        return len(self._images)

    def __getitem__(self, position):
        assert isinstance(position, int)
        self.read.append(position)
        return self._images[position]


def streamed(data):
    return data._replace(images=Counting(data.images))


METHODS = {
    "elr": EarlyLearningRegularization(),
    "dividemix": DivideMix((0.25,) * 4, 3),  # two views, and looks at the training set between epochs
}


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", METHODS)
def test_streamed_training_is_bit_identical(name, devices, small_data, cpus):
    method = METHODS[name]
    resident = train(method, small_data, cpus[:devices], 3)
    data = streamed(small_data)
    read = train(method, data, cpus[:devices], 3)
    assert read.history == resident.history
    assert_equal_trees(read.variables, resident.variables)
    assert set(data.images.read) == set(range(60))


@pytest.mark.slow
def test_meta_set_is_read_once(small_data, cpus):
    method = TransportReweighting((15,) * 4, 4, 2, "observed", share=1.0)
    images = small_data.images[:1].astype(np.float32)
    start = jax.device_get(tiny_model(method).init(jax.random.key(1), images))
    resident = train(method, small_data, cpus[:2], 4, start_from=start)
    read = train(method, streamed(small_data), cpus[:2], 4, start_from=start)
    assert_equal_trees(read.variables, resident.variables)


@pytest.mark.slow
def test_several_steps_in_a_dispatch_and_a_stop_in_the_middle(small_data, cpus, tmp_path):
    settings = FitSettings(2, 16, SGD, checkpoint_every=1, steps_per_dispatch=3)
    method = CrossEntropy()
    options = {"num_classes": NUM_CLASSES, "seed": 5, "devices": cpus[:2]}
    arguments = (tiny_model(method), method)
    whole = fit(*arguments, small_data, AUGMENTED, settings, **options)
    with pytest.raises(TrainingStoppedError):
        fit(
            *(*arguments, streamed(small_data), AUGMENTED, settings),
            **options,
            checkpointer=Checkpointer(tmp_path),
            should_stop=lambda step: step >= 3,
        )
    data = streamed(small_data)
    resumed = fit(*arguments, data, AUGMENTED, settings, **options, checkpointer=Checkpointer(tmp_path))
    assert resumed.history == whole.history
    assert_equal_trees(resumed.variables, whole.variables)
    # One image for the shapes; then the last step of epoch 1, padded, and the four of epoch 2.
    assert len(data.images.read) == 1 + 16 + 4 * 16


def test_predictions_of_a_source_are_those_of_the_array(small_data, cpus):
    method = CrossEntropy()
    model = tiny_model(method)
    variables = model.init(jax.random.key(0), small_data.images[:1].astype(np.float32))
    predict = make_predictor(model, method, AUGMENTED, cpus[:3], batch_size=7)
    np.testing.assert_array_equal(
        predict(variables, Counting(small_data.images)), predict(variables, small_data.images)
    )


def test_mapped_file_is_a_source(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert is_streamed(mapped) and is_streamed(mapped[2:])
    for in_memory in (np.array(mapped), mapped.copy(), mapped.astype(np.float32), mapped[[1, 2]]):
        assert not is_streamed(in_memory)
    positions = np.array([[3, 0], [9, 9]])
    read = gather(mapped, positions)
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
        np.testing.assert_array_equal(gather(source, position), batch)
    assert batches[0].shape == (2, 2, 2, 2, 1)
