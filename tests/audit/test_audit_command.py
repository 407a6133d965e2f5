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

from blobs import blobs
from dsink_jax import audit, fit, recipe
from dsink_jax.audit import __main__ as audit_command
from dsink_jax.audit.__main__ import Flags, flags_of, run
from dsink_jax.data import corrupt
from dsink_jax.errors import InputError
from dsink_jax.estimator import Settings
from dsink_jax.training_set import make_folds
from run_commands import ROOT
from run_commands import run as run_command

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
    first = [int(row["example"]) for row in found_in(tmp_path / "vectors.csv-audit")[: wrong.sum()]]
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
    rows = found_in(tmp_path / "digits.csv-audit")
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
    page = (tmp_path / "digits.csv-audit" / "labels.html").read_text()
    assert page.count("<tr>") == 1 + 10 + 1 + min(200, flagged.sum())


@pytest.mark.slow
def test_examples_of_no_class_from_the_command_line(tmp_path, capsys):
    """Eights and nines, given the other labels by chance."""
    data = load_digits()
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(data.target))[:900])
    strange = data.target[rows] >= 8
    given = np.where(strange, rng.integers(0, 8, 900), data.target[rows])
    np.savez(tmp_path / "data.npz", features=data.data[rows], labels=given)
    share = f"{1 - strange.mean():.3f}"
    assert run(flags_of([str(tmp_path / "data.npz"), "--known-share", share, "--quiet"])) == 0
    assert "probably of none of the classes" in capsys.readouterr().out
    with open(tmp_path / "data.npz-audit" / "labels.csv", newline="") as file:
        table = {int(row["example"]): row for row in csv.DictReader(file)}
    none = np.array([table[i]["proposed"] == "none of these" for i in range(900)])
    known = np.array([float(table[i]["known"]) for i in range(900)])
    assert (known[~strange][:, None] > known[strange]).mean() > 0.85
    assert none[strange].mean() > 4 * none[~strange].mean()


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
    """Each fold is predicted by what a fit of the others gives."""
    images, drawn = digits
    features, labels = images.reshape(len(images), -1)[:100], drawn.noisy_labels[:100]
    how = {"num_classes": 10, "epochs": 2, "standardize": False, "selection": False}
    found = audit.out_of_sample_logits(features / 16, labels, folds=2, **how)
    fold = make_folds(labels, 2, 0)
    for number in range(2):
        kept = fold != number
        fitted = fit(features[kept] / 16, labels[kept], target=False, **how)
        seen = np.isin(np.arange(10), labels[kept])
        for role in ("noise_robust", "imbalance_robust"):
            rows, expected = getattr(found, role)[~kept], fitted.logits(features[~kept] / 16, role)
            np.testing.assert_allclose(rows[:, seen], expected[:, seen], rtol=1e-4, atol=1e-4)
            assert np.isneginf(rows[:, ~seen]).all()


@pytest.mark.slow
def test_folds_are_those_of_the_settings_and_are_told(digits, capsys):
    images, drawn = digits
    features, labels = images.reshape(len(images), -1)[:60], drawn.noisy_labels[:60]
    how = {"num_classes": 10, "settings": Settings(folds=3, epochs=1, selection=False), "verbose": True}
    audit.out_of_sample_logits(features, labels, **how)
    told = [line for line in capsys.readouterr().out.splitlines() if "fold" in line]
    assert told == [
        f"{role}: fold {k} of 3" for role in ("noise_robust", "imbalance_robust") for k in (1, 2, 3)
    ]
    audit.out_of_sample_logits(features, labels, **how, folds=2)
    assert "fold 2 of 2" in capsys.readouterr().out


def test_chosen_models_are_joined_by_one_of_elr(digits):
    """What is chosen by labels held out is trained on the others of each fold; and ELR as published."""
    images, drawn = digits
    features, labels = images.reshape(len(images), -1)[:200], drawn.noisy_labels[:200] % 4
    how = {"num_classes": 4, "epochs": 3, "folds": 2}
    found = audit.out_of_sample_logits(features, labels, **how)
    published = audit.out_of_sample_logits(features, labels, **how, selection=False)
    (elr,) = found.others
    np.testing.assert_allclose(elr, published.noise_robust, rtol=1e-4, atol=1e-4)
    assert published.others == () and np.abs(found.noise_robust - elr).max() > 0.1
    given = audit.out_of_sample_logits(features, labels, **how, noise_method="gce")
    assert given.others == ()


