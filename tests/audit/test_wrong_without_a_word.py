"""What once gave a wrong answer without a word: each kind in several files, with the right value or the line.

Nothing is trained: what is read, and what the audit would say of it.
"""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dsink_jax import InputError, audit
from dsink_jax.audit import arrow_tables, features, text_tables
from dsink_jax.data.copies import find_copies
from dsink_jax.estimator.inputs import check_inputs, find_offset, make_standardization
from table_writing import ALL, OF_ARROW, TEXT, write_table

X, LABELS = [1.5, 2.5, 3.5, 0.5], ["a", "b", "a", "b"]
DELIMITED = (".csv", ".csv.gz", ".tsv")


def cautions(data):
    """What the audit says beside its findings, were all labels right."""
    logits = np.log(0.9 * np.eye(len(data.class_names))[data.labels] + 0.01)
    found = audit.find_label_errors(data.labels, logits, logits)
    return "\n".join(audit.cautions(data, found, logits, 2))


def refused(path, said, **how):
    with pytest.raises(InputError) as caught:
        audit.read(path, **how)
    assert said in str(caught.value), str(caught.value)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) <= 2


# The right value, whatever file it is in: names, columns, and what must be read.
READ = {
    "numbers": (("x", "label"), (X, LABELS), [[v] for v in X], ("x",)),
    "integers": (("x", "label"), ([3, 1, 2, 5], LABELS), [[3], [1], [2], [5]], ("x",)),
    "flags": (("z", "label"), ([True, False, True, False], LABELS), [[1], [0], [1], [0]], ("z",)),
    "categories": (
        ("z", "label"),
        (["red", "blue", "red", "blue"], LABELS),
        [[0, 1], [1, 0], [0, 1], [1, 0]],
        ("z=blue", "z=red"),
    ),
    "an index that was saved": (
        ("Unnamed: 0", "x", "label"),
        ([7, 3, 9, 1], X, LABELS),
        [[v] for v in X],
        ("x",),
    ),
    "an index that was saved twice": (
        ("Unnamed: 0.1", "Unnamed: 0", "x", "label"),
        ([70, 12, 5, 6], [7, 3, 9, 1], X, LABELS),
        [[v] for v in X],
        ("x",),
    ),
    "an index that became a column": (
        ("index", "x", "label"),
        ([70, 12, 5, 6], X, LABELS),
        [[v] for v in X],
        ("x",),
    ),
    "an index that is none": (
        ("index", "x", "label"),
        ([3, 3, 4, 4], X, LABELS),
        [[i, v] for i, v in zip([3, 3, 4, 4], X, strict=True)],
        ("index", "x"),
    ),
}


@pytest.mark.parametrize("ending", ALL)
@pytest.mark.parametrize("case", READ)
def test_the_right_value_is_read(case, ending, tmp_path):
    names, columns, expected, of_features = READ[case]
    data = audit.read(write_table(tmp_path, ending, names, columns))
    assert data.inputs.tolist() == expected and data.columns == of_features
    assert [data.class_names[k] for k in data.labels] == LABELS
    assert ("categories" in "".join(data.notes)) == (case == "categories")


# The line that says what is wrong, whatever file it is in.
REFUSED = {
    "label twice": (("label", "x", "label"), (LABELS, X, LABELS), "is there twice"),
    "label.1": (("label", "x", "label.1"), (LABELS, X, LABELS), "'label' is there twice"),
    "Label beside label": (("Label", "x", "label"), (LABELS, X, LABELS), "'Label' is there twice"),
    "a feature twice": (("x", "x", "label"), (X, X, LABELS), "'x' is there twice"),
    "a number of the line": (
        ("n", "x", "label"),
        (list(range(12)), X * 3, LABELS * 3),
        "column 'n' numbers the lines",
    ),
    "no feature but the index": (
        ("Unnamed: 0", "label"),
        ([0, 1, 2, 3], LABELS),
        "numbers beside the labels",
    ),
    "a word among numbers": (
        ("x", "label"),
        (["1.5", "fish", "2", "3"], LABELS),
        "'fish', which is no number",
    ),
    "percent": (("x", "label"), (["5%", "2%", "5%", "2%"], LABELS), "'5%', which is no number"),
    "a unit": (("x", "label"), (["5 cm", "2 cm", "5 cm", "2 cm"], LABELS), "'5 cm', which is no number"),
    "texts": (
        ("x", "label"),
        ([f"sentence {i}a" for i in range(40)], LABELS * 10),
        "too many for categories",
    ),
    "no number": (("x", "label"), ([1.5, float("nan"), 2.5, 3.5], LABELS), "column 'x' holds"),
    "infinity": (("x", "label"), ([1.5, float("inf"), 2.5, 3.5], LABELS), "column 'x' holds"),
    "too large": (("x", "label"), ([1.5, 1e60, 2.5, 3.5], LABELS), "too large for float32"),
    "nothing in a feature": (("x", "label"), ([1.5, None, 2.5, 3.5], LABELS), "column 'x' is empty"),
    "nothing for a label": (("x", "label"), (X, ["a", None, "b", "a"]), "there is no label"),
    "nothing for a category": (("z", "label"), (["u", None, "v", "u"], LABELS), "column 'z' is empty"),
    "a missing category": (("z", "label"), (["u", "NA", "v", "u"], LABELS), "column 'z' holds 'NA'"),
    **{
        f"label {word}": (
            ("x", "label"),
            (X, ["a", "b", word, "b"]),
            f"label {word!r} says that there is none",
        )
        for word in ("NaN", "NA", "None", "null", "<NA>", "?", "-1")
    },
    "-1 among numbers": (("x", "label"), (X, [0, 1, -1, 2]), "label '-1' says that there is none"),
}


