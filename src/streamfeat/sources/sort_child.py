"""The out-of-core sort, in a process of its own: its end gives all memory back.

This module covers: one sort by DuckDB with spill, asked for on stdin as JSON.
This module does *not* cover: when to sort (order).

User names never reach SQL: columns are c0, c1, ... inside.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from streamfeat.errors import MemoryExhaustionError, StreamFeatError
from streamfeat.sources.order import row_group_rows, sorted_writer
from streamfeat.sources.parquet import ParquetSource, open_file

_OVERHEAD_BYTES = 250 << 20
"""Measured: what the process holds beyond DuckDB's own limit while it sorts with two threads."""
_LEAST_BYTES = 64 << 20
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
    import duckdb

    filesystem = pafs.LocalFileSystem()
    files = [
        open_file(filesystem, path, tuple((key, value) for key, value in constants))
        for path, constants in request["files"]
    ]
    source = ParquetSource(files, filesystem, request["name"])
    schema = source.schema()
    inside = pa.schema([pa.field(f"c{k}", plain_type(f.type)) for k, f in enumerate(schema)])
    feed = _Feed(source, inside)
    connection = duckdb.connect(config=_config(request))
    try:
        connection.register("unsorted", pa.RecordBatchReader.from_batches(inside, feed.batches()))
        order = ", ".join(f"c{k} ASC NULLS LAST" for k in request["keys"])
        rows = connection.sql(f"SELECT * FROM unsorted ORDER BY {order}")
        _write(rows.to_arrow_reader(_BATCH_ROWS), schema, source, Path(request["output"]))
    except Exception as error:
        raise feed.error or _trouble(error) from error
    finally:
        connection.close()


def _trouble(error: Exception) -> StreamFeatError:
    return MemoryExhaustionError(
        f"sorting out of core failed: {str(error).strip().splitlines()[0]}",
        hint="give more `memory`, free disk space for `spill`, or sort the data yourself",
    )


class _Feed:
    """The rows as the engine takes them; keeps an error that the engine would make unreadable."""

    def __init__(self, source: ParquetSource, inside: pa.Schema) -> None:
        self._source = source
        self._inside = inside
        self.error: StreamFeatError | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        names = self._source.schema().names
        try:
            for batch in self._source.read(0, self._source.n_rows, names):
                pairs = zip(batch.columns, self._inside, strict=True)
                columns = [_cast(c, f.type) for c, f in pairs]
                yield pa.RecordBatch.from_arrays(columns, schema=self._inside)
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


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type as the engine takes it."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)


def _write(
    reader: pa.RecordBatchReader, schema: pa.Schema, source: ParquetSource, path: Path
) -> None:
    step, held, n_held = row_group_rows(source.nbytes_per_row), [], 0
    with sorted_writer(path, schema) as writer:
        for batch in reader:
            held.append(_named(batch, schema))
            n_held += batch.num_rows
            if n_held >= step:
                writer.write_table(pa.Table.from_batches(held), row_group_size=step)
                held, n_held = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=step)


def _named(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_back(c, f.type) for c, f in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _back(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return _cast(values, kind.value_type).dictionary_encode().cast(kind)
    return _cast(values, kind)


if __name__ == "__main__":
    main()
