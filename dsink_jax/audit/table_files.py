"""Which kind of table a file holds, by the ending of its name."""

import pathlib

from dsink_jax.audit.arrow_tables import ArrowFile, Parquet
from dsink_jax.audit.table_rows import TableFile
from dsink_jax.audit.text_tables import Delimited, JsonLines
from dsink_jax.extras import needs

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather", ".ipc")


def open_table(path: pathlib.Path) -> TableFile:
    """Opens a table by the ending of its name, which may have `.gz` after it if it is of text.

    Raises:
      InputError: if it cannot be read, or has another ending.
    """
    with needs("audit", "Reading a table"):
        import pyarrow  # noqa: F401

    kind = table_ending(path)
    if kind in (".csv", ".tsv"):
        return Delimited(path, "\t" if kind == ".tsv" else ",")
    if kind in (".jsonl", ".ndjson"):
        return JsonLines(path)
    if kind in (".parquet", ".pq"):
        return Parquet(path)
    return ArrowFile(path)


def table_ending(path: pathlib.Path) -> str | None:
    """The ending that says which kind of table a file is, without `.gz`; None if it is none."""
    ending = path.suffix.lower()
    if ending == ".gz" and (inner := pathlib.Path(path.stem).suffix.lower()) in TABLE_ENDINGS[:4]:
        return inner
    return ending if ending in TABLE_ENDINGS else None