@pytest.mark.parametrize("ending", ALL)
@pytest.mark.parametrize("case", REFUSED)
def test_the_line_that_says_what_is_wrong(case, ending, tmp_path):
    names, columns, said = REFUSED[case]
    try:
        path = write_table(tmp_path, ending, names, columns)
    except ValueError:
        pytest.skip("such a file cannot be written")
    refused(path, said)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("case", [*READ, *REFUSED])
def test_one_row_at_a_time_is_the_same(case, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "_BLOCK", 1)
    monkeypatch.setattr(text_tables, "_ROWS", 1)
    monkeypatch.setattr(text_tables, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(arrow_tables, "NUMBERS_AT_ONCE", 1)
    test = test_the_right_value_is_read if case in READ else test_the_line_that_says_what_is_wrong
    test(case, ending, tmp_path)


@pytest.mark.parametrize("ending", ALL)
def test_a_place_is_named(ending, tmp_path):
    path = write_table(tmp_path, ending, ("x", "label"), ([1.5, 2.5, float("nan"), 3.5], LABELS))
    where = {".jsonl": "line 3", ".jsonl.gz": "line 3"}.get(
        ending, "line 4" if ending in TEXT else "example 2"
    )
    refused(path, f"{where}: column 'x' holds")


@pytest.mark.parametrize("ending", ALL)
@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["u", "v", "w", "x"], ("u", "v", "w", "x")),
        ([3, 1, 2, 9], ("3", "1", "2", "9")),
        (["u", None, "w", None], None),
    ],
)
def test_ids(ids, names, ending, tmp_path):
    data = audit.read(write_table(tmp_path, ending, ("id", "x", "label"), (ids, X, LABELS)))
    assert data.columns == ("x",)
    if names is None:
        assert len(set(data.names)) == 4 and "2 examples have no id" in "".join(data.notes)
    else:
        assert data.names == names


@pytest.mark.parametrize("ending", DELIMITED)
@pytest.mark.parametrize(
    ("last", "names"), [([None] * 4, ("0", "1", "2", "3")), (["", "see", "", ""], ("0", "1", "2", "3"))]
)
def test_a_column_without_a_name_that_is_empty_is_no_id(last, names, ending, tmp_path):
    data = audit.read(write_table(tmp_path, ending, ("x", "label", ""), (X, LABELS, last)))
    assert data.names == names and data.columns == ("x",)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize("name", [None, "number"])
def test_an_index_that_pandas_keeps_in_a_file_of_arrow(kind, name, tmp_path):
    frame = pd.DataFrame({"x": X, "label": LABELS}, index=pd.Index([9, 4, 7, 2], name=name))
    if kind == "feather":
        frame = frame.reset_index(names="index")
    getattr(frame, f"to_{kind}")(tmp_path / f"t.{kind}")
    data = audit.read(tmp_path / f"t.{kind}")
    assert data.columns == ("x",) and data.names == ("9", "4", "7", "2")


def test_categories_by_their_type_are_categories_even_if_they_are_numbers(tmp_path):
    frame = pd.DataFrame({"z": pd.Categorical([3, 1, 3, 1]), "label": pd.Categorical(LABELS)})
    frame.to_parquet(tmp_path / "t.parquet")
    data = audit.read(tmp_path / "t.parquet")
    assert data.columns == ("z=1", "z=3") and data.inputs.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("ending", (".jsonl", ".jsonl.gz", *OF_ARROW))
