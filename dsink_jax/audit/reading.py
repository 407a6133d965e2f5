"""Labelled data from the files that people have: arrays, a table, or a folder of images."""

import csv
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsink_jax.errors import InputError, nearest
from dsink_jax.estimator.inputs import check_indicators
from dsink_jax.extras import needs
from dsink_jax.paths import check_local_path

_INPUTS, _LABELS = ("features", "embeddings", "images", "x", "X"), ("labels", "y")
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_NOT_FINITE = "which is no number or too large for float32"
_MISSING = "Fill in missing values, or leave out the lines or columns that have them."
LABEL_COLUMN = "label"
ID_COLUMN = "id"


class Labelled(NamedTuple):
    """Data with labels, as read.

    Attributes:
      inputs: `[M, D]` or `[M, H, W, channels]`.
      labels: int64 `[M]` in 0..C-1; or 0 and 1 `[M, C]`, which of several labels each example has.
      class_names: C names.
      names: M names of the examples: file, id or number.
    """

    inputs: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]


def read(
    path: pathlib.Path,
    *,
    label_column: str = LABEL_COLUMN,
    id_column: str = ID_COLUMN,
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
    image_size: int = 32,
) -> Labelled:
    """Reads labelled data.

    Args:
      path: a `.npz` file with features or images and labels; a `.csv` file with a line of column names, a
        column of labels and numbers in the others; or a folder with a folder of images for each class.
      label_column: name of the column of labels in a table.
      id_column: name of the column, if there is one, that says which example a line is; else the first
        column without a name is that, which is how pandas writes its index.
      label_separator: what parts the labels of a line where it may have several, or none, in its column.
      label_columns: columns of 0 and 1 instead, one for each of several labels.
      image_size: side to which images of a folder are scaled.

    Raises:
      InputError: if there is no such file, or it is not as said.
    """
    check_local_path(path, "path=")
    several = label_separator is not None or len(label_columns) > 0
    if several and path.suffix.lower() != ".csv":
        raise InputError("label_separator= and label_columns= are for a .csv file.")
    if label_separator is not None and (label_columns or not label_separator):
        raise InputError("Give one of label_separator=, of one character at least, and label_columns=.")
    if several and len(set(label_columns)) < len(label_columns):
        raise InputError(f"label_columns= names a column twice: {', '.join(label_columns)}.")
    if len(label_columns) == 1:
        raise InputError("label_columns= are of several labels; of one, give label_column=.")
    if path.is_dir():
        return _read_folder(path, image_size)
    if not path.is_file():
        raise InputError(f"There is no file or folder {path}.")
    readers = {
        ".npz": lambda: _read_arrays(path),
        ".csv": lambda: _read_table(path, label_column, id_column, label_separator, tuple(label_columns)),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} must be a .npz or .csv file, or a folder with a folder for each class.")
    return readers[path.suffix.lower()]()


def _read_arrays(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            inputs = next((key for key in _INPUTS if key in keys), None)
            labels = next((key for key in _LABELS if key in keys), None)
            if inputs is None or labels is None:
                raise InputError(
                    f"{path} must hold the arrays 'features' [M, D] or 'images' [M, H, W, channels], and "
                    f"'labels' [M]; it holds: {', '.join(sorted(keys)) or 'nothing'}."
                )
            inputs, labels = archive[inputs], archive[labels]
            given = archive["class_names"] if "class_names" in keys else None
    except InputError:
        raise
    except TypeError:  # NumPy reads a .npy file of whatever name
        raise InputError(f"{path} cannot be read as .npz: it is a single array") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0]
        if "allow_pickle" in reason:  # NumPy's words for it would have people run what is in the file
            reason = "it is no .npz file, or holds Python objects. Save labels as integers or words"
        raise InputError(f"{path} cannot be read as .npz: {reason}") from None
    if labels.ndim not in (1, 2) or inputs.ndim == 0 or len(labels) != len(inputs):
        raise InputError(
            f"{path} must have one label for each example, got labels {list(labels.shape)} and inputs "
            f"{list(inputs.shape)}."
        )
    if inputs.ndim == 3:  # grey images
        inputs = inputs[..., None]
    names = tuple(map(str, range(len(labels))))
    if labels.ndim == 2:
        indicators, count = check_indicators(labels, len(inputs), None)
        of_labels = tuple(map(str, range(count) if given is None else np.atleast_1d(given)))
        if len(of_labels) != count:
            raise InputError(f"{path}: there are {len(of_labels)} class_names for {count} labels.")
        return Labelled(inputs, indicators.astype(np.int64), of_labels, names)
    if labels.dtype.kind in "iu" and given is not None:
        if given.ndim != 1:
            raise InputError(f"{path}: class_names must be [C], got {list(given.shape)}.")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(given):
            raise InputError(f"{path}: the labels must be in 0..{len(given) - 1}, as there are class_names.")
        return Labelled(inputs, labels.astype(np.int64), tuple(map(str, given)), names)
    if labels.dtype.kind not in "iuUSb":
        raise InputError(
            f"{path}: the labels must be integers or words, got {labels.dtype}. Save labels.astype(int)."
        )
    return Labelled(inputs, *_numbered(labels), names)


