"""What can be read of the files that people have, and what is said of those that cannot."""

import numpy as np
import pytest
from PIL import Image

from dsink_jax import audit
from dsink_jax.audit.__main__ import Flags, run
from dsink_jax.errors import InputError


def test_arrays_with_and_without_names_of_classes(tmp_path):
    features = np.arange(12.0).reshape(6, 2)
    np.savez(tmp_path / "a.npz", features=features, labels=np.array([3, 10, 3, 9, 9, 3]))
    read = audit.read(tmp_path / "a.npz")
    assert read.class_names == ("3", "9", "10")
    assert read.labels.tolist() == [0, 2, 0, 1, 1, 0]
    np.savez(
        tmp_path / "b.npz", X=features, y=np.array([1, 0, 1, 1, 1, 1]), class_names=np.array(["a", "b", "c"])
    )
    read = audit.read(tmp_path / "b.npz")
    assert read.class_names == ("a", "b", "c")
    assert read.labels.tolist() == [1, 0, 1, 1, 1, 1]
    np.savez(tmp_path / "c.npz", features=features, labels=np.array(["b", "a", "b", "a", "a", "a"]))
    assert audit.read(tmp_path / "c.npz").class_names == ("a", "b")


def test_table_with_another_label_column_and_numbers_as_labels(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffx, y ,kind\n1,2,10\n3,4,9\n\n5,6,10\n", encoding="utf-8")
    read = audit.read(tmp_path / "t.csv", label_column="kind")
    assert read.inputs.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert read.class_names == ("9", "10")
    assert read.names == ("0", "1", "2")


def test_numbers_as_text_keep_their_spelling(tmp_path):
    (tmp_path / "t.csv").write_text("x,label\n1,01\n2,1\n3,--1\n")
    assert audit.read(tmp_path / "t.csv").class_names == ("--1", "01", "1")
    (tmp_path / "t.csv").write_text("x,label\n1,10\n2,1\n3,-9\n4,01\n")
    read = audit.read(tmp_path / "t.csv")
    assert read.class_names == ("-9", "01", "1", "10")
    assert [read.class_names[k] for k in read.labels] == ["10", "1", "-9", "01"]


def test_images_of_more_than_8_bits_and_transparent_ones(tmp_path):
    for name in ("a", "b", "empty"):
        (tmp_path / name).mkdir()
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "deep.png")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "b" / "clear.png")
    read = audit.read(tmp_path, image_size=8)
    assert read.class_names == ("a", "b")  # a folder without images is no class
    np.testing.assert_allclose(read.inputs[0, ..., 0], deep / 257, atol=1)
    assert (read.inputs[1] == 255).all()


DARK, BRIGHT = 40, 200
DEEP = {
    "8 bits in 16": lambda grey: grey.astype(np.uint16),
    "10 bits": lambda grey: grey.astype(np.uint16) * 4,
    "12 bits": lambda grey: grey.astype(np.uint16) * 16,
    "16 bits": lambda grey: grey.astype(np.uint16) * 257,
    "8 bits in 32": lambda grey: grey.astype(np.int32),
    "floats to 1": lambda grey: (grey / 255).astype(np.float32),
    "floats to 255": lambda grey: grey.astype(np.float32),
    "negative floats": lambda grey: (grey - 300.0).astype(np.float32),
}