def test_vectors_in_a_column(ending, tmp_path):
    vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    data = audit.read(write_table(tmp_path, ending, ("e", "x", "label"), (vectors, X, LABELS)))
    assert data.inputs.tolist() == [[*v, x] for v, x in zip(vectors, X, strict=True)]
    assert data.columns == ("e[0]", "e[1]", "x")
    vectors[2] = [5.0]
    refused(write_table(tmp_path, ending, ("e", "x", "label"), (vectors, X, LABELS)), "column 'e' holds")


@pytest.mark.parametrize("ending", ALL)
def test_several_labels(ending, tmp_path):
    path = write_table(tmp_path, ending, ("x", "label"), (X, ["u;v", "u", "v", "w"]))
    data = audit.read(path, label_separator=";")
    assert data.labels.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    path = write_table(tmp_path, ending, ("x", "u", "v"), (X, [1, 0, 1, 0], [True, False, False, True]))
    data = audit.read(path, label_columns=("u", "v"))
    assert data.labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1]] and data.columns == ("x",)


@pytest.mark.parametrize("ending", (".jsonl", ".parquet"))
def test_a_list_is_no_label(ending, tmp_path):
    path = write_table(tmp_path, ending, ("x", "label"), (X, [["a"], ["b"], ["a"], ["b"]]))
    refused(path, "a label or an id is a list")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".arrow"])
def test_a_vector_that_is_missing_is_named(ending, tmp_path):
    path = write_table(tmp_path, ending, ("e", "label"), ([[1.0], None, [2.0], [3.0]], LABELS))
    refused(path, "column 'e' is empty")


def test_without_arrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write_table(tmp_path, ".csv", ("x", "label"), (X, LABELS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError) as caught:
        audit.read(path)
    assert str(caught.value) == 'Reading a table needs pyarrow: pip install "dsink-jax[audit]"'


# Quotes that swallow lines, and what is no table of commas.
TEXTS = {
    "one stray quote": ('id,x,label\ni,1,a\n"j,2,b\nk,3,a\n', "line 3 cannot be read as a table"),
    "two stray quotes": ('id,x,label\n"i,1,a\nj,2,b\n"k,3,a\n', "line 2 cannot be read as a table"),
    "quotes that end with a value": (
        'id,x,label\n"i,1,a\nj",2,b\nk,3,a\n',
        "line 2: column 'id' holds a line",
    ),
    "a line break in a label": ('x,label\n1,"a\nb"\n2,c\n', "line 2: column 'label' holds a line break"),
    "a quote in the header": ('"x,label\n1,a\n2,b\n', "line 1 cannot be read as a table"),
    "semicolons": ("x;label\n1;a\n2;b\n", "its columns are parted by ';'.\nSave it with commas"),
    "semicolons and decimal commas": ("x;label\n1,5;a\n2,5;b\n", "parted by ';'.\nSave it with commas"),
    "tabs": ("x\tlabel\n1\ta\n", "parted by '\\t'"),
    "bars": ("x|label\n1|a\n", "parted by '|'"),
    "a line for a spreadsheet": ("sep=,\nx,label\n1,a\n", "Leave that line out"),
    "a long line": ("x,label\n1,a\n2,b,c\n", "line 3: 3 values for 2 columns"),
    "a short line after an empty one": ("x,label\n1,a\n\n2\n", "line 4: 1 values for 2 columns"),
    "zero bytes": ("x,label\n1,a\0\n2,b\n", "line 2 cannot be read as a table: it holds a zero byte"),
    "thousands": ('x,label\n"1,000",a\n2,b\n', "holds '1,000', which is no number"),
    "decimal commas in quotes": ('x,label\n"1,5",a\n"2,5",b\n', "holds '1,5', which is no number"),
    "the header again": ("x,label\n1,a\nx,label\n2,b\n", "line 3: column 'x' holds 'x', which is no number"),
}


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_are_no_tables_of_commas(case, ending, tmp_path):
    text, said = TEXTS[case]
    path = tmp_path / f"t{ending}"
    path.write_bytes(text.encode() if ending == ".csv" else __import__("gzip").compress(text.encode()))
    refused(path, said)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings(encoding, tmp_path):
    (tmp_path / "t.csv").write_bytes("x,label\n1,caf\u00e9\n2,b\n".encode(encoding))
    refused(tmp_path / "t.csv", "cannot be read as a table")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,label\n1,a\n  \n2,b\n", [[1], [2]]),
        ("x,label\r1,a\r2,b\r", [[1], [2]]),
        ("\ufeffx,label\r\n1,a\r\n2,b\r\n", [[1], [2]]),
        ('x,label\n1,5" a\n2,5" b\n', [[1], [2]]),
        ("x,label\n 1 ,a\n+2,b", [[1], [2]]),
        ("x,label\n1_000,a\n2,b\n", [[1000], [2]]),
        ("x,label\n9007199254740993,a\n18446744073709551616,b\n", [[9007199254740992], [2.0**64]]),
    ],
)
def test_texts_that_are(text, expected, tmp_path):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert audit.read(tmp_path / "t.csv").inputs.tolist() == expected