def _read_table(path, label_column, id_column, separator, label_columns):
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            lines = [(rows.line_num, row) for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    parameter = "label_columns" if label_columns else "label_column"
    for column in label_columns or (label_column,):
        if column not in header:
            raise InputError(f"{path} has no column {column!r}{_about(header, column, parameter)}")
    at_labels = [header.index(column) for column in label_columns or (label_column,)]
    if id_column != ID_COLUMN and id_column not in header:
        raise InputError(f"{path} has no column {id_column!r}{_about(header, id_column, 'id_column')}")
    # A column without a name is the index that pandas writes, under the name it gives when it reads it.
    unnamed = [i for i, name in enumerate(header) if re.fullmatch(r"(Unnamed: \d+)?", name)]
    at_id = header.index(id_column) if id_column in header else next(iter(unnamed), None)
    others = [i for i in range(len(header)) if i not in (*at_labels, at_id, *unnamed)]
    for number, row in lines:
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(row)} values for {len(header)} columns.")
        if separator is None and not all(row[i].strip() for i in at_labels):
            raise InputError(f"{path}, line {number}: there is no label. Leave out what is not labelled.")
    if not lines or not others:
        raise InputError(f"{path} must have numbers beside the labels, and at least one line of them.")
    inputs = np.empty((len(lines), len(others)), np.float64)
    for place, (number, row) in enumerate(lines):
        try:
            inputs[place] = [float(row[i]) for i in others]
        except ValueError:
            name, value = next((header[i], row[i]) for i in others if not _is_number(row[i]))
            if not value.strip():
                raise InputError(f"{path}, line {number}: column {name!r} is empty.\n{_MISSING}") from None
            raise InputError(
                f"{path}, line {number}: column {name!r} holds {value!r}, which is no number.\n"
                "All columns but the labels and id_column= must be features."
            ) from None
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(inputs.astype(np.float32)))
    if len(bad):
        place, column = bad[0]
        number, row = lines[place]
        name, value = header[others[column]], row[others[column]].strip()
        raise InputError(
            f"{path}, line {number}: column {name!r} holds {value!r}, {_NOT_FINITE}.\n{_MISSING}"
        )
    if counting := [header[i] for i, column in zip(others, inputs.T, strict=True) if _counts(column)]:
        raise InputError(
            f"{path}: column {counting[0]!r} numbers the lines, which is no feature.\n"
            "Leave it out, or name it with id_column=."
        )
    names = [str(place) if at_id is None else row[at_id] for place, (_, row) in enumerate(lines)]
    given = [[row[i].strip() for i in at_labels] for _, row in lines]
    if label_columns:
        indicators = _indicators(path, lines, given, label_columns)
        return Labelled(inputs, indicators, label_columns, tuple(names))
    if separator is not None:
        indicators, of_labels = _split(path, [one for (one,) in given], separator)
        return Labelled(inputs, indicators, of_labels, tuple(names))
    return Labelled(inputs, *_numbered(np.array([one for (one,) in given])), tuple(names))


