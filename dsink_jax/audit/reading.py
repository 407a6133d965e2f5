"""Labelled data from the files that people have: arrays, a table, or a folder of images."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from dsink_jax.audit.image_folders import read_folder
from dsink_jax.audit.labelled import Labelled, check_labels, numbered
from dsink_jax.audit.table_files import TABLE_ENDINGS, table_ending
from dsink_jax.audit.tables import ID_COLUMN, LABEL_COLUMN, read_table
from dsink_jax.errors import InputError
from dsink_jax.estimator.inputs import check_indicators
from dsink_jax.paths import check_local_path

_INPUTS, _LABELS = ("features", "embeddings", "images", "x", "X"), ("labels", "y")


def read(
    path: str | os.PathLike[str],
    *,
    label_column: str = LABEL_COLUMN,
    id_column: str = ID_COLUMN,
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
    image_size: int = 32,
) -> Labelled:
    """Reads labelled data.

    Args:
      path: a `.npz` file with features or images and labels; a table with a column of labels and features in
        the others; or a folder with a folder of images for each class. Tables are `.csv` or `.tsv` files with
        a line of column names, `.jsonl` (`.ndjson`) files with an object on every line, all of these with
        `.gz` after it too, and `.parquet`, `.arrow`, `.feather` and `.ipc` files. Features are numbers,
        lists of as many numbers on every line, true and false, or words, of which every one becomes a
        feature of 0 and 1 (`colour=red`), as `notes` tell.
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
    path = pathlib.Path(path)
    several = label_separator is not None or len(label_columns) > 0
    if several and table_ending(path) is None:
        raise InputError("label_separator= and label_columns= are for a table, such as a .csv file.")
    if label_separator is not None and (label_columns or not label_separator):
        raise InputError("Give one of label_separator=, of one character at least, and label_columns=.")
    if several and len(set(label_columns)) < len(label_columns):
        raise InputError(f"label_columns= names a column twice: {', '.join(label_columns)}.")
    if len(label_columns) == 1:
        raise InputError("label_columns= are of several labels; of one, give label_column=.")
    if path.is_dir():
        return read_folder(path, image_size)
    if not path.is_file():
        raise InputError(f"There is no file or folder {path}.")
    if path.suffix.lower() == ".npz":
        return _read_arrays(path)
    if table_ending(path) is None:
        raise InputError(
            f"{path} must be a .npz or .csv file, or a folder with a folder for each class.\n"
            f"Tables may also be {', '.join(TABLE_ENDINGS[1:])}, and .gz after those of text."
        )
    return read_table(path, label_column, id_column, label_separator, tuple(label_columns))


def _words(array):
    """Bytes as the words that they are of."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


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
            given = _words(archive["class_names"]) if "class_names" in keys else None
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
        try:
            indicators, count = check_indicators(labels, len(inputs), None)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
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
    given = _words(labels)
    check_labels([str(label) for label in given.tolist()], lambda i: f"{path}, example {i}")
    return Labelled(inputs, *numbered(given), names)