@pytest.mark.parametrize("kind", DEEP)
def test_one_scale_for_the_deep_images_of_a_folder(kind, tmp_path):
    """A dark and a bright image stay so, whatever number is their white."""
    full = np.zeros((8, 8), np.uint8)
    full[0, 0], full[0, 1:] = 0, 255  # which makes the range known
    for name, value in (("a", DARK), ("b", BRIGHT)):
        grey = np.full((8, 8), value, np.uint8)
        grey[:2] = full[:2]
        (tmp_path / name).mkdir()
        Image.fromarray(DEEP[kind](grey)).save(tmp_path / name / "1.tif")
    read = audit.read(tmp_path, image_size=8)
    assert np.abs(read.inputs[0, 4:].astype(int) - DARK).max() <= 1
    assert np.abs(read.inputs[1, 4:].astype(int) - BRIGHT).max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_with_numbers_that_are_none_are_named(bad, tmp_path):
    values = np.full((8, 8), 0.5, np.float32)
    values[3, 3] = bad
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "1.tif")
    with pytest.raises(InputError, match=r"a/1.tif holds NaN or infinity"):
        audit.read(tmp_path)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def images(folder, *names):
    """Makes small images, each in the format of its ending."""
    formats = {"jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM", "jp2": "JPEG2000", "apng": "PNG"}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(path, formats.get(path.suffix[1:]))
    return folder


