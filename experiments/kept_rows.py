"""Rows of results in a CSV file that grows as they come."""

import pathlib
from collections.abc import Callable, Sequence

import pandas as pd

from dsink_jax.atomic import replacing
from dsink_jax.errors import InputError
from experiments.environments import COLUMN


def read_rows(file: pathlib.Path, fields: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows, what is empty as NaN; none if there is no file.

    Args:
      file: which.
      fields: those that it must have, in order; any if left out.

    Raises:
      InputError: if it cannot be read, or has other fields.
    """
    try:
        # A name of eight hexadecimal digits may look like a number; no word stands for NaN.
        rows = pd.read_csv(file, dtype={COLUMN: str}, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        return pd.DataFrame(columns=fields)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}. Give another --output.") from error
    if fields is not None and list(rows) != list(fields):
        raise InputError(f"{file} is not of this command: its first line is another. Give another --output.")
    return rows


def read_measured(file: pathlib.Path, fields: Sequence[str]) -> pd.DataFrame:
    """The rows, which there must be: for a command that draws what it has measured before.

    Raises:
      InputError: if there are none, or they cannot be read, or have other fields.
    """
    rows = read_rows(file, fields)
    if rows.empty:
        raise InputError(f"There is no {file.name} in {file.parent}: leave --steps out to measure.")
    return rows


def merged(rows: pd.DataFrame, new: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """The rows with new ones in the places of those that are equal in all of `key`, and the others behind."""
    both = pd.concat([rows, new], ignore_index=True).infer_objects()
    place = both.groupby(list(key), sort=False).ngroup()
    return both.loc[place.drop_duplicates(keep="last").sort_values().index]


def write_rows(
    file: pathlib.Path, rows: pd.DataFrame, float_format: str | Callable[[float], str] | None = None
) -> None:
    """Writes the rows, all digits if no format is given; what was there stays whole until they are.

    Raises:
      OSError: if they cannot be written.
    """
    with replacing(file) as handle:
        rows.to_csv(handle, index=False, lineterminator="\n", float_format=float_format)
