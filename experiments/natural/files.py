"""The files that natural sets come in: tables of labelled texts, faces, WebP images."""

import csv
import gzip
import hashlib
import io
import itertools
import pathlib
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError

_COLUMNS = ("split", "text", "gold", "weak")
_FACES = ("image", "noisy", "gold", "split", "seen_in_train")
_WEBP = ("webp", "offsets", "label", "pixels_sha256")


class LabelledTexts(NamedTuple):
    """A table of texts.

    Attributes:
      path: of its file.
      split: names `[R]` of the parts that rows are of.
      texts: R texts.
      gold: int64 `[R]` in 0..C-1.
      weak: int64 `[R]` in 0..C-1, or -1 where no rule knows the text.
      class_names: C names.
    """

    path: pathlib.Path
    split: np.ndarray
    texts: list[str]
    gold: np.ndarray
    weak: np.ndarray
    class_names: tuple[str, ...]


def find(relative: str, data_dir: pathlib.Path) -> pathlib.Path:
    """A file or folder directly below a folder, or below its folder `natural`.

    Raises:
      InputError: if it is in neither.
    """
    for folder in (data_dir, data_dir / "natural"):
        if (folder / relative).exists():
            return folder / relative
    raise InputError(
        f"{relative} was not found in {data_dir} nor in {data_dir / 'natural'}.\n"
        "Give --data-dir the folder that holds it."
    )


def read_labelled_texts(path: pathlib.Path) -> LabelledTexts:
    """Reads a gzipped table with columns split, text, gold and weak, and the names of classes beside it.

    Raises:
      InputError: if it cannot be read, lacks a column, or a label is no class.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {', '.join(missing)}.")
            rows = list(reader)
        gold, weak = (np.array([int(row[name]) for row in rows], np.int64) for name in ("gold", "weak"))
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except InputError:
        raise
    except ValueError as error:  # no number
        raise InputError(f"{path}: a label is not a number: {error}.") from error
    names = read_class_names(path.with_name("label_names.txt"), gold)
    for column, labels, least in (("gold", gold, 0), ("weak", weak, -1)):
        if len(labels) and not least <= labels.min() <= labels.max() < len(names):
            raise InputError(
                f"{path}: labels in {column} must be {least} to {len(names) - 1}, "
                f"got {labels.min()} to {labels.max()}."
            )
    return LabelledTexts(
        path, np.array([row["split"] for row in rows]), [row["text"] for row in rows], gold, weak, names
    )


class Queries(NamedTuple):
    """CLINC150: queries, and which intents belong together.

    Attributes:
      split: names `[R]` of the parts that rows are of.
      texts: R texts.
      intent: int64 `[R]` in 0..C-1, or -1 out of scope.
      in_imbalanced: bool `[R]`, whether a row is of the authors' own imbalanced training set.
      domain: `[C]` names of the domains that intents are of.
    """

    split: np.ndarray
    texts: list[str]
    intent: np.ndarray
    in_imbalanced: np.ndarray
    domain: np.ndarray


def read_queries(folder: pathlib.Path) -> Queries:
    """Reads CLINC150 from its folder: `clinc150.csv.gz`, `label_names.txt` and `domain_names.txt`.

    Raises:
      InputError: if a file is missing or damaged, or an intent has no domain.
    """
    path = folder / "clinc150.csv.gz"
    columns = ("split", "text", "label", "in_imbalanced")
    try:
        rows = pd.read_csv(path, usecols=columns, keep_default_na=False, dtype=str)
        intent = rows["label"].to_numpy(str).astype(np.int64)
        imbalanced = rows["in_imbalanced"].to_numpy(str) == "1"
        pairs = (folder / "domain_names.txt").read_text(encoding="utf-8").splitlines()
        domain_of = dict(line.split("\t") for line in pairs if line)
        names = read_class_names(folder / "label_names.txt", intent)
        domain = np.array([domain_of[name] for name in names])
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise InputError(f"{folder} cannot be read as CLINC150: {error}.") from error
    return Queries(rows["split"].to_numpy(str), rows["text"].tolist(), intent, imbalanced, domain)


def read_class_names(path: pathlib.Path, labels: np.ndarray) -> tuple[str, ...]:
    """Names of the classes, one a line.

    Raises:
      InputError: if there is no such file, or fewer names than classes among the labels.
    """
    try:
        names = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}, the names of the classes, cannot be read: {error}.") from error
    if len(names) < 2 or (len(labels) and labels.max() >= len(names)):
        raise InputError(f"{path} has {len(names)} names, and there are more classes.")
    return names


def read_faces(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """All rows of the files `fer32_*.npz` of a folder, columns by name, and the names of the classes.

    Raises:
      InputError: if there is no such file, or one is damaged or lacks a column.
    """
    paths = sorted(folder.glob("fer32_*.npz"))
    if not paths:
        raise InputError(f"There is no file fer32_*.npz in {folder}.")
    parts = [_arrays(path, _FACES) for path in paths]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _FACES}
    if columns["image"].ndim != 3 or columns["image"].dtype != np.uint8:
        raise InputError(f"The images in {folder} must be uint8 [M, H, W].")
    return columns, read_class_names(folder / "label_names.txt", columns["gold"])


def read_webp_images(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[M, 32, 32, 3]` and labels int64 `[M]` of a file of WebP images.

    The file holds `webp`, lossless WebP files back to back, each a column of images 32 pixels wide;
    `offsets`, where each begins; `label`; and `pixels_sha256`, a digest of all pixels.

    Raises:
      InputError: if it is damaged or of another kind.
    """
    from PIL import Image

    arrays = _arrays(path, _WEBP)
    labels, offsets = arrays["label"].astype(np.int64), arrays["offsets"]
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    rows, row = images.reshape(-1, 32, 3), 0
    try:
        for begin, end in itertools.pairwise(offsets):
            column = Image.open(io.BytesIO(arrays["webp"][begin:end].tobytes())).convert("RGB")
            rows[row : row + column.height] = np.asarray(column)
            row += column.height
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.") from error
    if row != len(rows) or hashlib.sha256(images).hexdigest() != str(arrays["pixels_sha256"]):
        raise InputError(f"{path} is damaged: its images are not those that it has the digest of.")
    return images, labels


def check_rows(path: pathlib.Path, parts: Mapping[str, np.ndarray]) -> None:
    """Raises `InputError` for a part without rows that can be used."""
    for name, index in parts.items():
        if not len(index):
            raise InputError(f"{path} has no labelled rows of {name}.")


def _arrays(path, names):
    arrays = read_npz(path)
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{path} has no array {', '.join(missing)}.")
    return arrays