def save_one(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    return path


BAD = {
    "nothing there": (lambda d: d / "nothing.csv", "no file or folder"),
    "another kind of file": (lambda d: write(d / "a.txt", "x"), "must be a .npz or .csv file"),
    "no array file": (lambda d: write(d / "a.npz", "x"), "cannot be read as .npz"),
    "empty table": (lambda d: write(d / "a.csv", ""), "has no column 'label'; its first line says: nothing"),
    "no label column": (lambda d: write(d / "a.csv", "x,y\n1,2\n"), "--label-column"),
    "another case": (lambda d: write(d / "a.csv", "x,Label\n1,2\n"), "Did you mean 'Label'?"),
    "no column of ids": (
        lambda d: write(d / "a.csv", "x,label\n1,a\n2,b\n"),
        "no column 'nope'; its first line says: x, label.\nName the right one with --id-column.",
        {"id_column": "nope"},
    ),
    "at the end of many": (
        lambda d: write(d / "a.csv", ",".join([*(f"x{i}" for i in range(50)), "class"]) + "\n"),
        "x0, x1, x2, x3, x4, ..., x46, x47, x48, x49, class",
    ),
    "semicolons": (lambda d: write(d / "a.csv", "x;y;z\n1;2;3\n"), "its columns are parted by ';'"),
    "a missing value": (lambda d: write(d / "a.csv", "x,z,label\n1,2,a\n1,,b\n"), "column 'z' is empty"),
    "numbers of lines": (
        lambda d: write(d / "a.csv", "n,x,label\n" + "".join(f"{i},5,{i % 2}\n" for i in range(1, 20))),
        "column 'n' numbers the lines",
    ),
    "measurements for labels": (
        lambda d: write(d / "a.csv", "x,label\n" + "".join(f"{i % 3},{i / 7}\n" for i in range(40))),
        "40 different labels for 40 examples",
    ),
    "objects": (
        lambda d: (
            np.savez(d / "a.npz", features=np.zeros((3, 2)), labels=np.array([1, "a", None])) or d / "a.npz"
        ),
        "Save labels as integers or words",
    ),
    "header alone": (lambda d: write(d / "a.csv", "x,label\n"), "at least one line"),
    "labels alone": (lambda d: write(d / "a.csv", "label\n1\n"), "numbers beside the labels"),
    "a word": (lambda d: write(d / "a.csv", "x,label\n1,a\nfish,b\n"), "line 3: column 'x' holds 'fish'"),
    "no label": (lambda d: write(d / "a.csv", "x,label\n1,a\n\n2,\n"), "line 4: there is no label"),
    "a single array": (lambda d: save_one(d / "a.npz"), "it is a single array"),
    "a short line": (lambda d: write(d / "a.csv", "x,z,label\n1,2,a\n1,b\n"), "line 3: 2 values for 3"),
    "bytes": (
        lambda d: (d / "a.csv").write_bytes(b"\xff\xfe\x00") and d / "a.csv",
        "cannot be read as a table",
    ),
    "one class": (lambda d: write(d / "a.csv", "x,label\n1,a\n2,a\n"), "one class only: a"),
    "infinity": (
        lambda d: write(d / "a.csv", "x,label\n1,a\ninf,b\n"),
        "line 3: column 'x' holds 'inf', which is no number",
    ),
    "a missing value by pandas": (
        lambda d: write(d / "a.csv", "x,z,label\n1,2,a\n1,NaN,b\n"),
        "line 3: column 'z' holds 'NaN', which is no number or too large for float32.\nFill in missing",
    ),
    "a huge value": (lambda d: write(d / "a.csv", "x,label\n1e60,a\n"), "line 2: column 'x' holds '1e60'"),
    "numbers of users": (
        lambda d: write(d / "a.csv", "n,x,label\n" + "".join(f"{i},5,{i % 2}\n" for i in range(700, 720))),
        "column 'n' numbers the lines",
    ),
    "labels of numbers with a point": (
        lambda d: (
            np.savez(d / "a.npz", features=np.zeros((3, 2)), labels=np.array([0.0, 1.0, 1.0])) or d / "a.npz"
        ),
        "labels.astype(int)",
    ),
    "fewer examples than folds": (
        lambda d: write(d / "a.csv", "x,label\n1,a\n2,b\n"),
        "folds must be between",
    ),
    "empty folder": (lambda d: d, "a folder for each class"),
    "labels twice": (lambda d: write(d / "a.csv", "label,x,label\n0,1,0\n1,2,1\n"), "'label' is there twice"),
    "labels twice, by pandas": (
        lambda d: write(d / "a.csv", "label,x,label.1\n0,1,0\n1,2,1\n"),
        "the column 'label' is there twice",
    ),
    "a feature twice": (lambda d: write(d / "a.csv", "x,x,label\n1,1,a\n2,2,b\n"), "'x' is there twice"),
    "no line of names": (lambda d: write(d / "a.csv", "5,0,0,1\n3,0,1,0\n"), "has no column 'label'"),
    **{
        f"{word} for no label": (
            lambda d, word=word: write(d / "a.csv", f"x,label\n1,cat\n2,{word}\n3,dog\n"),
            f"line 3: the label {word!r} says that there is none",
        )
        for word in ("NaN", "NA", "None", "null", "<NA>", "?", "-1", "#N/A")
    },
    "-1 for no label": (
        lambda d: write(d / "a.csv", "x,label\n1,0\n2,1\n3,-1\n4,2\n"),
        "line 4: the label '-1' says that there is none",
    ),
    "-1 for no label, in an array": (
        lambda d: (
            np.savez(d / "a.npz", features=np.zeros((4, 2)), labels=np.array([0, -1, 1, 2])) or d / "a.npz"
        ),
        "example 1: the label '-1' says that there is none",
    ),
    "a quote that is not closed": (
        lambda d: write(d / "a.csv", 'x,label\n1,"a\n2,b\n3,a\n'),
        "unexpected end of data.\nA quote is opened",
    ),
    "a quote that swallows lines": (
        lambda d: write(d / "a.csv", 'id,x,label\n"5 cm,1,a\n6 cm,2,b\n7" x,3,a\n'),
        "A quote is opened",
    ),
    "a line break in a label": (
        lambda d: write(d / "a.csv", 'x,label\n1,"big\ncat"\n2,dog\n'),
        "column 'label' holds a line break",
    ),
    "a line break in an id": (
        lambda d: write(d / "a.csv", 'id,x,label\n"a\nb",1,a\nc,2,b\n'),
        "column 'id' holds a line break",
    ),
    "parts of a set": (
        lambda d: (
            [images(d / f"{part}/{name}", "1.png") for part in ("train", "test") for name in "ab"] and d
        ),
        "holds test and train, which are parts of a data set and no classes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_in_two_lines(case, tmp_path):
    make, said, *flags = BAD[case]
    with pytest.raises(InputError) as caught:
        run(Flags(make(tmp_path), quiet=True, output=tmp_path / "out", **dict(*flags)))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_index_of_pandas_is_no_feature(name, tmp_path):
    path = write(tmp_path / "a.csv", f"{name},x,label\n" + "".join(f"{i},5,{i % 2}\n" for i in range(20)))
    read = audit.read(path)
    assert read.inputs.tolist() == [[5.0]] * 20 and read.names == tuple(map(str, range(20)))
    path = write(tmp_path / "b.csv", f"{name},x,id,label\n7,5,first,a\n8,6,second,b\n")
    read = audit.read(path)
    assert read.inputs.tolist() == [[5.0], [6.0]] and read.names == ("first", "second")


@pytest.mark.parametrize("labels", [[-1, 1, 1, -1], [-1, 0, 1, 0], [-2, -1, 3, 3]])
def test_negative_numbers_may_be_classes(labels, tmp_path):
    path = write(tmp_path / "a.csv", "x,label\n" + "".join(f"{i % 2},{k}\n" for i, k in enumerate(labels)))
    read = audit.read(path)
    assert [int(read.class_names[k]) for k in read.labels] == labels


@pytest.mark.parametrize(
    ("header", "cells", "ids"),
    [
        ("x,label,", ("{x},{k},",) * 2, ("0", "1")),  # a comma at the end
        ("x,label,", ("{x},{k},", "{x},{k},see mail"), ("0", "1")),
        ("Unnamed: 0.1,Unnamed: 0,x,label", ("70,3,{x},{k}", "12,9,{x},{k}"), ("70", "12")),
        (",Unnamed: 0.1,x,label", ("0,70,{x},{k}", "1,12,{x},{k}"), ("0", "1")),
        ("index,x,label", ("70,{x},{k}", "12,{x},{k}"), ("70", "12")),
        ("level_0,index,x,label", ("5,70,{x},{k}", "6,12,{x},{k}"), ("70", "12")),
    ],
)
def test_a_saved_index_is_no_feature_and_an_empty_column_no_id(header, cells, ids, tmp_path):
    lines = [
        cell.format(x=value, k=label) for cell, value, label in zip(cells, (1.5, 2.5), "ab", strict=True)
    ]
    read = audit.read(write(tmp_path / "a.csv", "\n".join([header, *lines, ""])))
    assert read.inputs.tolist() == [[1.5], [2.5]] and read.columns == ("x",)
    assert set(read.names) == set(ids) or header.startswith("level_0")


def test_an_index_that_repeats_is_a_feature(tmp_path):
    read = audit.read(write(tmp_path / "a.csv", "index,x,label\n3,1,a\n3,2,b\n"))
    assert read.columns == ("index", "x")


def test_all_images_that_can_be_read_are_and_the_rest_is_counted(tmp_path):
    images(tmp_path / "cat", "1.png", "2.jfif", "3.ppm", "4.tga", "5.jp2", "deep/6.dib")
    images(tmp_path / "dog", "1.jpe", "2.apng")
    images(tmp_path / "cat", ".checkpoints/1.png", "@eaDir/1.png", "._1.png")
    images(tmp_path / "__MACOSX" / "cat", "._1.png")
    for name in ("dog/3.heic", "dog/4.heic", "dog/notes.txt", "readme.md"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "emu").mkdir()
    read = audit.read(tmp_path, image_size=4)
    assert read.class_names == ("cat", "dog") and np.bincount(read.labels).tolist() == [6, 2]
    left, empty = read.notes
    assert "2 .heic" in left and "1 .txt" in left and "1 .md" in left and ".png" not in left
    assert empty == "Folders without an image are no classes: emu."


def test_image_that_is_none(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        audit.read(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros(3)}, "must hold the arrays 'features'"),
        ({"features": np.zeros((3, 2)), "labels": np.zeros(2, int)}, "one label for each example"),
        ({"features": np.zeros((3, 2)), "labels": np.zeros(3)}, "must be integers or words"),
        ({"features": np.zeros((2, 2)), "labels": np.array([0, 2]), "class_names": ["a", "b"]}, "in 0..1"),
    ],
)
def test_bad_arrays_are_named(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as caught:
        audit.read(tmp_path / "a.npz")
    assert said in str(caught.value)