# Labels that are given away, copies, classes that look alike: warned of.

LEAKS = {
    "a second column of labels": lambda labels, rng: labels,
    "numbers for the labels": lambda labels, rng: 10.0 * labels + 3,
    "one class": lambda labels, rng: None,
    "words for the labels": lambda labels, rng: np.array(["p", "q", "r"])[labels],
}


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl.gz"])
@pytest.mark.parametrize("case", LEAKS)
def test_columns_that_give_the_labels_away(case, ending, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    columns = {"x": rng.normal(size=300).tolist(), "label": labels.tolist()}
    if case == "one class":  # an indicator of each
        columns |= {f"is_{k}": (labels == k).astype(int).tolist() for k in range(3)}
    else:
        columns["twin"] = LEAKS[case](labels, rng).tolist()
    told = cautions(audit.read(write_table(tmp_path, ending, tuple(columns), tuple(columns.values()))))
    assert "The labels follow nearly without error from" in told
    assert "'is_" in told if case == "one class" else "'twin" in told


ALIKE = {
    "forms of Unicode": (
        "caf\u00e9",
        "cafe\u0301",
    ),
    "a sign without width": ("cat", "cat\u200b"),
    "a mark of byte order": ("cat", "\ufeffcat"),
    "wide letters": ("cat", "\uff43\uff41\uff54"),
    "capitals": ("cat", "Cat"),
    "spaces": ("big cat", "big  cat"),
    "1 and 1.0": ("1", "1.0"),
    "1 and 01": ("1", "01"),
}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("case", ALIKE)
def test_classes_that_look_alike(case, ending, tmp_path):
    one, other = ALIKE[case]
    path = write_table(tmp_path, ending, ("x", "label"), (X, [one, other, one, "owl"]))
    assert f"{min(one, other)!r} and {max(one, other)!r}" in cautions(audit.read(path)).replace(
        f"{max(one, other)!r} and {min(one, other)!r}", f"{min(one, other)!r} and {max(one, other)!r}"
    )


@pytest.mark.parametrize("ending", ALL)
def test_copies_are_told_and_those_with_different_labels_listed(ending, tmp_path):
    ids = ["u", "v", "w", "x", "y"]
    path = write_table(
        tmp_path, ending, ("id", "x", "label"), (ids, [1.5, 2.5, 1.5, 2.5, 3.5], ["a", "b", "a", "a", "b"])
    )
    told = cautions(audit.read(path))
    assert "2 examples are copies of others" in told
    assert "Copies with different labels, of which one at least is wrong: v, x." in told


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16, bool, "U3"])
def test_copies_of_every_type(dtype):
    rows = np.array([[0, 1], [1, 1], [0, 1]]).astype(dtype)
    assert find_copies(rows).tolist() == [0, 1, 0]


# Axes and units.


@pytest.mark.parametrize("shape", [(512, 1, 1), (1, 1, 512), (1, 512), (512, 1), (1, 512, 1)])
def test_axes_of_length_one_are_left_out_and_told(shape):
    with pytest.warns(UserWarning, match="axes of length one"):
        assert check_inputs(np.zeros((4, *shape), np.float32), adds_channel=True).shape == (4, 512)


@pytest.mark.parametrize("shape", [(3, 48, 64), (1, 60, 80), (4, 64, 64), (2, 64, 64), (3, 224, 224)])
def test_channels_first_are_refused(shape):
    with pytest.raises(InputError, match=r"numpy\.moveaxis"):
        check_inputs(np.zeros((4, *shape), np.uint8), adds_channel=True)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".arrow"])
