"""From whatever the user holds to a source.

This module covers: tables, frames, relations and streams; what can be read only once is written to
the spill directory first.
This module does *not* cover: finding files (paths), reading rows (parquet, frames).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamfeat.errors import (
    EmptySourceError,
    SourceError,
    StreamFeatError,
    UnsupportedSourceError,
)
from streamfeat.sources.footers import first_line, open_file
from streamfeat.sources.frames import TableSource
from streamfeat.sources.parquet import ParquetSource
from streamfeat.sources.paths import open_paths
from streamfeat.sources.source import Source, check_names, width_bytes
from streamfeat.sources.spool import (
    row_group_rows,
    spool_path,
    spooled,
    write_spool,
    writing,
)

_STREAM_ROWS = 65_536


def open_source(source: Any, *, spill: Path) -> Source:
    """A source for ``source``.

    Parameters
    ----------
    source
        A path, glob, list of paths, directory (hive or not), fsspec URL, pyarrow Dataset, Table,
        RecordBatch or RecordBatchReader, Polars LazyFrame or DataFrame, pandas DataFrame, DuckDB
        relation, 2-d NumPy array (columns x0, x1, ...), or anything with ``__arrow_c_stream__``.
    spill
        Where what can be read only once is kept.

    Raises
    ------
    UnsupportedSourceError
        If it is none of these.
    """
    if _is_path(source):
        return open_paths([os.fspath(source)])
    if isinstance(source, list | tuple) and all(_is_path(item) for item in source):
        return open_paths([os.fspath(item) for item in source])
    if isinstance(source, pa.Table):
        return TableSource(source, "<pyarrow.Table>")
    if isinstance(source, pa.RecordBatch):
        return TableSource(pa.Table.from_batches([source]), "<pyarrow.RecordBatch>")
    return _open_object(source, spill)


def _is_path(item: object) -> bool:
    return isinstance(item, str | os.PathLike)


def _open_object(source: Any, spill: Path) -> Source:
    module, kind = type(source).__module__.partition(".")[0], type(source).__name__
    name = f"<{module}.{kind}>"
    if module == "numpy" and getattr(source, "ndim", None) == 2:
        return TableSource(_numpy_table(source, name), name)
    if module == "polars" and kind == "LazyFrame":
        return _spool_lazy(source, name, spill)
    if module == "polars" and kind == "DataFrame":
        return TableSource(source.to_arrow(), name)
    if module == "pandas" and kind == "DataFrame":
        return TableSource(_pandas_table(source, name), name)
    if kind == "DuckDBPyRelation":
        return _spool(relation_reader(source, _STREAM_ROWS), name, spill)
    if hasattr(source, "scanner") and hasattr(source, "get_fragments"):
        return _open_dataset(source, name, spill)
    if hasattr(source, "__arrow_c_stream__"):
        return _spool(pa.RecordBatchReader.from_stream(source), name, spill)
    raise UnsupportedSourceError(
        f"a {module}.{kind} is no source",
        hint="pass a path to Parquet files, a DataFrame, or an object with __arrow_c_stream__",
    )


def relation_reader(relation: Any, n_rows: int) -> pa.RecordBatchReader:
    """A DuckDB relation as a stream; the method was renamed in DuckDB 1.5."""
    if hasattr(relation, "to_arrow_reader"):
        return relation.to_arrow_reader(n_rows)
    return relation.fetch_arrow_reader(n_rows)


def _numpy_table(array: Any, name: str) -> pa.Table:
    try:
        return pa.table({f"x{k}": array[:, k].copy() for k in range(array.shape[1])})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UnsupportedSourceError(
            f"{name} of {array.dtype} is no source: {first_line(error)}",
            hint="pass an array of numbers",
        ) from error


def _pandas_table(frame: Any, name: str) -> pa.Table:
    """Columns, and the index where it has a name: bars are often indexed by their date."""
    names = [str(column) for column in frame.columns]
    check_names(names, name)
    try:
        plain = frame.set_axis(names, axis=1)
        if all(isinstance(n, str) and n not in names for n in frame.index.names):
            plain = plain.reset_index()
        table = pa.Table.from_pandas(plain, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UnsupportedSourceError(
            f"{name}: {'; '.join(str(part) for part in error.args)}",
            hint="give each column values of one type",
        ) from error
    return table.replace_schema_metadata(None)


def _open_dataset(source: Any, name: str, spill: Path) -> Source:
    """A dataset's files where they are all there is to it; else what it scans to."""
    found = _dataset_files(source)
    if found is None:
        return _spool(source.scanner(batch_readahead=1).to_reader(), name, spill)
    if not found:
        raise EmptySourceError(f"{name} has no files")
    files = [open_file(source.filesystem, path, constants) for path, constants in found]
    opened = ParquetSource(files, source.filesystem, name)
    if opened.schema().equals(source.schema):
        return opened
    return _spool(source.scanner(batch_readahead=1).to_reader(), name, spill)


def _dataset_files(source: Any) -> list[tuple[str, list[tuple[str, str | None]]]] | None:
    """The dataset's Parquet files and partition keys; None if it is more, such as a filter."""
    import pyarrow.dataset as ds

    if getattr(getattr(source, "format", None), "default_extname", "") != "parquet":
        return None
    if getattr(source, "_scan_options", None):
        return None
    found = []
    for fragment in source.get_fragments():
        keys = ds.get_partition_keys(fragment.partition_expression)
        if len(fragment.row_groups) != fragment.metadata.num_row_groups:
            return None
        spelled = [(key, None if value is None else str(value)) for key, value in keys.items()]
        found.append((fragment.path, spelled))
    return found


def _spool_lazy(source: Any, name: str, spill: Path) -> Source:
    schema = source.collect_schema()
    check_names(schema.names(), name)
    path = spool_path(spill, "spool")
    with writing(path):
        source.sink_parquet(path, row_group_size=row_group_rows(8 * len(schema)))
    return spooled(path, name)


def _spool(reader: pa.RecordBatchReader, name: str, spill: Path) -> Source:
    """Write a stream that can be read only once to the spill directory."""
    check_names(reader.schema.names, name)
    path = spool_path(spill, "spool")
    width = width_bytes(reader.schema)
    write_spool(path, reader.schema, _told(reader, name), nbytes_per_row=width)
    return spooled(path, name)


def _told(reader: pa.RecordBatchReader, name: str) -> Iterator[pa.RecordBatch]:
    """The stream's batches; its trouble is told with its name."""
    try:
        yield from reader
    except StreamFeatError:
        raise
    except (pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise SourceError(
            f"{name} failed while it was read: {first_line(error)}",
            hint="the stream itself gave this error",
        ) from error
