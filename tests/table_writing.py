"""One table in every kind of file that is read."""

import gzip
import json

import pyarrow as pa
from pyarrow import feather, parquet

TEXT = (".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz")
OF_ARROW = (".parquet", ".arrow", ".feather", ".stream.arrow")
ALL = (*TEXT, *OF_ARROW)


def write_table(folder, ending, names, columns):
    """Writes columns, which may be of one name, and gives the path.

    In files of values with delimiters None is an empty value.
    """
    path = folder / f"t{ending}"
    if ending in TEXT:
        rows = list(zip(*columns, strict=True))
        if "json" in ending:
            lines = ["{" + ", ".join(map(_pair, names, row)) + "}" for row in rows]
        else:
            mark = "\t" if ending == ".tsv" else ","
            lines = [mark.join(names), *(mark.join(map(_cell, row)) for row in rows)]
        content = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
        return path
    table = pa.Table.from_arrays([pa.array(column) for column in columns], names=list(names))
    if ending == ".parquet":
        parquet.write_table(table, path, row_group_size=3)
    elif ending == ".feather":
        feather.write_feather(table, path)
    else:
        new = pa.ipc.new_stream if "stream" in ending else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def _cell(value):
    return "" if value is None else str(value)


def _pair(name, value):
    return f"{json.dumps(name)}: {json.dumps(value)}"
