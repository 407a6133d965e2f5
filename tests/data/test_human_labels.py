import os
import pathlib

import numpy as np
import pytest

from dsink_jax.data import sources
from dsink_jax.data.human_labels import KINDS, load_human_labels
from dsink_jax.errors import InputError

CASES = [(dataset, kind) for dataset, kinds in KINDS.items() for kind in kinds]
REAL_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")
TRAIN_ROWS = 50
SIZE = {"cifar10": 10, "cifar100": 100}


def human_labels(dataset):
    """Made-up labels of every kind, with CIFAR-N's names; three in five are the clean ones."""
    rng = np.random.default_rng(1)
    names = ["clean_label", *KINDS[dataset].values()]
    drawn = {name: rng.integers(0, SIZE[dataset], TRAIN_ROWS) for name in names}
    right = np.arange(TRAIN_ROWS) % 5 < 3
    return {name: np.where(right, drawn["clean_label"], labels) for name, labels in drawn.items()}


pytestmark = pytest.mark.usefixtures("small_rows")


@pytest.mark.parametrize("place", ["{dataset}n.npz", "{dataset}/{dataset}n.npz"])
@pytest.mark.parametrize(("dataset", "kind"), CASES)
def test_npz_in_the_data_directory(dataset, kind, place, tmp_path, monkeypatch):
    path = tmp_path / place.format(dataset=dataset)
    path.parent.mkdir(exist_ok=True)
    labels = human_labels(dataset)
    np.savez(path, **{name: values.astype(np.uint8) for name, values in labels.items()})
    found = load_human_labels(dataset, kind, tmp_path, clean_labels=labels["clean_label"])
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels[KINDS[dataset][kind]])
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    np.testing.assert_array_equal(load_human_labels(dataset, kind), found)


def test_labels_file(tmp_path):
    labels = human_labels("cifar10")
    np.savez(tmp_path / "mine.npz", **labels)
    found = load_human_labels("cifar10", "worse", labels_file=tmp_path / "mine.npz")
    np.testing.assert_array_equal(found, labels["worse_label"])
    np.save(tmp_path / "mine.npy", labels["aggre_label"])
    found = load_human_labels("cifar10", "aggre", labels_file=str(tmp_path / "mine.npy"))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels["aggre_label"])


def test_npz_without_clean_labels(tmp_path):
    clean = np.arange(50) % 10
    np.savez(tmp_path / "cifar10n.npz", worse_label=np.where(clean < 6, clean, 0))
    assert load_human_labels("cifar10", "worse", tmp_path, clean_labels=clean).shape == (50,)


@pytest.mark.parametrize("order", [np.roll(np.arange(50), 7), np.zeros(50, int)])
def test_labels_in_another_order_are_refused(order, tmp_path):
    clean = np.arange(50) % 10
    np.savez(tmp_path / "cifar10n.npz", worse_label=clean[order])
    with pytest.raises(InputError, match=r"agree with cifar10's own.*another order"):
        load_human_labels("cifar10", "worse", tmp_path, clean_labels=clean)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, prepare_tfds):
    """CIFAR-N as TensorFlow Datasets prepares it; returns the data directory."""
    from tensorflow_datasets.image_classification.cifar10_n.cifar10_n import Cifar10N
    from tensorflow_datasets.image_classification.cifar100_n.cifar100_n import Cifar100N

    data_dir = tmp_path_factory.mktemp("human")
    image = np.zeros((32, 32, 3), np.uint8)
    for dataset, parent in (("cifar10", Cifar10N), ("cifar100", Cifar100N)):
        rename = {"clean_label": "label", "noisy_label": "noise_label"}
        labels = {rename.get(name, name): v for name, v in human_labels(dataset).items()}
        workers = ["worker"] if dataset == "cifar100" else ["worker1", "worker2", "worker3"]
        rest = {f"{worker}_id": 1 for worker in workers}
        rest |= {f"{worker}_time": 2.0 for worker in workers}
        rest |= {"coarse_label": 0} if dataset == "cifar100" else {}
        train = [
            {name: int(values[i]) for name, values in labels.items()} | rest | {"image": image}
            for i in range(TRAIN_ROWS)
        ]
        test = [dict.fromkeys(labels, -1) | {"label": 0} | rest | {"image": image}]
        names = {"label": [f"class_{index}" for index in range(SIZE[dataset])]}
        prepare_tfds(parent, f"{dataset}_n", names, {"train": train, "test": test}, data_dir)
    return data_dir


@pytest.mark.parametrize(("dataset", "kind"), CASES)
def test_prepared_folder(dataset, kind, prepared):
    labels = human_labels(dataset)
    found = load_human_labels(dataset, kind, prepared, clean_labels=labels["clean_label"])
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels[KINDS[dataset][kind]])


