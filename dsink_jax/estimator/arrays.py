"""Arrays of what people hold: arrays, tensors, frames, columns of other libraries, none of which is needed.

They are known by what they offer: `__array__`, DLPack, or columns with names.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError

# How the types of columns of categories begin: of pandas, Polars and Arrow.
_OF_CATEGORIES = ("category", "Categorical", "Enum", "dictionary")


def as_array(values: Any, what: str = "inputs") -> np.ndarray:
    """An array of arrays, tensors, frames, series, columns or lists; one that is memory-mapped stays so.

    Args:
      values: anything.
      what: what it is, for messages.

    Raises:
      InputError: if no array can be made of it, or values are missing in it.
    """
    return as_columns(values, what)[0]


def as_columns(values: Any, what: str = "inputs") -> tuple[np.ndarray, tuple[str, ...]]:
    """As `as_array`, and the names of the columns of a frame, after its categories have become columns.

    Of a frame numbers, flags, categories (by its type; a column of 0 and 1 for each) and vectors are taken.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        first = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise InputError(
            f"The {what} are masked in places, first in example {first}: fill them, or leave these out."
        )
    if isinstance(values, np.memmap):
        return values, ()
    if isinstance(values, np.ndarray):
        return np.asarray(values), ()
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise InputError(f"The {what} are a sparse matrix: give {what}.toarray(), if that fits into memory.")
    if hasattr(values, "column_names") and hasattr(values, "features"):
        raise InputError(
            f"The {what} are a whole data set: give a column of it, {', '.join(values.column_names[:10])}."
        )
    if isinstance(values, dict | str | bytes):
        raise InputError(f"The {what} must be an array, got {type(values).__name__}.")
    if hasattr(values, "collect") and hasattr(values, "collect_schema"):
        raise InputError(f"The {what} are a frame that is not computed yet: give {what}.collect().")
    if _is_frame(values):
        return _of_frame(values, what)
    if getattr(values, "requires_grad", False) is True:
        raise InputError(f"The {what} are a tensor that requires grad: give {what}.detach().")
    return _of_one(values, what), ()


def has_categories(values: Any) -> bool:
    """Whether it is a frame of which a column is of categories."""
    if not _is_frame(values):
        return False
    names = getattr(values, "column_names", None) or values.columns
    columns = (_column(values, number, name) for number, name in enumerate(names))
    return any(
        _type_of(column).startswith(("category", "Categorical", "Enum", "dictionary")) for column in columns
    )


def _type_of(column):
    return str(column.dtype if hasattr(column, "dtype") else getattr(column, "type", ""))


def as_labels(labels: Any) -> np.ndarray:
    """Labels as an array; Python integers are integers, and what is missing is named.

    Raises:
      InputError: for labels that are missing, or no array.
    """
    array = as_array(labels, "labels")
    if _is_frame(labels) and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object:
        missing = [i for i, label in enumerate(array.ravel().tolist()) if _is_missing(label)]
        if missing:
            raise _without_label(missing[0] // max(array.size // max(len(array), 1), 1))
        if all(isinstance(label, int | np.integer) for label in array.ravel().tolist()):
            return array.astype(np.int64)
    if array.dtype.kind == "f" and array.ndim == 1 and np.isnan(array).any():
        raise _without_label(int(np.isnan(array).argmax()))
    return array


def _without_label(position):
    return InputError(f"Example {position} has no label: leave out what is not labelled.")


def _of_one(values, what):
    """An array of anything but a frame."""
    is_own = hasattr(values, "__array__") or hasattr(values, "__dlpack__") or isinstance(values, list | tuple)
    if not is_own and hasattr(values, "__getitem__") and hasattr(values, "__len__"):
        values = list(values)  # a column that is read as it is asked for
    try:
        array = np.asarray(values)
    except (TypeError, RuntimeError, BufferError) as error:
        if not hasattr(values, "__dlpack__") or isinstance(values, jax.Array):
            raise _unreadable(what, error) from error
        try:
            array = np.asarray(jnp.from_dlpack(values))  # of a type that NumPy has not
        except Exception:
            raise _unreadable(what, error) from error
    except ValueError as error:  # rows of different lengths
        raise InputError(f"The {what} are not one array: {error}") from None
    if array.dtype == object and array.ndim == 1 and len(array):
        rows = array.tolist()
        if (
            all(isinstance(row, np.ndarray | list) for row in rows)
            and len({np.shape(row) for row in rows}) == 1
        ):
            return np.array(rows)
    return array


def _unreadable(what, error):
    return InputError(f"The {what} are no array that can be read: {first_line(error)}.")


def _is_frame(values):
    """Columns with names, of which each can be had."""
    return hasattr(values, "columns") and (hasattr(values, "__dataframe__") or hasattr(values, "dtypes"))


def _of_frame(frame, what):
    names = [str(name) for name in getattr(frame, "column_names", None) or frame.columns]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"The {what} have the column {twice[0]!r} twice: leave one out.")
    if not names:
        raise InputError(f"The {what} have no columns.")
    parts, of_parts = [], []
    for number, name in enumerate(names):
        part, expanded = _of_column(_column(frame, number, name), name, what)
        parts.append(part.reshape(len(part), -1))
        of_parts += expanded
    dtype = np.result_type(*(part.dtype for part in parts))
    return np.concatenate(parts, axis=1, dtype=dtype), tuple(of_parts)


