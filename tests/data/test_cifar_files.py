import pickle
import shutil

import numpy as np
import pytest

from dsink_jax.data import cifar_files
from dsink_jax.data.array_pickle import unpickle_arrays

pytestmark = pytest.mark.usefixtures("small_rows")

FORMATS = ("python", "python2", "binary")


def read(dataset, data_dir):
    layout, path = cifar_files.find_files(dataset, data_dir)
    return cifar_files.read_files(dataset, layout, path)


def assert_same(arrays, cifar):
    for split in ("train", "test"):
        images, labels = getattr(arrays, f"{split}_images"), getattr(arrays, f"{split}_labels")
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, cifar.images[split])
        np.testing.assert_array_equal(labels, cifar.labels[split])
    assert arrays.class_names == cifar.class_names


@pytest.mark.parametrize("subfolder", ["", "{dataset}"])
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_layout_gives_the_same_arrays(cifar, layout, form, subfolder, tmp_path, request):
    write = request.getfixturevalue(f"write_{form}")
    path = write(cifar, layout, tmp_path / subfolder.format(dataset=cifar.dataset))
    arrays = read(cifar.dataset, tmp_path)
    assert_same(arrays, cifar)
    assert str(path) in arrays.source


def test_archive_with_dotted_member_names(cifar, tmp_path, write_archive):
    write_archive(cifar, "binary", tmp_path, prefix="./")
    assert_same(read(cifar.dataset, tmp_path), cifar)


@pytest.mark.parametrize("place", ["downloads", "downloads/{dataset}", "downloads/manual"])
def test_archive_that_tfds_has_downloaded(cifar, place, tmp_path, write_archive):
    folder = tmp_path / place.format(dataset=cifar.dataset)
    archive = write_archive(cifar, "binary", folder)
    stem = archive.name.removesuffix(".tar.gz")
    archive.rename(folder / f"cs.toronto.edu_kriz_{stem}xKOMUKG8XzocVTfyFVq.tar.gz")
    assert_same(read(cifar.dataset, tmp_path), cifar)


def test_nothing_there(tmp_path):
    assert cifar_files.find_files("cifar10", tmp_path) is None
    assert cifar_files.find_files("cifar10", tmp_path / "missing") is None


def test_the_other_data_set_is_not_taken(cifar, tmp_path, write_archive):
    write_archive(cifar, "binary", tmp_path)
    other = {"cifar10": "cifar100", "cifar100": "cifar10"}[cifar.dataset]
    assert cifar_files.find_files(other, tmp_path) is None


@pytest.fixture
def assert_refused(refusal):
    def check(dataset, data_dir, *words):
        message = refusal(read, dataset, data_dir)
        for word in words:
            assert word in message

    return check


@pytest.mark.parametrize("layout", FORMATS)
def test_missing_file_is_named(cifar, layout, tmp_path, write_folder, assert_refused):
    for name in cifar.files(layout):
        folder = write_folder(cifar, layout, tmp_path)
        (folder / name).unlink()
        assert_refused(cifar.dataset, tmp_path, str(folder), f"lacks {name}")
        shutil.rmtree(folder)


@pytest.mark.parametrize("layout", FORMATS)
def test_archive_without_a_batch_is_refused(cifar10, layout, tmp_path, write_archive, assert_refused):
    name = next(name for name in cifar10.files(layout) if name.startswith("data_batch_4"))
    path = write_archive(cifar10, layout, tmp_path, skip=[name])
    assert_refused("cifar10", tmp_path, f"lacks {name}", path.name)


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
@pytest.mark.parametrize("layout", FORMATS)
def test_truncated_file_is_named(cifar10, layout, keep, tmp_path, write_folder, assert_refused):
    folder = write_folder(cifar10, layout, tmp_path)
    path = sorted(folder.glob("data_batch_2*"))[0]
    blob = path.read_bytes()
    path.write_bytes(blob[: keep if keep in (0, 1) else int(len(blob) * keep)])
    assert_refused("cifar10", tmp_path, str(path))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_archive(cifar, keep, tmp_path, write_archive, assert_refused):
    path = write_archive(cifar, "binary", tmp_path)
    blob = path.read_bytes()
    path.write_bytes(blob[: keep if keep in (0, 10) else int(len(blob) * keep)])
    assert_refused(cifar.dataset, tmp_path, str(path))


def test_archive_that_is_a_web_page(cifar10, tmp_path, write_archive, assert_refused):
    path = write_archive(cifar10, "python", tmp_path)
    path.write_bytes(b"<html>Not found</html>" * 100)
    assert_refused("cifar10", tmp_path, str(path))


def test_flipped_bytes_in_an_archive(cifar10, tmp_path, write_archive, assert_refused):
    path = write_archive(cifar10, "binary", tmp_path)
    blob = bytearray(path.read_bytes())
    middle = len(blob) // 2
    blob[middle : middle + 100] = bytes(100)
    path.write_bytes(bytes(blob))
    assert_refused("cifar10", tmp_path, str(path))


@pytest.mark.parametrize(
    "table",
    [
        ["a list"],
        {b"data": "text", b"labels": [1]},
        {b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 1]},
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1.0, 1.0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": ["a", "b"]},
    ],
)
def test_pickle_with_other_content(cifar10, table, tmp_path, write_folder, assert_refused):
    folder = write_folder(cifar10, "python", tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps(table, protocol=2))
    assert_refused("cifar10", tmp_path, str(folder / "data_batch_3"))


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickle_that_wants_to_run_something(cifar10, tmp_path, write_folder, assert_refused):
    folder = write_folder(cifar10, "python", tmp_path)
    trap = {b"data": _Touch(tmp_path / "touched"), b"labels": []}
    (folder / "test_batch").write_bytes(pickle.dumps(trap, protocol=2))
    assert_refused("cifar10", tmp_path, str(folder / "test_batch"), "refused")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_unpickle_every_protocol(protocol):
    value = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": [1, 2.5, "x", None]}
    back = unpickle_arrays(pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(back["a"], value["a"])
    assert back["b"] == value["b"]


def test_unpickle_refuses_other_codecs():
    blob = b"c_codecs\nencode\n(Vabc\nVrot13\ntR."
    with pytest.raises(pickle.UnpicklingError, match="rot13"):
        unpickle_arrays(blob)


@pytest.mark.parametrize("layout", ["python", "binary"])
def test_label_out_of_range(cifar10, layout, tmp_path, write_folder, assert_refused):
    cifar10.labels["test"][3], before = 10, cifar10.labels["test"][3]
    try:
        write_folder(cifar10, layout, tmp_path)
    finally:
        cifar10.labels["test"][3] = before
    assert_refused("cifar10", tmp_path, "labels from 0 to 10", "0 to 9")


def test_wrong_number_of_images(cifar, monkeypatch, tmp_path, write_folder, assert_refused):
    monkeypatch.setattr(cifar_files, "ROWS", {"train": 50_000, "test": 10_000})
    write_folder(cifar, "binary", tmp_path)
    batches = {"cifar10": 5, "cifar100": 1}[cifar.dataset]
    assert_refused(cifar.dataset, tmp_path, f"{50 // batches} of {50_000 // batches} images")


def test_wrong_number_of_class_names(cifar10, tmp_path, write_folder, assert_refused):
    folder = write_folder(cifar10, "binary", tmp_path)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    assert_refused("cifar10", tmp_path, "2 class names", "expected 10")