@pytest.mark.parametrize(
    ("dataset", "kind", "wrong"), [("cifar10", "worse", "1.0.1"), ("cifar100", "noisy", "1.0.0")]
)
def test_versions_with_labels_at_the_wrong_images(dataset, kind, wrong, tmp_path, refusal):
    folder = tmp_path / f"{dataset}_n" / wrong
    folder.mkdir(parents=True)
    message = refusal(load_human_labels, dataset, kind, tmp_path)
    assert str(folder) in message
    assert "wrong images" in message


def test_damaged_prepared_folder(tmp_path, refusal):
    (tmp_path / "cifar10_n" / "1.0.4").mkdir(parents=True)
    assert "dataset_info.json" in refusal(load_human_labels, "cifar10", "worse", tmp_path)


def test_clean_labels_that_disagree(tmp_path, prepared, refusal):
    labels = human_labels("cifar10")
    np.savez(tmp_path / "cifar10n.npz", **labels)
    other = np.roll(labels["clean_label"], 1)
    for place in (tmp_path, prepared):
        assert "another order" in refusal(load_human_labels, "cifar10", "worse", place, clean_labels=other)


def test_unknown_names(tmp_path, refusal):
    known = "cifar10 aggre, random1, random2, random3, worse; cifar100 noisy"
    for dataset, kind in (("digits", "worse"), ("cifar10", "noisy"), ("cifar100", "worse")):
        message = refusal(load_human_labels, dataset, kind, tmp_path)
        assert known in message and dataset in message and kind in message


def test_nothing_there(tmp_path, refusal):
    message = refusal(load_human_labels, "cifar100", "noisy", tmp_path / "missing")
    for word in (str(tmp_path / "missing"), "cifar100n.npz", "cifar100_n", "labels_file"):
        assert word in message
    assert "There is no file" in refusal(
        load_human_labels, "cifar10", "worse", labels_file=tmp_path / "none.npz"
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(49, int), "49 labels, but cifar10 has 50"),
        (np.zeros((50, 1), int), "int64 [50, 1]"),
        (np.zeros(50), "float64"),
        (np.full(50, 10), "[0, 10), got 10 to 10"),
        (np.full(50, -1), "got -1 to -1"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_malformed_labels(labels, words, suffix, tmp_path, refusal):
    path = tmp_path / f"labels.{suffix}"
    if suffix == "npz":
        np.savez(path, worse_label=labels)
    else:
        np.save(path, labels)
    message = refusal(load_human_labels, "cifar10", "worse", labels_file=path)
    assert str(path) in message
    assert words in message


def test_file_without_the_kind(tmp_path, refusal):
    np.savez(tmp_path / "x.npz", aggre_label=np.zeros(50, int))
    message = refusal(load_human_labels, "cifar10", "worse", labels_file=tmp_path / "x.npz")
    assert "no array worse_label; it has aggre_label" in message


def test_unreadable_files(tmp_path, refusal):
    (tmp_path / "x.npz").write_bytes(b"nonsense")
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    (tmp_path / "x.pt").write_bytes(b"nonsense")
    np.save(tmp_path / "y.npy", {"worse_label": np.zeros(50)}, allow_pickle=True)
    for name in ("x.npz", "x.npy", "y.npy"):
        assert name in refusal(load_human_labels, "cifar10", "worse", labels_file=tmp_path / name)
    assert "torch.load" in refusal(load_human_labels, "cifar10", "worse", labels_file=tmp_path / "x.pt")


@pytest.mark.skipif(
    not REAL_DATA_DIR
    or not any((pathlib.Path(REAL_DATA_DIR) / f).exists() for f in ("cifar10n.npz", "cifar10/cifar10n.npz"))
    or not (pathlib.Path(REAL_DATA_DIR) / "cifar10").is_dir(),
    reason="TFDS_DATA_DIR does not name a folder with CIFAR-10 and cifar10n.npz",
)
@pytest.mark.slow
def test_real_human_labels(monkeypatch):
    from dsink_jax.data import cifar_files

    monkeypatch.setattr(cifar_files, "ROWS", {"train": 50_000, "test": 10_000})
    clean = sources.load("cifar10", REAL_DATA_DIR, download=False).train.labels
    wrong = {
        kind: np.mean(load_human_labels("cifar10", kind, REAL_DATA_DIR, clean_labels=clean) != clean)
        for kind in KINDS["cifar10"]
    }
    published = {"aggre": 0.0903, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worse": 0.4021}
    for kind, share in published.items():
        assert wrong[kind] == pytest.approx(share, abs=5e-4)
