"""Parquet files as one source: streaming reads in bounded memory.

This module covers: reading spans of rows, whatever the row groups, and noticing changed files.
This module does *not* cover: footers (footers), finding the files (opening), sorting (order).

Reading
-------
pyarrow without pre-buffering, in batches of 16,384 rows with a small input buffer per column: the
only reader whose memory depends neither on the row group's size nor on the file's. Page checksums
are verified where the file has them.

An open column holds an input buffer, a page and a dictionary, about 2 MB where its row group is
large. ``column_blocks`` says how many may be open at once. Where that is not all, a stripe of rows
is read block by block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamfeat.errors import (
    CorruptSourceError,
    EmptySourceError,
    SourceChangedError,
)
from streamfeat.sources.footers import (
    File,
    column_infos,
    common_schema,
    constant_value,
    file_stamp,
    first_line,
    open_file,
)
from streamfeat.sources.source import (
    BASE_BATCH_ROWS,
    ColumnInfo,
    check_names,
    find_column,
    width_bytes,
)

__all__ = ["File", "ParquetSource", "open_file"]

_BUFFER_BYTES = 1 << 20
_NARROW_BUFFER_BYTES = 1 << 16
_COLUMN_BLOCK = 50
"""Columns open at once where row groups are large."""
_OPEN_BYTES = 100 << 20
"""What all open columns may hold: less than ``_COLUMN_BLOCK`` columns of large row groups."""
_STRIPE_BYTES = 32 << 20
_TEXT_BYTES = 32
_SAMPLE_ROWS = 1024


class ParquetSource:
    """Parquet files read as one table, in the order given.

    Raises
    ------
    SchemaDriftError
        If the files disagree about a column, naming both.
    EmptySourceError
        If there are no rows or no columns.
    """

    def __init__(self, files: Sequence[File], filesystem: pafs.FileSystem, name: str) -> None:
        self.files = tuple(files)
        self.filesystem = filesystem
        self.name = name
        self._schema = common_schema(self.files)
        check_names(self._schema.names, name)
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        if self.n_rows == 0:
            raise EmptySourceError(f"{name} has no rows")
        ends = np.cumsum([file.metadata.num_rows for file in self.files])
        self._starts = np.concatenate(([0], ends))
        self._group_starts: dict[str, NDArray[np.int64]] = {}

    def schema(self) -> pa.Schema:
        return self._schema

    @cached_property
    def columns(self) -> tuple[ColumnInfo, ...]:
        return column_infos(self.files, self._schema)

    @cached_property
    def nbytes_per_row(self) -> float:
        return width_bytes(self._schema) + self._long_text_bytes()

    def _long_text_bytes(self) -> float:
        """Bytes of a row's text beyond the usual, by the footers or the first rows."""
        names = [f.name for f in self._schema if not pa.types.is_primitive(f.type)]
        if not names:
            return 0.0
        first = next(self.read(0, min(self.n_rows, _SAMPLE_ROWS), names))
        told = {column.name: (column.nbytes or 0) / self.n_rows for column in self.columns}
        seen = (values.nbytes / first.num_rows for values in first.columns)
        pairs = zip(names, seen, strict=True)
        return sum(max(told[name], n_bytes, _TEXT_BYTES) - _TEXT_BYTES for name, n_bytes in pairs)

    def column(self, name: str) -> ColumnInfo:
        return find_column(self.columns, name, self.name)

    def column_blocks(self, columns: Sequence[str]) -> list[list[str]]:
        """``columns`` in blocks that may be open at once."""
        share = len(columns) / len(self._schema)
        if len(columns) <= _COLUMN_BLOCK or share * self._open_bytes <= _OPEN_BYTES:
            return [list(columns)]
        starts = range(0, len(columns), _COLUMN_BLOCK)
        return [list(columns[k : k + _COLUMN_BLOCK]) for k in starts]

    @cached_property
    def _open_bytes(self) -> float:
        """Bytes of the largest row group, twice: as stored, and as decoded."""
        most = 0
        width = width_bytes(self._schema)
        for file in self.files:
            for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
                most = max(most, group.total_byte_size, int(group.num_rows * width))
        return 2.0 * most

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path}:{file.stamp}:{file.footer}:{file.constants}".encode())
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        for file in self.files:
            try:
                now = file_stamp(self.filesystem, file.path)
            except FileNotFoundError:
                now = "gone"
            if now != file.stamp:
                raise SourceChangedError(
                    f"{file.path} was changed or removed while it was being read",
                    hint="run again when nothing writes to it",
                )

    def read(
        self, start_row: int, stop_row: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        first = int(np.searchsorted(self._starts, start_row, side="right")) - 1
        for number in range(first, len(self.files)):
            begin = int(self._starts[number])
            if begin >= stop_row:
                break
            file = self.files[number]
            start = max(start_row - begin, 0)
            stop = min(stop_row - begin, file.metadata.num_rows)
            if start < stop:
                yield from self._read_file(file, start, stop, columns)

    def _read_file(
        self, file: File, start: int, stop: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        constants = dict(file.constants)
        stored = [name for name in columns if name not in constants]
        target = pa.schema([self._schema.field(name) for name in columns])
        for parts, n_rows in self._stored(file, start, stop, stored):
            arrays = [
                _constant(constants[field.name], field.type, n_rows)
                if field.name in constants
                else _as(parts[field.name], field.type)
                for field in target
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=target)

    def _stored(
        self, file: File, start: int, stop: int, columns: list[str]
    ) -> Iterator[tuple[dict[str, pa.Array], int]]:
        """Columns of the file's rows, batch by batch, all at the same rows."""
        if not columns:
            for row in range(start, stop, BASE_BATCH_ROWS):
                yield {}, min(BASE_BATCH_ROWS, stop - row)
            return
        blocks = self.column_blocks(columns)
        if len(blocks) == 1:
            for batch in self._batches(file, start, stop, columns):
                yield dict(zip(columns, batch.columns, strict=True)), batch.num_rows
            return
        step = self._stripe_rows(columns)
        for row in range(start, stop, step):
            end = min(row + step, stop)
            stripe = [pa.Table.from_batches(self._batches(file, row, end, b)) for b in blocks]
            yield from _cut(stripe, end - row)

    def _stripe_rows(self, columns: Sequence[str]) -> int:
        """Rows of a stripe: every stripe is decoded from its row group's first row on."""
        width = width_bytes(pa.schema([self._schema.field(name) for name in columns]))
        return BASE_BATCH_ROWS * max(int(_STRIPE_BYTES / width) // BASE_BATCH_ROWS, 1)

    def _batches(
        self, file: File, start: int, stop: int, columns: list[str]
    ) -> Iterator[pa.RecordBatch]:
        """Batches of exactly the rows asked for, in the order of ``columns``."""
        groups, skip = self._row_groups(file, start, stop)
        wanted = stop - start
        try:
            with (
                self.filesystem.open_input_file(file.path) as handle,
                pq.ParquetFile(
                    handle,
                    metadata=file.metadata,
                    pre_buffer=False,
                    buffer_size=_BUFFER_BYTES if len(columns) <= 16 else _NARROW_BUFFER_BYTES,
                    page_checksum_verification=True,
                ) as parquet,
            ):
                for batch in parquet.iter_batches(
                    batch_size=BASE_BATCH_ROWS, row_groups=groups, columns=columns
                ):
                    if skip >= batch.num_rows:
                        skip -= batch.num_rows
                        continue
                    part = batch.slice(skip, wanted)
                    skip = 0
                    wanted -= part.num_rows
                    yield part.select(columns)
                    if wanted == 0:
                        return
        except (pa.ArrowInvalid, OSError) as error:
            self.check_unchanged()
            raise CorruptSourceError(
                f"{file.path} cannot be read between rows {start:,} and {stop:,} (row groups "
                f"{groups[0]} to {groups[-1]}): {first_line(error)}",
                hint="a page is corrupt; restore the file from where it came from",
            ) from error

    def _row_groups(self, file: File, start: int, stop: int) -> tuple[list[int], int]:
        """The row groups that hold rows ``start`` to ``stop``; rows to skip in the first."""
        starts = self._group_starts.get(file.path)
        if starts is None:
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            sizes = np.fromiter((group.num_rows for group in groups), np.int64)
            starts = self._group_starts[file.path] = np.concatenate(([0], np.cumsum(sizes)))
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        return list(range(first, last)), start - int(starts[first])


def _cut(stripe: Sequence[pa.Table], n_rows: int) -> Iterator[tuple[dict[str, pa.Array], int]]:
    """A stripe's blocks, side by side, in batches."""
    for row in range(0, n_rows, BASE_BATCH_ROWS):
        parts: dict[str, pa.Array] = {}
        for block in stripe:
            table = block.slice(row, BASE_BATCH_ROWS)
            for name in table.column_names:
                parts[name] = _one_array(table.column(name))
        yield parts, min(BASE_BATCH_ROWS, n_rows - row)


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def _constant(value: str | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(constant_value(value, kind), type=kind), n_rows)


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)
