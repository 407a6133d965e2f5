"""Natural sets as they are read: from files made up, and the real ones where they are."""

import os
import pathlib

import numpy as np
import pytest

from dsink_jax.data import cifar_files
from dsink_jax.errors import InputError
from experiments.natural.data import SETS, halves, read_set
from natural_files import NAMES, text_rows, write_faces, write_texts, write_webp

_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "natural"
REAL = pathlib.Path(os.environ.get("NATURAL_DATA_DIR") or _BESIDE)


def test_halves_split_every_class_evenly_and_always_alike():
    gold = np.repeat([0, 1, 2], [40, 7, 2])
    tuning = halves(gold)
    assert np.array_equal(tuning, halves(gold))
    assert abs(2 * tuning.sum() - len(gold)) <= 1
    for label in range(3):
        assert abs(2 * tuning[gold == label].sum() - (gold == label).sum()) <= 1


@pytest.mark.parametrize("below", ["", "natural"])
def test_valid_rows_of_claude9_join_the_tuning(tmp_path, below):
    rows = [*text_rows("train", 9), *text_rows("valid", 4), *text_rows("test", 12)]
    write_texts(tmp_path / below / "claude9_weak", rows)
    found = read_set("claude9", tmp_path)
    assert (len(found.inputs), len(found.test_inputs), found.num_classes) == (9, 16, 3)
    assert found.is_text and not found.is_images
    assert found.tuning[12:].all() and found.tuning[:12].sum() == 6
    assert all(text.endswith("valid") for text in found.test_inputs[12:])
    assert found.gold.tolist() == [0, 1, 2] * 3
    assert found.class_names == NAMES


def test_rows_of_chemprot_that_no_rule_knows_are_left_out(tmp_path):
    rows = [*text_rows("train", 6), *text_rows("train", 3, weak=-1), *text_rows("unlabeled", 3)]
    rows += [*text_rows("dev", 6), *text_rows("test", 6)]
    write_texts(tmp_path / "chemprot_weak", rows)
    found = read_set("chemprot", tmp_path)
    assert (len(found.inputs), found.given.min() >= 0) == (6, True)
    assert [text.split()[-1] for text in found.test_inputs] == ["dev"] * 6 + ["test"] * 6


def test_faces_that_cannot_be_judged_are_left_out(tmp_path):
    train = [(0, 1, 0, 0), (1, 1, 0, 0), (2, 0, 0, 0), (-1, 2, 0, 0), (0, -1, 0, 0), (0, -4, 0, 0)]
    tested = [(0, 0, 1, 0), (1, 1, 2, 0), (-1, 2, 2, 0), (1, 1, 1, 1), (1, -2, 1, 0)]
    write_faces(tmp_path / "natural" / "fer2013_ferplus", train + tested)
    found = read_set("fer", tmp_path)
    assert sorted(zip(found.given.tolist(), found.gold.tolist(), strict=True)) == [(0, 1), (1, 1), (2, 0)]
    assert sorted(found.test_gold.tolist()) == [0, 1, 2]  # no label of its own is needed to judge by it
    assert found.inputs.shape == (3, 32, 32, 1) and found.inputs.dtype == np.uint8
    assert found.is_images


def test_cifar_is_read_from_webp_with_its_human_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(cifar_files.ROWS, "train", 6)
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8) for count in (6, 4))
    labels = np.arange(6) % 3
    write_webp(tmp_path / "cifar10" / "train.npz", train, labels)
    write_webp(tmp_path / "cifar10" / "test.npz", test, labels[:4])
    (tmp_path / "cifar10" / "label_names.txt").write_text("\n".join("abcdefghij"))
    with pytest.raises(InputError, match=r"cifar10n\.npz"):
        read_set("cifar10n", tmp_path)
    worse = np.where(np.arange(6) < 3, labels, (labels + 1) % 3)
    np.savez(tmp_path / "cifar10" / "cifar10n.npz", worse_label=worse, clean_label=labels)
    found = read_set("cifar10n-features", tmp_path)
    assert np.array_equal(found.inputs, train) and np.array_equal(found.test_inputs, test)
    assert np.array_equal(found.given, worse) and np.array_equal(found.gold, labels)
    assert found.num_classes == 10
    write_webp(tmp_path / "cifar10" / "test.npz", test, labels[:4], digest="0")
    with pytest.raises(InputError, match="digest"):
        read_set("cifar10n", tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_what_is_missing_is_named_with_the_places(name, tmp_path):
    with pytest.raises(InputError) as raised:
        read_set(name, tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "--data-dir" in str(raised.value)


def test_unknown_set_is_named(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'claude9'"):
        read_set("claude8", tmp_path)


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([("train", "a", 0, 3)], None, "labels in weak must be -1 to 2, got 3 to 3"),
        ([("train", "a", "x", 0)], None, "a label is not a number"),
        ([("train", "a", 0)], ("split", "text", "gold"), "has no column weak"),
        ([("train", "a", 0, -1), ("test", "a", 0, 0)], None, "has no labelled rows of train"),
        ([("train", "a", 0, 0)], None, "has no labelled rows of test"),
    ],
)
def test_a_table_that_does_not_go_is_told_of(rows, columns, said, tmp_path):
    write_texts(tmp_path / "claude9_weak", rows, **({"columns": columns} if columns else {}))
    with pytest.raises(InputError, match=said):
        read_set("claude9", tmp_path)


def test_damaged_files_are_told_of(tmp_path):
    path = write_texts(tmp_path / "claude9_weak", text_rows("train", 50))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read"):
        read_set("claude9", tmp_path)
    write_faces(tmp_path / "fer2013_ferplus", [(0, 0, 0, 0), (1, 1, 1, 0), (1, 1, 0, 0)])
    (tmp_path / "fer2013_ferplus" / "fer32_eval.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="fer32_eval"):
        read_set("fer", tmp_path)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="NATURAL_DATA_DIR does not name a folder with the natural sets: none here"
)
@pytest.mark.parametrize(
    ("name", "train", "wrong", "tested", "tuning", "true", "given"),
    [
        ("claude9", 5469, 0.100, 2257, 1229, (28, 4902), (15, 5082)),
        ("chemprot", 11058, 0.4457, 3214, 1607, (37, 3940), (22, 3689)),
        ("fer", 26640, 0.3410, 6188, 3094, (175, 9333), (333, 7080)),
    ],
)
def test_real_sets_have_the_numbers_that_are_told_of_them(name, train, wrong, tested, tuning, true, given):
    found = read_set(name, REAL)
    assert (len(found.given), len(found.test_gold), found.tuning.sum()) == (train, tested, tuning)
    assert np.mean(found.given != found.gold) == pytest.approx(wrong, abs=5e-4)
    for labels, ends in ((found.gold, true), (found.given, given)):
        counts = np.bincount(labels, minlength=found.num_classes)
        assert (counts.min(), counts.max()) == ends
