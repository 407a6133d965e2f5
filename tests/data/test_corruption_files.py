"""The corrupted set as a file, its digest and its description."""

import dataclasses
import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corruption_references import MAP_10_SEED_1, drawn
from dsink_jax.data import corruption as corruptions
from dsink_jax.data.corruption import (
    describe,
    load_corruption,
    save_corruption,
)
from dsink_jax.errors import InputError

# The digest and the file.

# The digest of a small set, drawn once; another value would mean other subsets or labels for every seed.
GOLDEN = "0ddc44f156955c5d1f9e02ad85a38f386ad98cb4146a7bb9b8b3d1e52f716674"
GOLDEN_SCRIPT = """
import numpy as np
from dsink_jax.data.corruption import corrupt

made = corrupt(
    np.arange(1000) % 10, 10, imbalance_ratio=10.0, noise="symmetric", noise_rate=0.4, data_seed=5
)
print(made.sha256)
"""


def golden():
    return drawn(np.arange(1000) % 10, 10, data_seed=5)


def test_digest_is_pinned():
    assert golden().sha256 == GOLDEN


@pytest.mark.slow
def test_digest_is_the_same_in_another_process():
    root = pathlib.Path(corruptions.__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        [sys.executable, "-c", GOLDEN_SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == GOLDEN


def test_digest_covers_integers_as_int64_and_settings_as_text(small):
    digest = hashlib.sha256()
    for array in (
        small.index,
        small.clean_labels,
        small.noisy_labels,
        small.counts_before,
        small.class_map,
    ):
        digest.update(b"".join(int(value).to_bytes(8, "little", signed=True) for value in array))
    digest.update(b"['asymmetric', '0.4', '10.0', '4']")
    assert small.sha256 == digest.hexdigest()


def changes(made):
    """One change of each array and setting, by its name."""
    return {
        "index": made.index[::-1],
        "clean_labels": (made.clean_labels + 1) % 3,
        "noisy_labels": np.where(
            np.arange(len(made.index)) == 7, (made.noisy_labels + 1) % 3, made.noisy_labels
        ),
        "counts_before": made.counts_before + np.array([0, 0, 1]),
        "class_map": made.class_map[::-1],
        "noise": "symmetric",
        "nominal_rate": 0.4000001,
        "imbalance_ratio": 11.0,
        "data_seed": 5,
    }


def test_digest_changes_with_every_part(small):
    changed = changes(small)
    assert set(changed) == {field.name for field in dataclasses.fields(small)}
    digests = {dataclasses.replace(small, **{name: value}).sha256 for name, value in changed.items()}
    assert len(digests | {small.sha256}) == len(changed) + 1


def assert_same(actual, expected):
    for field in dataclasses.fields(expected):
        one, two = getattr(actual, field.name), getattr(expected, field.name)
        assert type(one) is type(two), field.name
        np.testing.assert_array_equal(one, two, err_msg=field.name, strict=True)
    assert actual.sha256 == expected.sha256


def test_round_trip(tmp_path, small):
    path = tmp_path / "corruption.npz"
    save_corruption(path, small)
    assert_same(load_corruption(path), small)
    assert [file.name for file in tmp_path.iterdir()] == ["corruption.npz"]  # nothing half-written is left


def test_round_trip_of_human_labels(tmp_path):
    labels = np.arange(100) % 10
    made = drawn(labels, 10, noise="human_aggre", human_labels=labels[::-1])
    save_corruption(tmp_path / "c.npz", made)
    loaded = load_corruption(tmp_path / "c.npz")
    assert np.isnan(loaded.nominal_rate)
    assert_same(loaded, made)


def test_saving_replaces_an_older_file(tmp_path, small):
    path = tmp_path / "corruption.npz"
    path.write_text("something else")
    save_corruption(path, small)
    assert_same(load_corruption(path), small)


def saved_parts(made, path):
    save_corruption(path, made)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize(
    "name",
    [field.name for field in dataclasses.fields(corruptions.Corruption)],
)
def test_a_changed_part_is_noticed(tmp_path, small, name):
    path = tmp_path / "corruption.npz"
    parts = saved_parts(small, path)
    np.savez(path, **parts | {name: changes(small)[name]})
    with pytest.raises(InputError, match="does not match its digest"):
        load_corruption(path)
    np.savez(path, **parts)  # the same route without the change is fine
    assert_same(load_corruption(path), small)


@given(data=st.data())
def test_one_changed_label_is_noticed(tmp_path_factory, small, data):
    path = tmp_path_factory.getbasetemp() / "one-label.npz"
    parts = saved_parts(small, path)
    name = data.draw(st.sampled_from(["index", "clean_labels", "noisy_labels"]))
    position = data.draw(st.integers(0, len(small.index) - 1))
    parts[name][position] += data.draw(st.sampled_from([-1, 1]))
    np.savez(path, **parts)
    with pytest.raises(InputError, match="does not match its digest"):
        load_corruption(path)


@given(data=st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, small, data):
    path = tmp_path_factory.getbasetemp() / "truncated.npz"
    save_corruption(path, small)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match="not a readable corrupted set"):
        load_corruption(path)


@pytest.mark.slow
def test_a_flipped_byte_is_refused_or_harmless(tmp_path, small):
    path = tmp_path / "flipped.npz"
    save_corruption(path, small)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            loaded = load_corruption(path)
        except InputError:
            refused += 1
        else:
            assert_same(loaded, small)
    assert refused > len(whole) // 2


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file .*nowhere\.npz\.\nGive the corruption.npz of a run"):
        load_corruption(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("index,label\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps({"index": [1]})),
        lambda path: path.mkdir(),
        lambda path: np.savez(path, labels=np.arange(3)),
        lambda path: np.savez(path, **dict.fromkeys(("index", "clean_labels"), np.array([None]))),
        lambda path: zipfile.ZipFile(path, "w").close(),
        lambda path: path.write_bytes(_npy(np.arange(3))),
    ],
    ids=["text", "empty", "pickle", "folder", "other_npz", "objects", "empty_zip", "npy"],
)
def test_another_file_is_refused(tmp_path, write):
    path = tmp_path / "corruption.npz"
    write(path)
    with pytest.raises(InputError, match=r"not a readable corrupted set.*\nGive the corruption.npz"):
        load_corruption(path)


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# The description.


def test_describe_states_the_numbers(cifar10_labels):
    made = drawn(cifar10_labels, 10, imbalance_ratio=100, noise="asymmetric", noise_rate=0.2, data_seed=17)
    text = describe(made)
    assert "12,406 training images, imbalance ratio 100, data seed 17" in text
    wrong = 100 * (made.clean_labels != made.noisy_labels).mean()
    assert f"noise asymmetric: nominal rate 0.2, realised {wrong:.1f} % wrong labels" in text
    assert "5000 2997 1796 1077 645 387 232 139 83 50  (of 10 x 5000)" in text
    assert " ".join(str((made.noisy_labels == c).sum()) for c in range(10)) in text
    assert text.splitlines()[-1].split() == ["class", "map", *map(str, MAP_10_SEED_1)]


def test_describe_shortens_many_classes(cifar100_labels):
    lines = describe(drawn(cifar100_labels, 100, imbalance_ratio=100)).splitlines()
    assert lines[0].startswith("10,847 training images")
    assert " ".join(lines[2].split()[4:]) == "500 477 455 434 415 ... 6 5 5 5 5 (of 100 x 500)"
    assert len(lines) == 4  # no class map


def test_describe_without_a_nominal_rate():
    labels = np.arange(100) % 10
    untouched = describe(drawn(labels, 10, noise="none", imbalance_ratio=1.0))
    assert "noise none: the labels are taken as they are\n" in untouched and "rate" not in untouched
    text = describe(drawn(labels, 10, noise="human_aggre", human_labels=labels, imbalance_ratio=1.0))
    assert "human_aggre" in text
    assert "realised 0.0 %" in text
    assert "10 x 10" in text