@pytest.mark.slow
def test_grey_images_without_a_channel(digits, tmp_path):
    images, drawn = digits
    np.savez(tmp_path / "grey.npz", images=images[:60].astype(np.uint8), labels=drawn.noisy_labels[:60])
    flags = Flags(tmp_path / "grey.npz", model="linear", folds=2, epochs=2, quiet=True)
    assert run(flags) == 0
    assert (tmp_path / "grey.npz-audit" / "labels.html").read_text().count("data:image/png") > 0


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
        (
            "data.csv --noise-method coteaching",
            "--noise-method coteaching: this method needs options that have no flags",
        ),
        ("data.csv --fold 3", "--folds"),
        ("gs://bucket/data.csv", "gs://bucket/data.csv: only places on this machine"),
        ("data.csv --output s3://bucket/found", "--output s3://bucket/found: only places on this machine"),
        ("", "required"),
    ],
)
def test_bad_flags_are_named(flags, said):
    with pytest.raises(InputError) as caught:
        flags_of(flags.split())
    assert said.lower() in str(caught.value).lower()


@pytest.mark.parametrize("was_there", [False, True])
def test_data_that_are_too_few_leave_no_folder_behind(was_there, tmp_path):
    (tmp_path / "tiny.csv").write_text("a,b,label\n1,2,x\n3,4,y\n5,6,x\n")
    output = tmp_path / "tiny.npz-audit"
    if was_there:
        output.mkdir()
    with pytest.raises(InputError, match="folds must be between 2 and the number of examples, 3"):
        run(flags_of([str(tmp_path / "tiny.csv")]))
    assert output.exists() == was_there


@pytest.mark.slow
def test_nobody_reads_what_is_printed(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n" + "".join(f"{i % 2},{i % 2}\n" for i in range(20)))
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


def small_table(path):
    rng = np.random.default_rng(0)
    rows = [f"{x:.3f},{y:.3f},{('Straße', '猫')[int(x > y)]}" for x, y in rng.normal(size=(40, 2))]
    path.write_text("\n".join(["x,y,label", *rows]) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_a_terminal_without_the_letters_of_a_class_name(tmp_path):
    small_table(tmp_path / "data.csv")
    shown = run_command(
        tmp_path / "data.csv", "--epochs", "2", module="dsink_jax.audit", PYTHONIOENCODING="ascii"
    )
    assert shown.returncode == 0, shown.stderr
    assert "\\u732b" in shown.stdout and "Stra\\xdfe" in shown.stdout
    assert "猫" in (tmp_path / "data.csv-audit" / "labels.csv").read_text(encoding="utf-8")


def test_every_data_set_has_a_folder_of_its_own_beside_it(tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    (far / "data.csv").write_text("")
    (tmp_path / "link.csv").symlink_to(far / "data.csv")
    names = ["plain.csv", "plain.npz", "set-v1.0", "set-v1.1", "link.csv"]
    folders = [Flags(tmp_path / name).folder for name in names]
    assert folders == [tmp_path / f"{name}-audit" for name in names]


@pytest.mark.parametrize("method", ["ldam_drw", "class_balanced", "posthoc_logit_adjustment"])
def test_a_class_of_one_example_is_told_before_any_training(method, monkeypatch):
    vectors, labels = blobs(60, seed=0, num_classes=3)
    labels = np.where(np.arange(60) == 59, 3, labels).astype(np.int32)
    monkeypatch.setattr(recipe, "train", None)  # not to be called
    monkeypatch.setattr(recipe, "train_together", None)
    with pytest.raises(InputError, match="class 3 has none"):
        audit.audit_labels(vectors, labels, imbalance_method=method, epochs=2, batch_size=16)