def _column(frame, number, name):
    if hasattr(frame, "iloc"):
        return frame.iloc[:, number]
    if hasattr(frame, "column_names"):
        return frame.column(number)
    return frame[name]


def _of_column(column, name, what):
    """Numbers `[M]` or `[M, width]` of a column of a frame, and names for them."""
    if (found := _categories(column)) is not None:
        categories, codes = found
        if (codes < 0).any():
            raise _missing_in(name, int((codes < 0).argmax()), what)
        return (codes[:, None] == np.arange(len(categories))).astype(np.float32), [
            f"{name}={category}" for category in categories
        ]
    array = _of_one(column, what)
    if array.dtype == object or array.dtype.kind in "US" or "StringDType" in type(array.dtype).__name__:
        array = _of_objects(array, name, what)
    if not (array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise InputError(f"The {what} have {array.dtype} in column {name!r}, which are no numbers.")
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        raise _missing_in(name, int(np.argwhere(~finite)[0][0]), what)
    if array.ndim == 1:
        return array, [name]
    return array, [f"{name}[{i}]" for i in range(int(np.prod(array.shape[1:])))]


def _of_objects(array, name, what):
    values = array.tolist()
    for position, value in enumerate(values):
        if _is_missing(value):
            raise _missing_in(name, position, what)
        if isinstance(value, str | bytes):
            raise InputError(
                f"The {what} hold {str(value)[:60]!r} in column {name!r}, which is no number.\n"
                "Make the column categorical, if its words are categories, or leave it out."
            )
    try:
        return np.array([np.asarray(value, np.float64) for value in values])
    except (TypeError, ValueError):
        raise InputError(
            f"The {what} hold {type(values[0]).__name__} in column {name!r}, which are no numbers, or not as "
            "many in every example."
        ) from None


def _categories(column):
    """Names of the categories of a column, and which each example is of, -1 for none; None for others."""
    kind: Any = column.dtype if hasattr(column, "dtype") else getattr(column, "type", None)
    if kind is not None and hasattr(kind, "categories") and hasattr(column.cat, "codes"):  # pandas
        return [str(category) for category in kind.categories], np.asarray(column.cat.codes)
    if str(kind).startswith(("Categorical", "Enum")):  # Polars, whose Categorical does not list them
        values = column.to_list()
        is_enum = str(kind).startswith("Enum")
        categories = list(kind.categories) if is_enum else sorted({*values} - {None})
    elif str(kind).startswith("dictionary"):  # Arrow
        column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        column = column.chunk(0) if hasattr(column, "chunk") else column
        categories, values = column.dictionary.to_pylist(), column.to_pylist()
    else:
        return None
    at = {category: code for code, category in enumerate(categories)}
    codes = [-1 if value is None else at[value] for value in values]
    return [str(category) for category in categories], np.array(codes, np.int64)


def _is_missing(value):
    """None, NaN, and what pandas has for nothing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and value != value


def _missing_in(name, position, what):
    return InputError(
        f"The {what} hold nothing, NaN or infinity in column {name!r}, first in example {position}.\n"
        "Fill in missing values, or leave out the examples or columns that have them."
    )