def _indicators(path, lines, given, columns):
    """Columns of 0 and 1."""
    for (number, _), row in zip(lines, given, strict=True):
        for column, value in zip(columns, row, strict=True):
            if not _is_number(value) or float(value) not in (0, 1):
                raise InputError(f"{path}, line {number}: column {column!r} must be 0 or 1, got {value!r}.")
    return _checked_indicators(
        path, np.array([[int(float(value)) for value in row] for row in given]), columns
    )


def _split(path, given, separator):
    """Indicators of labels that are written into one column, and their names in order."""
    each = [[name.strip() for name in text.split(separator) if name.strip()] for text in given]
    present = [name for row in each for name in row]
    if not present:
        raise InputError(f"{path}: no line has a label.")
    numbers, names = _numbered(np.array(present))
    indicators = np.zeros((len(each), len(names)), np.int64)
    indicators[np.repeat(np.arange(len(each)), [len(row) for row in each]), numbers] = 1
    return _checked_indicators(path, indicators, names), names


def _checked_indicators(path, indicators, names):
    for number, what in ((0, "no line has"), (len(indicators), "every line has")):
        if len(same := np.flatnonzero(indicators.sum(0) == number)):
            raise InputError(
                f"{path}: {what} the label {names[same[0]]!r}, so that nothing can be learned of it."
            )
    return indicators.astype(np.int64)


def _about(header, column, parameter):
    """What there is instead of the column, and what to do."""
    if (near := nearest(column, header)) is not None:
        return f". Did you mean {near!r}? Give {parameter}={near!r}."
    if len(header) == 1 and (mark := next((mark for mark in (";", "\t", "|") if mark in header[0]), None)):
        return f": its columns are parted by {mark!r}.\nSave it with commas between them."
    shown = ", ".join(header[:5] + ["..."] * (len(header) > 10) + header[5:][-5:])
    return f"; its first line says: {shown or 'nothing'}.\nName the right one with {parameter}=."


def _counts(column):
    """Whether it is integers one after the other, of more lines than could be so by chance."""
    return (
        len(column) > 9 and column[0] % 1 == 0 and np.array_equal(column - column[0], np.arange(len(column)))
    )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_folder(path, image_size):
    with needs("audit", "Reading a folder of images"):
        from PIL import Image

    if not isinstance(image_size, int) or image_size < 1:
        raise InputError(f"The side of the images must be at least 1, got {image_size!r}.")
    files = [
        (file, folder.name)
        for folder in sorted(path.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _IMAGES
    ]
    if not files:
        raise InputError(f"{path} must hold a folder for each class, with images in it; none was found.")
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)
    for row, (file, _) in zip(images, files, strict=True):
        try:
            with Image.open(file) as image:
                row[:] = _as_bytes(image, image_size)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} cannot be read as an image: {error}") from None
    names = tuple(_text(file.relative_to(path)) for file, _ in files)
    classes = sorted({folder for _, folder in files})
    labels = np.array([classes.index(folder) for _, folder in files])
    return Labelled(images, labels, tuple(map(_text, classes)), names)


def _as_bytes(image, size):
    """Red, green and blue, upright, on white where it is transparent; more than 8 bits are scaled to 8."""
    with needs("audit", "Reading a folder of images"):
        from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        most = 65535.0 if image.mode != "F" else max(float(values.max()), 1e-12)
        image = Image.fromarray((values.clip(0, most) * (255 / most)).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB").resize((size, size)))


def _text(path):
    """A name that can be written as UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any kind as integers, and the names of the classes in order: 10 after 9, not after 1."""
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    classes, numbers = np.unique(labels, return_inverse=True)
    names = [str(name) for name in classes.tolist()]
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        order = np.array(sorted(range(len(names)), key=lambda k: (int(names[k]), names[k])))
        names, numbers = [names[k] for k in order], np.argsort(order)[numbers]
    return numbers.astype(np.int64), tuple(names)