@pytest.mark.parametrize(
    ("unit", "origin"), [(1e-15, 0.0), (1 / 24, 2460000.5), (0.01, 4649776.22), (1.0, 101325.0), (1.0, 1.7e9)]
)
def test_numbers_of_any_unit_differ_as_they_did(unit, origin, ending, tmp_path, monkeypatch):
    """Also where there are so many that float32 is to hold them."""
    monkeypatch.setattr(features, "_MANY", 1)
    steps = [0.0, 1.0, 2.0, 3.0]
    values = [origin + unit * step for step in steps]
    data = audit.read(write_table(tmp_path, ending, ("x", "label"), (values, LABELS)))
    offset = find_offset(data.inputs)
    array = check_inputs(data.inputs, offset=offset)
    made = make_standardization(array, offset, data.inputs.dtype)
    found = ((array - made.mean) * made.scale)[:, 0]
    np.testing.assert_allclose(found, (np.array(steps) - 1.5) / np.std(steps), atol=0.01)


@pytest.mark.parametrize("ending", ALL)
def test_many_numbers_are_held_as_float32(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_MANY", 1)
    data = audit.read(write_table(tmp_path, ending, ("x", "label"), (X, LABELS)))
    assert data.inputs.dtype == np.float32 and data.inputs[:, 0].tolist() == X


# Folders of images.


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    formats = {
        ".jfif": "JPEG",
        ".jpe": "JPEG",
        ".jp2": "JPEG2000",
        ".apng": "PNG",
        ".dib": "DIB",
        ".tga": "TGA",
    }
    image = Image.fromarray(np.full((8, 8), value, np.uint8))
    image = image.convert("1") if path.suffix == ".pbm" else image
    image.save(path, formats.get(path.suffix, "PPM" if path.suffix[1:] in ("pgm", "pbm", "ppm") else None))


@pytest.mark.parametrize(
    "ending",
    [
        "png",
        "jpg",
        "jfif",
        "jpe",
        "ppm",
        "pgm",
        "pbm",
        "jp2",
        "avif",
        "tga",
        "apng",
        "dib",
        "bmp",
        "gif",
        "webp",
        "tif",
        "ico",
    ],
)
def test_what_pillow_reads_is_read(ending, tmp_path):
    for name in "ab":
        picture(tmp_path / name / f"1.{ending}")
    assert audit.read(tmp_path, image_size=4).names == (f"a/1.{ending}", f"b/1.{ending}")


@pytest.mark.parametrize("ending", ["heic", "dcm", "npy", "txt"])
def test_what_pillow_does_not_read_is_counted(ending, tmp_path):
    for name in "ab":
        picture(tmp_path / name / "1.png")
    (tmp_path / "b" / f"2.{ending}").write_text("x")
    assert f"1 .{ending}" in audit.read(tmp_path, image_size=4).notes[0]


@pytest.mark.parametrize("hidden", [".checkpoints", "@eaDir", ".thumbnails", ".Trash/files"])
def test_hidden_folders_are_passed_over(hidden, tmp_path):
    for name in ("a/1.png", "b/1.png", f"a/{hidden}/2.png", f"a/deep/{hidden}/3.png"):
        picture(tmp_path / name)
    assert audit.read(tmp_path, image_size=4).names == ("a/1.png", "b/1.png")


def test_links_that_lead_nowhere_are_told(tmp_path):
    for name in "ab":
        picture(tmp_path / name / "1.png")
    (tmp_path / "a" / "2.png").symlink_to("nowhere.png")
    data = audit.read(tmp_path, image_size=4)
    assert len(data.names) == 2 and "1 .png" in data.notes[0]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_one_scale_for_deep_images(bits, tmp_path):
    white = 2**bits - 1
    for name, share in (("a", 0.2), ("b", 0.8)):
        values = np.full((8, 8), round(share * white), np.uint16)
        values[0, 0] = white
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "1.png")
    dark, bright = audit.read(tmp_path, image_size=8).inputs[:, -1, -1, 0].astype(float)
    np.testing.assert_allclose([dark, bright], [0.2 * 255, 0.8 * 255], atol=1.5)


@pytest.mark.parametrize("names", [[b"cat", "h\u00fcnd".encode()], ["cat", "h\u00fcnd"]])
def test_names_of_classes_in_bytes(names, tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(3), labels=np.array([0, 1, 1]), class_names=np.array(names))
    assert audit.read(tmp_path / "a.npz").class_names == ("cat", "h\u00fcnd")


@pytest.mark.parametrize("path", ["gs://b/x", "s3://b/x.csv", "hf://datasets/x", "https://x.org/y.parquet"])
def test_addresses_are_no_folders(path):
    with pytest.raises(InputError, match="only places on this machine"):
        audit.read(path)
