"""Tables in the formats of Apache Arrow: Parquet, and Arrow's own, of which Feather is one."""

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from dsink_jax.audit.table_rows import NUMBERS_AT_ONCE, as_objects, as_words, reading
from dsink_jax.errors import InputError
from dsink_jax.extras import needs

_MAGIC_OF_FEATHER_1 = b"FEA1"


class _OfArrow:
    """What Parquet and Arrow have in common: rows are called by their number, from 0."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.rows = 0
        with reading(path):
            schema = self._schema()
            self.names = [name.strip() for name in schema.names]
            about = schema.pandas_metadata or {}
            kept = about.get("index_columns", [])
            self.index: Collection[int] = [i for i, name in enumerate(schema.names) if name in kept]
            were = [one["name"] for one in about.get("columns", ()) if one["pandas_type"] == "categorical"]
            with needs("audit", "Reading a table"):
                import pyarrow as pa

            self.categorical: Collection[int] = [
                i
                for i, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True))
                if isinstance(kind, pa.DictionaryType) or name in were
            ]

    def batches(self, columns, *, text):
        batches = self._batches(max(NUMBERS_AT_ONCE // max(len(self.names), 1), 1))
        while True:
            with reading(self._path):
                if (batch := next(batches, None)) is None:
                    return
                batch.validate(full=True)  # a damaged file must not be looked into
                found = [
                    from_arrow(batch.column(i), f"{self._path}: column {self.names[i]!r}", text=text)
                    for i in columns
                ]
            if batch.num_rows:
                yield found

    def scan(self):
        with reading(self._path):
            self.rows = self._count()

    def _schema(self) -> Any:
        raise NotImplementedError

    def _count(self) -> int:
        raise NotImplementedError

    def _batches(self, size: int) -> Iterator[Any]:
        raise NotImplementedError

    def place(self, row):
        return f"example {row}"

    def written(self, row, column):
        start = 0
        for (values,) in self.batches([column], text=True):
            if row < start + len(values):
                return str(values[row - start])
            start += len(values)
        return ""


class Parquet(_OfArrow):
    """A Parquet file."""

    def _file(self):
        with needs("audit", "Reading a table"):
            from pyarrow import parquet

        return parquet.ParquetFile(self._path, page_checksum_verification=True)

    def _schema(self):
        with self._file() as file:
            return file.schema_arrow

    def _count(self):
        with self._file() as file:
            return file.metadata.num_rows

    def _batches(self, size):
        with self._file() as file:
            yield from file.iter_batches(batch_size=size, use_threads=False)


class ArrowFile(_OfArrow):
    """A file of Arrow's file format, which Feather is, or of its stream format."""

    @contextlib.contextmanager
    def _opened(self):
        with needs("audit", "Reading a table"):
            import pyarrow as pa

        with pa.memory_map(os.fspath(self._path)) as source:
            start = source.read(6)
            source.seek(0)
            if start[:4] == _MAGIC_OF_FEATHER_1:
                raise InputError(
                    f"{self._path} is of the first version of Feather: write it anew, by pyarrow or pandas."
                )
            if start == b"ARROW1":
                yield pa.ipc.open_file(source)
            else:
                yield pa.ipc.open_stream(source)

    def _schema(self):
        with self._opened() as reader:
            return reader.schema

    def _count(self):
        return sum(batch.num_rows for batch in self._whole())

    def _whole(self):
        with self._opened() as reader:
            if hasattr(reader, "get_batch"):
                yield from map(reader.get_batch, range(reader.num_record_batches))
            else:
                yield from reader

    def _batches(self, size):
        for batch in self._whole():
            batch.validate(full=True)
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)


def from_arrow(column: Any, what: str, *, text: bool) -> np.ndarray:
    """One column as `TableFile.batches` gives it."""
    with needs("audit", "Reading a table"):
        import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if text or isinstance(kind, pa.DictionaryType):
        return as_words(column.to_pylist())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return as_objects(column.to_pylist())
    if pa.types.is_string_view(kind):
        return as_objects(column.to_pylist())
    if pa.types.is_boolean(kind) or is_number:
        if column.null_count:
            return as_objects(column.to_pylist())
        if pa.types.is_boolean(kind):
            return np.array(column.to_pylist(), bool)
        return _numbers(column.cast(pa.float64()) if pa.types.is_decimal(kind) else column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if column.null_count:
            return as_objects(column.to_pylist())
        flat, lengths = column.flatten(), column.value_lengths().unique().to_pylist()
        numeric = pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)
        if numeric and not flat.null_count and len(lengths) == 1 and lengths[0]:
            return _numbers(flat).reshape(len(column), -1)
        raise InputError(f"{what} holds lists that are not all of as many numbers.")
    raise InputError(f"{what} is of {kind}, which is no number. Leave it out, or make numbers of it.")


def _numbers(column):
    """As NumPy has them; `to_numpy` would import pandas for that."""
    return np.from_dlpack(column) if len(column) else np.zeros(0)
