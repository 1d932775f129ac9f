"""The out-of-core sort, in a process of its own: its end gives all memory back.

This module covers: one sort by DuckDB with spill, asked for on stdin as JSON.
This module does *not* cover: when to sort (order).

User names never reach SQL: columns are c0, c1, ... inside.

1. The engine's memory beyond its limit grows with the columns, so they are sorted some at a time
   (_sort_columns), each time by the keys and then by the rows' places: the same order every time.
2. The sorted columns are put side by side, row group by row group (_join).
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from streamfeat.errors import (
    MemoryExhaustionError,
    OutputError,
    StreamFeatError,
    UnsupportedSourceError,
)
from streamfeat.sources.arrays import from_integers
from streamfeat.sources.footers import first_line, open_file
from streamfeat.sources.opening import relation_reader
from streamfeat.sources.parquet import ParquetSource
from streamfeat.sources.spool import spool_writer, write_spool, writing

_OVERHEAD_BYTES = 250 << 20
"""Measured: what the process holds beyond DuckDB's own limit while it sorts with two threads."""
_LEAST_BYTES = 64 << 20
_MOST_COLUMNS = 16
"""Columns sorted at once: with these, ``_OVERHEAD_BYTES`` holds."""
_BATCH_ROWS = 16_384
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one request; an error is told as JSON on stdout."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        sort(json.load(sys.stdin))
    except StreamFeatError as error:
        told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.exit(1)


def sort(request: dict[str, Any]) -> None:
    """Write the sorted copy that ``request`` describes."""
    filesystem = pafs.LocalFileSystem()
    files = [open_file(filesystem, path, constants) for path, constants in request["files"]]
    source = ParquetSource(files, filesystem, request["name"])
    names, output = source.schema().names, Path(request["output"])
    if len(names) <= _MOST_COLUMNS:
        _sort_columns(source, names, request, output)
        return
    parts = []
    for k in range(0, len(names), _MOST_COLUMNS):
        parts.append(Path(request["temporary"]) / f"block-{k}.parquet")
        _sort_columns(source, names[k : k + _MOST_COLUMNS], request, parts[-1])
    _join(parts, source, output)


def _sort_columns(
    source: ParquetSource, names: list[str], request: dict[str, Any], path: Path
) -> None:
    """Write the columns ``names``, in order of the keys and of the rows as they lie."""
    import duckdb

    keys = [source.schema().names[k] for k in request["keys"]]
    wanted = list(dict.fromkeys((*names, *keys)))
    feed = _Feed(source, wanted)
    schema = pa.schema([source.schema().field(name) for name in names])
    order = [_key(wanted.index(key), feed.schema.field(wanted.index(key)).type) for key in keys]
    columns = ", ".join(f"c{k}" for k in range(len(names)))
    connection = duckdb.connect(config=_config(request))
    try:
        connection.register("unsorted", feed.reader())
        rows = connection.sql(f"SELECT {columns} FROM unsorted ORDER BY {', '.join(order)}, place")
        write_spool(
            path,
            schema,
            (_named(batch, schema) for batch in relation_reader(rows, _BATCH_ROWS)),
            nbytes_per_row=source.nbytes_per_row,
        )
    except StreamFeatError:
        raise
    except Exception as error:
        raise feed.error or _trouble(error) from error
    finally:
        connection.close()


def _join(parts: list[Path], source: ParquetSource, path: Path) -> None:
    """Write files of the same rows, which have the same row groups, side by side."""
    with ExitStack() as opened, writing(path), spool_writer(path, source.schema()) as writer:
        files = [
            opened.enter_context(
                pq.ParquetFile(part, pre_buffer=False, page_checksum_verification=True)
            )
            for part in parts
        ]
        for group in range(files[0].num_row_groups):
            tables = [file.read_row_group(group, use_threads=False) for file in files]
            columns = [column for table in tables for column in table.columns]
            writer.write_table(pa.table(columns, schema=source.schema()))


def _key(k: int, kind: pa.DataType) -> str:
    """One key of the order; NaN counts as null."""
    value = f"CASE WHEN isnan(c{k}) THEN NULL ELSE c{k} END"
    return f"{value if pa.types.is_floating(kind) else f'c{k}'} ASC NULLS LAST"


def _trouble(error: Exception) -> StreamFeatError:
    kind, message = type(error).__name__, first_line(error)
    if kind in ("NotImplementedException", "InvalidInputException", "ArrowNotImplementedError"):
        return UnsupportedSourceError(
            f"a column cannot be sorted out of core: {message}",
            hint="drop it or convert it, or sort the data yourself",
        )
    if kind == "IOException" or isinstance(error, OSError):
        return OutputError(
            f"sorting out of core failed: {message}",
            hint="free disk space, or pass `spill=` another directory",
        )
    return MemoryExhaustionError(
        f"sorting out of core failed: {message}",
        hint="give more `memory`, free disk space for `spill`, or sort the data yourself",
    )


class _Feed:
    """The rows as the engine takes them; keeps an error that the engine would make unreadable."""

    def __init__(self, source: ParquetSource, names: list[str]) -> None:
        self._source = source
        self._names = names
        kinds = [engine_type(source.schema().field(name).type) for name in names]
        fields = [pa.field(f"c{k}", kind) for k, kind in enumerate(kinds)]
        self.schema = pa.schema([*fields, pa.field("place", pa.int64())])
        self.error: StreamFeatError | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        row = 0
        try:
            for batch in self._source.read(0, self._source.n_rows, self._names):
                pairs = zip(batch.columns, self.schema.types, strict=False)
                columns = [to_engine(column, kind) for column, kind in pairs]
                columns.append(from_integers(np.arange(row, row + batch.num_rows)))
                row += batch.num_rows
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
        except StreamFeatError as error:
            self.error = error
            raise


def _config(request: dict[str, Any]) -> dict[str, Any]:
    limit = max(int(request["memory_bytes"]) - _OVERHEAD_BYTES, _LEAST_BYTES)
    return {
        "memory_limit": f"{limit // 1_000_000}MB",
        "threads": int(request["threads"]),
        "temp_directory": request["temporary"],
        "python_enable_replacements": False,
        "preserve_insertion_order": False,
    }


def engine_type(kind: pa.DataType) -> pa.DataType:
    """A type that passes the engine without loss and in the same order.

    Moments travel as whole numbers: the engine has no nanoseconds with a time zone.

    >>> engine_type(pa.timestamp("ns", tz="UTC"))
    DataType(int64)
    """
    types = pa.types
    if types.is_dictionary(kind):
        return engine_type(kind.value_type)
    if types.is_temporal(kind):
        return pa.int64() if kind.bit_width == 64 else pa.int32()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_decimal256(kind):
        return pa.string()
    return pa.bool_() if types.is_null(kind) else kind


def to_engine(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.view(kind) if pa.types.is_temporal(values.type) else _cast(values, kind)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)


def _named(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_back(c, f.type) for c, f in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _back(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_dictionary(kind):
        return _back(values, kind.value_type).dictionary_encode().cast(kind)
    return values.view(kind) if pa.types.is_temporal(kind) else _cast(values, kind)


if __name__ == "__main__":
    main()
