"""Small synthetic CIFAR data sets, written in every layout that the real ones come in."""

import dataclasses
import io
import pathlib
import pickle
import shutil
import struct
import tarfile
import typing

import numpy as np
import pytest

from corruption_references import drawn
from dsink_jax.data import cifar_files
from dsink_jax.errors import InputError

ROWS = {"train": 50, "test": 10}

LAYOUTS = {  # format: (folder, archive)
    ("cifar10", "python"): ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ("cifar10", "python2"): ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ("cifar10", "binary"): ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    ("cifar100", "python"): ("cifar-100-python", "cifar-100-python.tar.gz"),
    ("cifar100", "python2"): ("cifar-100-python", "cifar-100-python.tar.gz"),
    ("cifar100", "binary"): ("cifar-100-binary", "cifar-100-binary.tar.gz"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticCifar:
    """Random images and labels of one split size, with names like the real ones."""

    dataset: str
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    coarse_labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]

    def files(self, layout: str) -> dict[str, bytes]:
        """The files of one layout, by name."""
        batches = {"train": self._batch("train", slice(None)), "test": self._batch("test", slice(None))}
        if self.dataset == "cifar10":
            batches = {
                f"data_batch_{i + 1}": self._batch("train", slice(i * 10, i * 10 + 10)) for i in range(5)
            } | {"test_batch": self._batch("test", slice(None))}
        if layout == "binary":
            text = "\n".join((*self.class_names, "")).encode()
            names = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt"}[self.dataset]
            return {f"{name}.bin": _records(*batch) for name, batch in batches.items()} | {names: text}
        dump = _dump_python2 if layout == "python2" else _dump_python3
        label_key, names_key, meta = {
            "cifar10": (b"labels", b"label_names", "batches.meta"),
            "cifar100": (b"fine_labels", b"fine_label_names", "meta"),
        }[self.dataset]
        encoded = {
            name: dump({b"data": planes, label_key: labels.tolist(), b"coarse_labels": coarse.tolist()})
            for name, (planes, labels, coarse) in batches.items()
        }
        return encoded | {meta: dump({names_key: [name.encode() for name in self.class_names]})}

    def _batch(self, split, rows):
        planes = self.images[split][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        coarse = self.coarse_labels[split][rows] if self.coarse_labels else np.zeros(0, np.int64)
        return np.ascontiguousarray(planes), self.labels[split][rows], coarse


def _records(planes, labels, coarse):
    columns = [labels[:, None], planes]
    if len(coarse):
        columns.insert(0, coarse[:, None])
    return np.concatenate(columns, axis=1).astype(np.uint8).tobytes()


def _dump_python3(value):
    return pickle.dumps(value, protocol=2)


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its `str`, which is how CIFAR was written."""

    dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)

    dispatch[str] = dispatch[bytes] = save_string


def _dump_python2(value):
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _make_cifar(dataset: str) -> SyntheticCifar:
    rng = np.random.default_rng({"cifar10": 10, "cifar100": 100}[dataset])
    classes = cifar_files.NUM_CLASSES[dataset]
    coarse = {}
    if dataset == "cifar100":
        coarse = {split: rng.integers(0, 20, rows) for split, rows in ROWS.items()}
    return SyntheticCifar(
        dataset=dataset,
        images={
            split: rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8) for split, rows in ROWS.items()
        },
        labels={split: rng.integers(0, classes, rows) for split, rows in ROWS.items()},
        coarse_labels=coarse,
        class_names=tuple(f"class_{index}" for index in range(classes)),
    )


def _write_folder(cifar: SyntheticCifar, layout: str, base: pathlib.Path) -> pathlib.Path:
    """Writes an unpacked folder into `base`; returns its path."""
    folder = base / LAYOUTS[cifar.dataset, layout][0]
    folder.mkdir(parents=True)
    for name, blob in cifar.files(layout).items():
        (folder / name).write_bytes(blob)
    return folder


def _write_archive(
    cifar: SyntheticCifar, layout: str, base: pathlib.Path, *, prefix="", skip=()
) -> pathlib.Path:
    """Writes an archive like the official one into `base`; returns its path."""
    folder, archive_name = LAYOUTS[cifar.dataset, layout]
    base.mkdir(parents=True, exist_ok=True)
    with tarfile.open(base / archive_name, "w:gz") as archive:
        for name, blob in cifar.files(layout).items():
            if name not in skip:
                member = tarfile.TarInfo(f"{prefix}{folder}/{name}")
                member.size = len(blob)
                archive.addfile(member, io.BytesIO(blob))
    return base / archive_name


def _prepare_tfds(parent, name, class_names, examples, data_dir):
    """Prepares a data set as TFDS does, without TensorFlow and without a download.

    The builder is TFDS's own, so name, version, features, ids and shuffling are; only where the
    examples come from is replaced.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    def generate(split):
        for index, example in enumerate(examples[split]):
            image = Image.fromarray(example["image"])  # TFDS encodes arrays with TensorFlow.
            yield index, example | {"id": f"{split}_{index:05d}", "image": image}

    def split_generators(self, dl_manager):
        for key, names in class_names.items():
            self.info.features[key].names = names
        return {split: generate(split) for split in examples}

    methods = {"name": name, "_split_generators": split_generators, "_generate_examples": None}
    with tfds.core.registered.skip_registration():
        builder = type(parent.__name__, (parent,), methods)(data_dir=str(data_dir))
    builder.download_and_prepare(file_format="array_record")
    return pathlib.Path(builder.data_dir)


def _prepare_cifar(cifar: SyntheticCifar, data_dir: pathlib.Path) -> pathlib.Path:
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    parent = {"cifar10": tfds_cifar.Cifar10, "cifar100": tfds_cifar.Cifar100}[cifar.dataset]
    class_names = {"label": list(cifar.class_names)}
    if cifar.coarse_labels:
        class_names["coarse_label"] = [f"coarse_{index}" for index in range(20)]
    examples = {
        split: [
            {"image": cifar.images[split][i], "label": int(cifar.labels[split][i])}
            | ({"coarse_label": int(cifar.coarse_labels[split][i])} if cifar.coarse_labels else {})
            for i in range(rows)
        ]
        for split, rows in ROWS.items()
    }
    return _prepare_tfds(parent, cifar.dataset, class_names, examples, data_dir)


def _as_tfrecord(folder: pathlib.Path) -> None:
    """Rewrites a prepared array_record folder as tfrecord, leaving the checksums zero."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import decode

    builder = tfds.builder_from_directory(folder)
    method = decode.DeserializeMethod.RAW_BYTES
    for split in builder.info.splits:
        records = list(builder.as_data_source(split, deserialize_method=method))
        frames = [struct.pack("<Q", len(r)) + bytes(4) + r + bytes(4) for r in records]
        (old,) = folder.glob(f"*-{split}.array_record-*")
        old.with_name(old.name.replace("array_record", "tfrecord")).write_bytes(b"".join(frames))
        old.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def _refusal(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert 1 <= len(message.splitlines()) <= 2
    return message


def _assert_same(data, cifar):
    for split in ("train", "test"):
        images, labels = getattr(data, split)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, cifar.images[split])
        np.testing.assert_array_equal(labels, cifar.labels[split])
    assert data.class_names == cifar.class_names
    assert (data.name, data.num_classes) == (cifar.dataset, len(cifar.class_names))


@pytest.fixture(scope="session")
def refusal():
    """Calls a function that must refuse its input, in two lines at most; returns the message."""
    return _refusal


@pytest.fixture(scope="session")
def assert_same():
    """Whether a data set that was read is the synthetic one, in the original order."""
    return _assert_same


@pytest.fixture(scope="session")
def write_folder():
    return _write_folder


@pytest.fixture(scope="session")
def write_archive():
    return _write_archive


@pytest.fixture(scope="session")
def prepare_tfds():
    return _prepare_tfds


@pytest.fixture(scope="session")
def as_tfrecord():
    return _as_tfrecord


@pytest.fixture
def small_rows(monkeypatch):
    """Makes the readers expect the numbers of images of the synthetic data sets."""
    monkeypatch.setattr(cifar_files, "ROWS", ROWS)
    return ROWS


@pytest.fixture(scope="session", params=["cifar10", "cifar100"])
def cifar(request):
    return _make_cifar(request.param)


@pytest.fixture(scope="session")
def cifar10():
    return _make_cifar("cifar10")


@pytest.fixture(scope="session")
def _prepared_cifar(tmp_path_factory):
    """Prepares each synthetic data set once per test session."""
    folders = {}

    def prepare(cifar):
        if cifar.dataset not in folders:
            folders[cifar.dataset] = _prepare_cifar(cifar, tmp_path_factory.mktemp("tfds"))
        return folders[cifar.dataset]

    return prepare


@pytest.fixture
def copy_prepared(_prepared_cifar):
    """Copies a prepared synthetic data set into a data directory; returns the folder."""

    def copy(cifar, data_dir):
        prepared = _prepared_cifar(cifar)
        return pathlib.Path(shutil.copytree(prepared, data_dir / cifar.dataset / prepared.name))

    return copy


@pytest.fixture(scope="module")
def cifar10_labels():
    """The labels of a balanced set of the size of CIFAR-10, in an order of no meaning."""
    return np.random.default_rng(0).permutation(np.arange(50_000) % 10)


@pytest.fixture(scope="module")
def cifar100_labels():
    return np.random.default_rng(0).permutation(np.arange(50_000) % 100)


@pytest.fixture(scope="module")
def small():
    labels = np.arange(600) % 3
    return drawn(labels, 3, noise="asymmetric", data_seed=4)
