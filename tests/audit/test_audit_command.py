"""The command on files that people have: arrays, tables, folders of images."""

import csv
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dsink_jax import audit
from dsink_jax.audit import __main__ as audit_command
from dsink_jax.audit.__main__ import Flags, run
from dsink_jax.audit.cross_fitting import make_folds
from dsink_jax.data import corrupt
from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from run_commands import ROOT

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    drawn = corrupt(data.target, 10, imbalance_ratio=5, noise="symmetric", noise_rate=0.3, data_seed=0)
    return data.images[drawn.index], drawn


def write_table(path, digits):
    images, drawn = digits
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", *(f"pixel {i}" for i in range(64)), "label"])
        for number, (image, label) in enumerate(zip(images, drawn.noisy_labels, strict=True)):
            rows.writerow([f"scan {number}", *image.ravel(), NAMES[label]])


def write_embeddings(path, count, width):
    """Ten classes around centres, a fifth of the labels wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, count)
    vectors = rng.normal(size=(10, width))[true] + 1.5 * rng.normal(size=(count, width))
    given = np.where(rng.random(count) < 0.2, rng.integers(0, 10, count), true)
    header = ",".join([*(f"x{i}" for i in range(width)), "label"])
    table = np.column_stack([vectors, given])
    np.savetxt(path, table, "%.4f," * width + "%d", header=header, comments="")
    return true != given


def write_folder(path, digits, count):
    images, drawn = digits
    for name in NAMES:
        (path / name).mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray((images[number] * 16).clip(0, 255).astype(np.uint8))
        image.save(path / NAMES[drawn.noisy_labels[number]] / f"{number:04d}.png")


def found_in(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_ten_thousand_embeddings_take_less_than_a_minute(tmp_path):
    wrong = write_embeddings(tmp_path / "vectors.csv", 10_000, 128)
    command = [sys.executable, "-W", "ignore", "-m", "dsink_jax.audit", str(tmp_path / "vectors.csv")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, so that it does not matter what else runs: less even on one core.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    first = [int(row["example"]) for row in found_in(tmp_path / "vectors-audit")[: wrong.sum()]]
    assert wrong[first].mean() > 0.95


@pytest.mark.slow
def test_a_table_from_the_command_line(digits, tmp_path):
    write_table(tmp_path / "digits.csv", digits)
    command = [sys.executable, "-W", "ignore", "-m", "dsink_jax.audit", str(tmp_path / "digits.csv")]
    done = subprocess.run(
        [*command, "--fail-above", "0.1"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "more than 10.0 %" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    _, drawn = digits
    assert "labels are probably wrong" in done.stdout
    rows = found_in(tmp_path / "digits-audit")
    assert len(rows) == len(drawn.noisy_labels)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    order = [int(row["example"].removeprefix("scan ")) for row in rows]
    assert sorted(order) == list(range(len(rows)))
    assert [row["given"] for row in rows] == [NAMES[k] for k in drawn.noisy_labels[order]]
    wrong = (drawn.noisy_labels != drawn.clean_labels)[order]
    flagged = np.array([row["wrong"] == "yes" for row in rows])
    assert (flagged == wrong).mean() > 0.9
    proposed = np.array([NAMES.index(row["proposed"]) for row in rows])
    assert (proposed == drawn.clean_labels[order]).mean() > 0.88
    chances = [float(row["wrong_probability"]) for row in rows]
    assert chances == sorted(chances, reverse=True)
    page = (tmp_path / "digits-audit" / "labels.html").read_text()
    assert page.count("<tr>") == 1 + 10 + 1 + min(200, flagged.sum())


@pytest.mark.slow
def test_a_folder_of_images(digits, tmp_path, capsys):
    write_folder(tmp_path / "scans", digits, 120)
    flags = Flags(
        tmp_path / "scans",
        model="small_cnn",
        image_size=8,
        folds=2,
        epochs=3,
        shown=7,
        quiet=True,
        output=tmp_path / "out",
    )
    assert run(flags) == 0
    said = capsys.readouterr().out
    assert "of 120 labels are probably wrong" in said and "fold 1" not in said
    rows = found_in(tmp_path / "out")
    assert {row["example"].split("/")[0] for row in rows} == {row["given"] for row in rows}
    page = (tmp_path / "out" / "labels.html").read_text()
    flagged = sum(row["wrong"] == "yes" for row in rows)
    assert page.count("<img ") == page.count("data:image/png;base64,") == min(7, flagged)
    assert page.count(' alt="example ') == min(7, flagged)


@pytest.mark.slow
def test_out_of_sample_means_out_of_sample(digits):
    """What is predicted for a fold does not change with the labels of that fold."""
    images, drawn = digits
    features, labels = images.reshape(len(images), -1)[:100], drawn.noisy_labels[:100].copy()
    how = {"num_classes": 10, "folds": 2, "epochs": 2}
    one = audit.out_of_sample_logits(features, labels, **how)
    fold = make_folds(labels, 2, 0)
    # Exchanged within the fold and among examples of equal place in the deal: the folds stay as they are.
    held_out = np.flatnonzero(fold == 0)
    kept = {role: getattr(one, role)[held_out] for role in ("noise_robust", "imbalance_robust")}
    fitted = audit.cross_fitting.fit(
        features[fold == 1], labels[fold == 1], num_classes=10, target=False, epochs=2
    )
    for role, rows in kept.items():
        np.testing.assert_allclose(rows, fitted.logits(features[held_out], role), rtol=1e-4, atol=1e-4)


def test_folds_share_every_class_evenly():
    labels = np.random.default_rng(0).choice(4, 203, p=[0.7, 0.2, 0.08, 0.02])
    fold = make_folds(labels, 5, seed=3)
    for label in range(4):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 1
    assert (make_folds(labels, 5, seed=4) != fold).any()


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


@pytest.mark.slow
def test_grey_images_without_a_channel(digits, tmp_path):
    images, drawn = digits
    np.savez(tmp_path / "grey.npz", images=images[:60].astype(np.uint8), labels=drawn.noisy_labels[:60])
    flags = Flags(tmp_path / "grey.npz", model="linear", folds=2, epochs=2, quiet=True)
    assert run(flags) == 0
    assert (tmp_path / "grey-audit" / "labels.html").read_text().count("data:image/png") > 0


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


def test_names_are_escaped_on_the_page():
    data = audit.Labelled(np.zeros((2, 3)), np.array([0, 1]), ("<b>", "c&d"), ("<script>", "2"))
    sure = np.log([[0.01, 0.99], [0.01, 0.99]])
    found = audit.find_label_errors(data.labels, sure, sure)
    page = audit.page(data, found, "a < b")
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page and "a &lt; b" in page


def labelled(labels):
    labels = np.array(labels)
    names = tuple(map(str, range(len(labels))))
    return audit.Labelled(np.zeros((len(labels), 3)), labels, tuple("abc"[: labels.max() + 1]), names)


def test_a_wrong_label_is_never_proposed_again():
    """Of 0.45, 0.35 and 0.2 the given label is wrong by 0.55 and the most probable all the same."""
    data = labelled([0, 1, 2])
    probabilities = np.array([[0.45, 0.35, 0.2], [0.1, 0.9, 0], [0.7, 0.1, 0.2]], np.float32)
    given = probabilities[range(3), data.labels]
    found = audit.LabelErrors(
        1 - given, probabilities.argmax(1), probabilities.max(1), probabilities, *[np.zeros(0)] * 3
    )
    rows = {row["example"]: row for row in csv.DictReader(audit.table(data, found).splitlines())}
    assert [rows[i]["wrong"] for i in "012"] == ["yes", "no", "yes"]
    assert [rows[i]["proposed"] for i in "012"] == ["b", "b", "a"]
    assert [rows[i]["confidence"] for i in "012"] == ["0.3500", "0.9000", "0.7000"]
    assert "<td>0</td><td>a</td><td>b</td>" in audit.page(data, found, "")


def test_what_cannot_be_judged_is_said_to_be_unknown():
    data = labelled([0, 0, 0, 1, 1, 2])
    knowing = 5.0 * np.eye(3)[[0, 0, 0, 1, 1, 1]]
    found = audit.find_label_errors(data.labels, knowing, knowing, judged=np.arange(6) < 5)
    assert np.isnan(found.wrong_probability).tolist() == [False] * 5 + [True]
    assert found.ranking[-1] == 5 and not found.is_wrong[5]
    rows = list(csv.DictReader(audit.table(data, found).splitlines()))
    assert rows[-1] == {
        **{"rank": "6", "example": "5", "given": "c", "proposed": "c"},
        **{"wrong_probability": "", "confidence": "", "wrong": "unknown"},
    }
    assert [row["wrong"] for row in rows[:5]] == ["no"] * 5
    assert "nan" not in audit.summary(data, found) + audit.page(data, found, "")
    with pytest.raises(InputError, match="one bool for each of 6"):
        audit.find_label_errors(data.labels, knowing, knowing, judged=np.ones(5, bool))


@pytest.mark.slow
def test_the_only_example_of_a_class_is_not_judged():
    rng = np.random.default_rng(0)
    labels = np.append(np.arange(60) % 2, 2)
    features = np.eye(3)[labels] + 0.1 * rng.standard_normal((61, 3))
    how = {"folds": 2, "epochs": 5, "batch_size": 16}
    logits = audit.out_of_sample_logits(features, labels, **how)
    assert logits.judged.tolist() == [True] * 60 + [False]
    fold = make_folds(labels, 2, 0)
    for of_role in (logits.noise_robust, logits.imbalance_robust):
        assert (np.isneginf(of_role) == np.outer(fold == fold[60], [False, False, True])).all()
    found = audit.audit_labels(features, labels, **how)
    assert np.flatnonzero(np.isnan(found.wrong_probability)).tolist() == [60]


def test_what_speaks_against_a_finding():
    data = labelled([0, 0, 0, 1, 1, 2])
    knowing = np.eye(3)[data.labels]
    assert audit.cautions(data, knowing, folds=1) == []
    (few,) = audit.cautions(data, knowing, folds=3)
    assert "fewer than the 3 folds" in few and few.endswith(": b, c.")
    assert few in audit.page(data, audit.find_label_errors(data.labels, knowing, knowing), "", cautions=[few])
    (ignorant,) = audit.cautions(data, np.eye(3)[[0] * 6], folds=1)
    assert "50.0 % of the given labels" in ignorant and "Train longer" in ignorant


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


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
    "infinity": (lambda d: write(d / "a.csv", "x,label\n1,a\ninf,b\n"), "NaN, infinity"),
    "fewer examples than folds": (
        lambda d: write(d / "a.csv", "x,label\n1,a\n2,b\n"),
        "folds must be between",
    ),
    "empty folder": (lambda d: d, "a folder for each class"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_named_in_two_lines(case, tmp_path):
    make, said = BAD[case]
    with pytest.raises(InputError) as caught:
        run(Flags(make(tmp_path), quiet=True, output=tmp_path / "out"))
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("data.csv --fail-above 2", "--fail-above must be in [0, 1]"),
        ("data.csv --noise-method erl", "Did you mean 'elr'"),
        ("data.csv --model resnet2", "Unknown model"),
        ("data.csv --seed -1", "--seed must be in"),
        ("data.csv --shown -1", "--shown must be at least 0"),
        ("data.csv --folds 1", "--folds must be at least 2"),
        ("data.csv --epochs 0", "--epochs must be at least 1"),
        ("data.csv --batch-size 0", "--batch-size must be at least 1"),
        ("data.csv --noise-method coteaching", "--noise-method coteaching: this method must be told more"),
        ("data.csv --fold 3", "--folds"),
        ("", "required"),
    ],
)
def test_bad_flags_are_named(flags, said):
    with pytest.raises(InputError) as caught:
        read_flags(Flags, flags.split())
    assert said.lower() in str(caught.value).lower()


@pytest.mark.parametrize("was_there", [False, True])
def test_data_that_are_too_few_leave_no_folder_behind(was_there, tmp_path):
    (tmp_path / "tiny.csv").write_text("a,b,label\n1,2,x\n3,4,y\n5,6,x\n")
    output = tmp_path / "tiny-audit"
    if was_there:
        output.mkdir()
    with pytest.raises(InputError, match="folds must be between 2 and the number of examples, 3"):
        run(read_flags(Flags, [str(tmp_path / "tiny.csv")]))
    assert output.exists() == was_there


@pytest.mark.slow
def test_nobody_reads_what_is_printed(tmp_path):
    write(tmp_path / "a.csv", "x,label\n" + "".join(f"{i % 2},{i % 2}\n" for i in range(20)))
    command = [sys.executable, "-m", "dsink_jax.audit", "a.csv", "--epochs", "1", "--folds", "2"]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=100) == 141


def test_any_other_failure_is_not_that_labels_are_wrong(monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(audit_command, "run", fails)
    monkeypatch.setattr(sys, "argv", ["audit", "data.csv"])
    with pytest.raises(SystemExit) as ended:
        audit_command.main()
    assert ended.value.code == 3 and "out of order" in capsys.readouterr().err


@pytest.mark.slow
def test_command_ends_with_code_2_in_one_line(tmp_path):
    command = [sys.executable, "-m", "dsink_jax.audit", str(tmp_path / "nothing.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no file or folder")
    assert len(done.stderr.strip().splitlines()) == 1
