import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dsink_jax.data import sources
from dsink_jax.data.image_data import channel_statistics


def arrays(**changes):
    rng = np.random.default_rng(0)
    given_arrays = {
        "train_images": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
        "test_labels": np.array([0, 1, 2]),
    }
    return given_arrays | changes


def test_from_arrays():
    given_arrays = arrays()
    data = sources.from_arrays(**given_arrays, name="mine")
    assert (data.name, data.num_classes, data.class_names) == ("mine", 3, ("0", "1", "2"))
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32
    np.testing.assert_array_equal(data.train.images, given_arrays["train_images"])
    np.testing.assert_array_equal(data.test.labels, given_arrays["test_labels"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_from_arrays_makes_float32(dtype):
    images = np.linspace(-1, 1, 6 * 4 * 5 * 3).reshape(6, 4, 5, 3).astype(dtype)
    data = sources.from_arrays(**arrays(train_images=images, test_images=images[:3]))
    assert data.train.images.dtype == np.float32
    np.testing.assert_allclose(data.mean, images.mean(axis=(0, 1, 2), dtype=float), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int64])
def test_from_arrays_takes_any_integer_labels(dtype):
    data = sources.from_arrays(**arrays(train_labels=np.array([0, 1, 2, 0, 1, 2], dtype)))
    assert data.train.labels.dtype == np.int32


def test_from_arrays_takes_jax_arrays_and_lists():
    jnp = pytest.importorskip("jax.numpy")
    given_arrays = arrays()
    data = sources.from_arrays(
        **given_arrays | {"train_images": jnp.asarray(given_arrays["train_images"]), "test_labels": [0, 1, 2]}
    )
    assert isinstance(data.train.images, np.ndarray)
    np.testing.assert_array_equal(data.test.labels, [0, 1, 2])


def test_from_arrays_counts_classes():
    assert sources.from_arrays(**arrays(), num_classes=7).num_classes == 7
    names = ["cat", "dog", "bird", "fish"]
    assert sources.from_arrays(**arrays(), class_names=names).class_names == tuple(names)
    test_only = arrays(test_labels=np.array([0, 1, 9]))
    assert sources.from_arrays(**test_only).num_classes == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.zeros((6, 4, 5), np.uint8)}, ["(6, 4, 5)", "images[..., None]"]),
        ({"train_images": np.zeros((6, 60), np.uint8)}, ["(6, 60)", "[N, H, W, C]"]),
        ({"train_images": np.zeros((6, 4, 5, 3), np.int64)}, ["int64", "uint8 or float32"]),
        ({"train_images": np.zeros((6, 4, 5, 3), bool)}, ["bool"]),
        ({"train_images": np.full((6, 4, 5, 3), np.nan)}, ["train_images", "NaN"]),
        ({"train_images": np.full((6, 4, 5, 3), 1e300)}, ["beyond float32"]),
        ({"train_images": np.zeros((0, 4, 5, 3), np.uint8)}, ["empty"]),
        ({"train_images": [[1, 2], [3]]}, ["cannot be made into an array"]),
        ({"train_images": np.zeros((6, 4, 5, 1), np.uint8)}, ["(4, 5, 1)", "(4, 5, 3)"]),
        ({"train_images": np.zeros((6, 4, 5, 3), np.float32)}, ["float32", "uint8"]),
        ({"train_labels": np.zeros(5, int)}, ["6 images", "5 labels"]),
        ({"train_labels": np.zeros(6)}, ["train_labels", "float64"]),
        ({"train_labels": np.zeros(6, bool)}, ["bool"]),
        ({"train_labels": np.zeros((6, 1), int)}, ["[6, 1]"]),
        ({"train_labels": np.array([0, 1, 2, 0, 1, -1])}, ["got -1 to 2"]),
        ({"test_labels": np.array(["a", "b", "c"])}, ["test_labels"]),
        ({"num_classes": 2}, ["train_labels", "[0, 2), got 0 to 2"]),
        ({"num_classes": 0}, ["num_classes"]),
        ({"class_names": ["a", "b"]}, ["[0, 2), got 0 to 2"]),
        ({"class_names": ["a", "b", "c"], "num_classes": 4}, ["num_classes is 4", "3 class names"]),
    ],
)
def test_from_arrays_refuses(changes, words, refusal):
    message = refusal(sources.from_arrays, **arrays(**changes))
    for word in words:
        assert word in message


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
@settings(max_examples=50, deadline=None)
def test_channel_statistics(images):
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=float), rtol=1e-6, atol=1e-9)
    expected = images.std(axis=(0, 1, 2), dtype=float)
    assert all(value > 0 for value in std)
    clear = expected > 1e-5 * np.abs(mean)
    np.testing.assert_allclose(np.asarray(std)[clear], expected[clear], rtol=1e-6)


@pytest.mark.parametrize("value", [np.uint8(0), np.uint8(255), np.float32(0.1), np.float32(-3e7)])
def test_channel_statistics_of_a_constant(value):
    mean, std = channel_statistics(np.full((2_500, 2, 2, 2), value))
    scale = 255 if value.dtype == np.uint8 else 1
    np.testing.assert_allclose(mean, [float(value) / scale] * 2)
    assert std == (1.0, 1.0)


# .npz files


def test_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(), class_names=["x", "y", "z"])
    data = sources.load(str(path))
    assert (data.name, data.class_names) == ("mine", ("x", "y", "z"))
    assert str(path) in data.source
    np.testing.assert_array_equal(data.train.images, arrays()["train_images"])
    assert sources.load(path).num_classes == 3


def test_npz_without_class_names(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", **arrays())
    assert sources.load(str(tmp_path / "mine.npz")).class_names == ("0", "1", "2")


def test_npz_refusals(tmp_path, refusal):
    path = tmp_path / "mine.npz"
    assert "There is no file" in refusal(sources.load, str(path))
    path.write_bytes(b"not a zip file")
    assert str(path) in refusal(sources.load, str(path))
    path.write_bytes(b"")
    assert str(path) in refusal(sources.load, str(path))
    np.savez(path, train_images=1, other=2)
    message = refusal(sources.load, str(path))
    assert "lacks train_labels, test_images, test_labels" in message
    assert "train_images, other" in message
    np.savez(path, **arrays(train_labels=np.array([None] * 6)))
    assert str(path) in refusal(sources.load, str(path))
    np.savez(path, **arrays(train_labels=np.zeros(5, int)))
    assert str(path) in refusal(sources.load, str(path))
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert str(path) in refusal(sources.load, str(path))


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_npz_truncated(keep, tmp_path, refusal):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays())
    os.truncate(path, int(path.stat().st_size * keep))
    assert str(path) in refusal(sources.load, str(path))
