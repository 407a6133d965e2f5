"""Small stand-ins of the files that natural sets come in, and sets and encoders made up."""

import csv
import gzip
import hashlib
import io
import itertools

import numpy as np

from experiments.natural.data import NaturalSet, halves
from experiments.natural.encoders import Encoder

NAMES = ("Renal", "Cardiac", "None")


def write_texts(folder, rows, names=NAMES, columns=("split", "text", "gold", "weak")):
    """Writes a gzipped table of `(split, text, gold, weak)`, and the names of the classes beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{folder.name.removesuffix('_weak')}.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    (folder / "label_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return path


def text_rows(split, count, seed=0, weak=None):
    """Rows whose text tells their class, of three classes, a fifth of the labels wrong."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        gold = i % 3
        given = (gold + (rng.random() < 0.2)) % 3 if weak is None else weak
        yield split, f"{NAMES[gold].lower()} {rng.integers(10)}, {split}", gold, given


def write_faces(folder, rows):
    """Writes three files of faces; to each in turn one of the rows `(noisy, gold, split, seen_in_train)`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, start in zip(("train_a", "train_b", "eval"), range(3), strict=True):
        noisy, gold, split, seen = np.array(rows[start::3]).T
        np.savez(
            folder / f"fer32_{name}.npz",
            image=rng.integers(0, 256, (len(gold), 32, 32)).astype(np.uint8),
            **{"noisy": noisy.astype(np.int8), "gold": gold.astype(np.int8)},
            **{"split": split.astype(np.uint8), "seen_in_train": seen.astype(np.uint8)},
            votes=np.zeros((len(gold), 10), np.uint8),
        )
    (folder / "label_names.txt").write_text("angry\nhappy\nneutral\n", encoding="utf-8")


def write_webp(path, images, labels, digest=None):
    """Writes images uint8 `[M, 32, 32, 3]` as WebP columns of four, with labels and digest."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for start in range(0, len(images), 4):
        buffer = io.BytesIO()
        Image.fromarray(images[start : start + 4].reshape(-1, 32, 3)).save(
            buffer, "webp", lossless=True, exact=True
        )
        files.append(buffer.getvalue())
    np.savez(
        path,
        webp=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.array([0, *itertools.accumulate(map(len, files))]),
        pixels_sha256=np.array(digest or hashlib.sha256(images).hexdigest()),
        label=np.asarray(labels, np.uint8),
    )


def letters(texts):
    """Features of texts, float32 `[M, 4]`: how many of some letters there are."""
    return np.array([[text.count(letter) for letter in "rcan"] for text in texts], np.float32)


def counting_encoder(calls, encode=letters):
    """An encoder whose package is always there, and that appends to a list when it is asked."""

    def counted(inputs):
        calls.append(len(inputs))
        return encode(inputs)

    return Encoder("letters", "numpy", np.__version__, counted)


def made_up(name="claude9", count=120, tested=60, features=6, seed=0):
    """A set of features whose three classes of 6:3:1 a line parts, a fifth of the labels wrong."""
    rng = np.random.default_rng(seed)

    def draw(number):
        labels = np.arange(number) % 10
        labels = np.searchsorted([6, 9], labels, side="right")
        around = 3 * np.eye(3, features)[labels] + 0.5 * rng.standard_normal((number, features))
        return around.astype(np.float32), labels

    inputs, gold = draw(count)
    given = np.where(rng.random(count) < 0.2, rng.integers(0, 3, count), gold)
    test_inputs, test_gold = draw(tested)
    return NaturalSet(name, inputs, given, gold, test_inputs, test_gold, halves(test_gold), NAMES, "Made up.")
