import os
import pickle

import numpy as np
import pytest

from dsink_jax.data import cifar_files, sources

pytestmark = pytest.mark.usefixtures("small_rows")

FORMATS = ("python", "python2", "binary")


def read(dataset, data_dir):
    return sources.load(dataset, data_dir, download=False)


@pytest.mark.parametrize("subfolder", ["", "{dataset}"])
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_layout_gives_the_same_arrays(cifar, layout, form, subfolder, tmp_path, request, assert_same):
    write = request.getfixturevalue(f"write_{form}")
    path = write(cifar, layout, tmp_path / subfolder.format(dataset=cifar.dataset))
    data = read(cifar.dataset, tmp_path)
    assert_same(data, cifar)
    assert str(path) in data.source


def test_archive_with_dotted_member_names(cifar, tmp_path, write_archive, assert_same):
    write_archive(cifar, "binary", tmp_path, prefix="./")
    assert_same(read(cifar.dataset, tmp_path), cifar)


@pytest.mark.parametrize("place", ["downloads", "downloads/{dataset}", "downloads/manual"])
def test_archive_that_tfds_has_downloaded(cifar, place, tmp_path, write_archive, assert_same):
    folder = tmp_path / place.format(dataset=cifar.dataset)
    archive = write_archive(cifar, "binary", folder)
    stem = archive.name.removesuffix(".tar.gz")
    archive.rename(folder / f"cs.toronto.edu_kriz_{stem}xKOMUKG8XzocVTfyFVq.tar.gz")
    assert_same(read(cifar.dataset, tmp_path), cifar)


def test_nothing_there_or_the_other_data_set(cifar, tmp_path, write_archive):
    write_archive(cifar, "binary", tmp_path)
    other = {"cifar10": "cifar100", "cifar100": "cifar10"}[cifar.dataset]
    assert cifar_files.find_files(other, tmp_path) is None
    assert cifar_files.find_files(cifar.dataset, tmp_path / "missing") is None


@pytest.mark.parametrize("layout", FORMATS)
def test_missing_file_is_named(cifar, layout, tmp_path, write_folder, write_archive, refusal):
    for name in cifar.files(layout):
        folder = write_folder(cifar, layout, tmp_path / name)
        (folder / name).unlink()
        message = refusal(read, cifar.dataset, tmp_path / name)
        assert str(folder) in message and f"lacks {name}" in message
    path = write_archive(cifar, layout, tmp_path, skip=[name])
    message = refusal(read, cifar.dataset, tmp_path)
    assert str(path) in message and f"lacks {name}" in message


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
@pytest.mark.parametrize("kind", [*FORMATS, "archive"])
def test_truncated_file_is_named(cifar10, kind, keep, tmp_path, write_folder, write_archive, refusal):
    if kind == "archive":
        path = write_archive(cifar10, "binary", tmp_path)
    else:
        path = next(write_folder(cifar10, kind, tmp_path).glob("data_batch_2*"))
    os.truncate(path, keep if keep in (0, 1) else int(path.stat().st_size * keep))
    assert str(path) in refusal(read, "cifar10", tmp_path)


@pytest.mark.parametrize("damage", ["a web page", "zeros"])
def test_damaged_archive_is_named(damage, cifar10, tmp_path, write_archive, refusal):
    path = write_archive(cifar10, "binary", tmp_path)
    blob = path.read_bytes()
    middle = len(blob) // 2
    damaged = {
        "a web page": b"<html>Not found</html>" * 100,
        "zeros": blob[:middle] + bytes(100) + blob[middle + 100 :],
    }
    path.write_bytes(damaged[damage])
    assert str(path) in refusal(read, "cifar10", tmp_path)


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


PLANES = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (["a list"], "a pickled list, not a dictionary"),
        ({b"data": "text", b"labels": [1]}, "<U4 images ()"),
        ({b"labels": [1]}, "no entry data"),
        ({b"data": PLANES}, "no entry labels"),
        ({b"data": PLANES, b"labels": [1]}, "(1,)"),
        ({b"data": PLANES[:, 1:], b"labels": [1, 1]}, "(2, 3071)"),
        ({b"data": PLANES.astype(np.float32), b"labels": [1, 1]}, "float32"),
        ({b"data": PLANES, b"labels": [1.0, 1.0]}, "float64 labels"),
        ({b"data": PLANES, b"labels": ["a", "b"]}, "<U1 labels"),
        ({b"data": PLANES, b"labels": [1, 1]}, "2 of 10 images"),
        ({b"data": _Touch("touched"), b"labels": []}, "refused"),
    ],
)
def test_pickle_with_other_content(cifar10, table, said, tmp_path, write_folder, refusal, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_folder(cifar10, "python", tmp_path) / "data_batch_3"
    path.write_bytes(pickle.dumps(table, protocol=2))
    message = refusal(read, "cifar10", tmp_path)
    assert str(path) in message and said in message
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_unpickle_every_protocol(protocol):
    value = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), b"b": [1, 2.5, "x", None]}
    a, b = cifar_files._unpickle(pickle.dumps(value, protocol=protocol), "a", "b")
    np.testing.assert_array_equal(a, value["a"])
    assert b == value[b"b"]


def test_unpickle_refuses_other_codecs():
    blob = b"c_codecs\nencode\n(Vabc\nVrot13\ntR."
    with pytest.raises(pickle.UnpicklingError, match="rot13"):
        cifar_files._unpickle(blob)


@pytest.mark.parametrize("layout", ["python", "binary"])
def test_label_out_of_range(cifar10, layout, tmp_path, write_folder, refusal, monkeypatch):
    labels = cifar10.labels["test"].copy()
    labels[3] = 10
    monkeypatch.setitem(cifar10.labels, "test", labels)
    write_folder(cifar10, layout, tmp_path)
    assert "test_labels must be in [0, 10), got" in refusal(read, "cifar10", tmp_path)


def test_wrong_number_of_images(cifar, monkeypatch, tmp_path, write_folder, refusal):
    monkeypatch.setattr(cifar_files, "ROWS", {"train": 50_000, "test": 10_000})
    write_folder(cifar, "binary", tmp_path)
    batches = {"cifar10": 5, "cifar100": 1}[cifar.dataset]
    said = f"{50 // batches} of {50_000 // batches} images"
    assert said in refusal(read, cifar.dataset, tmp_path)


def test_wrong_number_of_class_names(cifar10, tmp_path, write_folder, refusal):
    folder = write_folder(cifar10, "binary", tmp_path)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    assert "2 class names, expected 10" in refusal(read, "cifar10", tmp_path)
