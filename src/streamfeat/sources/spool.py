"""Parquet files of our own in the spill directory.

This module covers: their row groups, their encoding, and leaving none behind that is not whole.
This module does *not* cover: what is spooled (opening), what is sorted (order).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from streamfeat.errors import OutputError, StreamFeatError, UnsupportedSourceError
from streamfeat.sources.footers import first_line, open_file
from streamfeat.sources.parquet import ParquetSource

_ROW_GROUP_BYTES = 32 << 20
_MOST_ROWS = 65_536
_LEAST_ROWS = 1024


def spool_path(spill: Path, purpose: str) -> Path:
    """A new name in ``spill``."""
    return spill / f"{purpose}-{uuid.uuid4().hex}.parquet"


def spooled(path: Path, name: str) -> ParquetSource:
    """The file at ``path`` as a source called ``name``; removed if it is no source."""
    filesystem = pafs.LocalFileSystem()
    with writing(path):
        return ParquetSource([open_file(filesystem, str(path))], filesystem, name)


def row_group_rows(nbytes_per_row: float) -> int:
    """65,536 rows, fewer where they are wide.

    >>> row_group_rows(80), row_group_rows(8000)
    (65536, 4194)
    """
    return max(_LEAST_ROWS, min(_MOST_ROWS, int(_ROW_GROUP_BYTES / max(nbytes_per_row, 1))))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Remove the file at ``path`` if the block raises; tell what the disk says.

    Raises
    ------
    OutputError
        If the disk is full or cannot be written.
    """
    try:
        yield
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StreamFeatError):
            raise OutputError(
                f"{path.parent} cannot be written: {first_line(error)}",
                hint="free disk space, or pass `spill=` another directory",
            ) from error
        raise


def spool_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with checksums, cheap compression, and dictionaries for text only.

    Raises
    ------
    UnsupportedSourceError
        If Parquet has no type for a column.
    """
    text = [f.name for f in schema if not pa.types.is_primitive(f.type)]
    try:
        return pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=text if text else False,
            write_page_checksum=True,
        )
    except pa.ArrowNotImplementedError as error:
        raise UnsupportedSourceError(
            f"a column is of a type that Parquet has not: {first_line(error)}",
            hint="drop it or convert it",
        ) from error


def write_spool(
    path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch], *, nbytes_per_row: float
) -> None:
    """Write ``batches`` in row groups of ``row_group_rows``, however they are cut.

    Raises
    ------
    OutputError
        If the disk is full or cannot be written; nothing is left at ``path``.
    """
    step = row_group_rows(nbytes_per_row)
    held: list[pa.RecordBatch] = []
    n_held = 0
    with writing(path), spool_writer(path, schema) as writer:
        for batch in batches:
            held.append(batch)
            n_held += batch.num_rows
            if n_held >= step:
                table, whole = pa.Table.from_batches(held), n_held // step * step
                writer.write_table(table.slice(0, whole), row_group_size=step)
                held, n_held = table.slice(whole).to_batches(), n_held - whole
        if n_held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=step)
