"""Parquet files as one source: footers first, then streaming reads in bounded memory.

This module covers: checking all footers, statistics, and reading spans of rows.
This module does *not* cover: finding the files (opening), or sorting (order).

Reading
-------
pyarrow without pre-buffering, in batches of 16,384 rows with a small input buffer per column: the
only reader whose memory depends neither on the row group's size nor on the file's. Page checksums
are verified where the file has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from streamfeat.errors import (
    CorruptSourceError,
    EmptySourceError,
    SchemaDriftError,
    SourceChangedError,
    SourceNotFoundError,
)
from streamfeat.sources.source import (
    BASE_BATCH_ROWS,
    ColumnInfo,
    check_names,
    find_column,
    width_bytes,
)

_BUFFER_BYTES = 1 << 20
_NARROW_BUFFER_BYTES = 1 << 16
_COLUMN_BLOCK = 50
"""Columns open at once: each costs an input buffer, a page and a dictionary, about 2 MB."""


@dataclass(frozen=True)
class File:
    """One file: where it is, its footer, and constant columns from its directory names."""

    path: str
    metadata: pq.FileMetaData
    schema: pa.Schema
    stamp: str
    constants: tuple[tuple[str, Any], ...] = ()


def open_file(
    filesystem: pafs.FileSystem, path: str, constants: tuple[tuple[str, Any], ...] = ()
) -> File:
    """Read a footer.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    CorruptSourceError
        If it is no Parquet file, or truncated.
    """
    try:
        stamp = _stamp(filesystem, path)
        with filesystem.open_input_file(path) as handle:
            file = pq.ParquetFile(handle)
            return File(path, file.metadata, file.schema_arrow, stamp, constants)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path} does not exist", hint="check the path") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptSourceError(
            f"{path} is no complete Parquet file: {_first_line(error)}",
            hint="it may be truncated or still being written; write it again",
        ) from error


def _stamp(filesystem: pafs.FileSystem, path: str) -> str:
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError(path)
    return f"{info.size}:{info.mtime_ns}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


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
        self._schema = _common_schema(self.files)
        check_names(self._schema.names, name)
        self.n_rows = sum(file.metadata.num_rows for file in self.files)
        if self.n_rows == 0:
            raise EmptySourceError(f"{name} has no rows")
        ends = np.cumsum([file.metadata.num_rows for file in self.files])
        self._starts = np.concatenate(([0], ends))

    def schema(self) -> pa.Schema:
        return self._schema

    @cached_property
    def columns(self) -> tuple[ColumnInfo, ...]:
        return _column_infos(self.files, self._schema)

    @property
    def nbytes_per_row(self) -> float:
        return width_bytes(self._schema)

    def column(self, name: str) -> ColumnInfo:
        return find_column(self.columns, name, self.name)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path}:{file.stamp}:{file.metadata.num_rows}".encode())
            digest.update(str(file.schema).encode())
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        for file in self.files:
            try:
                now = _stamp(self.filesystem, file.path)
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
        blocks = [columns[k : k + _COLUMN_BLOCK] for k in range(0, len(columns), _COLUMN_BLOCK)]
        if len(blocks) == 1:
            for batch in self._batches(file, start, stop, columns):
                yield dict(zip(columns, batch.columns, strict=True)), batch.num_rows
            return
        for row in range(start, stop, BASE_BATCH_ROWS):
            end = min(row + BASE_BATCH_ROWS, stop)
            parts: dict[str, pa.Array] = {}
            for block in blocks:
                table = pa.Table.from_batches(self._batches(file, row, end, block))
                for name in block:
                    parts[name] = table.column(name).combine_chunks()
            yield parts, end - row

    def _batches(
        self, file: File, start: int, stop: int, columns: list[str]
    ) -> Iterator[pa.RecordBatch]:
        """Batches of exactly the rows asked for, in the order of ``columns``."""
        groups, skip = _row_groups(file.metadata, start, stop)
        wanted = stop - start
        buffer = _BUFFER_BYTES if len(columns) <= 16 else _NARROW_BUFFER_BYTES
        try:
            with (
                self.filesystem.open_input_file(file.path) as handle,
                pq.ParquetFile(
                    handle,
                    pre_buffer=False,
                    buffer_size=buffer,
                    page_checksum_verification=True,
                ) as parquet,
            ):
                batches = parquet.iter_batches(
                    batch_size=BASE_BATCH_ROWS, row_groups=groups, columns=columns
                )
                for batch in batches:
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
            if isinstance(error, CorruptSourceError):
                raise
            raise CorruptSourceError(
                f"{file.path} cannot be read between rows {start:,} and {stop:,}: "
                f"{_first_line(error)}",
                hint="a page is corrupt; restore the file from where it came from",
            ) from error


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows ``start`` to ``stop``, and rows to skip in the first."""
    groups: list[int] = []
    skip, row = 0, 0
    for number in range(metadata.num_row_groups):
        n_rows = metadata.row_group(number).num_rows
        if row < stop and row + n_rows > start:
            if not groups:
                skip = start - row
            groups.append(number)
        row += n_rows
        if row >= stop:
            break
    return groups, skip


def _constant(value: Any, kind: pa.DataType, n_rows: int) -> pa.Array:
    if value is not None and pa.types.is_string(kind):
        value = str(value)
    return pa.repeat(pa.scalar(value, type=kind), n_rows)


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)


def _common_schema(files: Sequence[File]) -> pa.Schema:
    """The schema of the first file, null-typed columns taking their type from a later one."""
    first = files[0]
    fields = {field.name: field for field in first.schema}
    for file in files[1:]:
        _check_drift(first, file, fields)
    for name, _ in first.constants:
        if name in fields:
            raise SchemaDriftError(
                f"{first.path}: column {name!r} is in the file and in its directory's name",
                hint="rename one of them",
            )
        fields[name] = pa.field(name, _constant_type(_values_of(files, name)))
    return pa.schema([pa.field(f.name, f.type, nullable=True) for f in fields.values()])


def _values_of(files: Sequence[File], name: str) -> list[Any]:
    return [value for file in files for key, value in file.constants if key == name]


def _constant_type(values: Sequence[Any]) -> pa.DataType:
    return pa.int64() if all(isinstance(value, int | None) for value in values) else pa.string()


def _check_drift(first: File, file: File, fields: dict[str, pa.Field]) -> None:
    names = set(file.schema.names)
    for name in fields:
        if name not in names:
            raise SchemaDriftError(
                f"{file.path} has no column {name!r}, which {first.path} has",
                hint="give files of one schema, or select one of them",
            )
    for field in file.schema:
        if field.name not in fields:
            raise SchemaDriftError(
                f"{file.path} has a column {field.name!r}, which {first.path} has not",
                hint="give files of one schema, or select one of them",
            )
        known = fields[field.name]
        if pa.types.is_null(known.type):
            fields[field.name] = field
        elif known.type != field.type and not pa.types.is_null(field.type):
            raise SchemaDriftError(
                f"{file.path}: column {field.name!r} is {field.type}, in {first.path} it is "
                f"{known.type}",
                hint="write the files with one type",
            )
    if {n for n, _ in first.constants} != {n for n, _ in file.constants}:
        raise SchemaDriftError(
            f"{file.path} lies under other partition keys than {first.path}",
            hint="give one hive layout",
        )


def _column_infos(files: Sequence[File], schema: pa.Schema) -> tuple[ColumnInfo, ...]:
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in schema.names}
    for file in files:
        for group in range(file.metadata.num_row_groups):
            row_group = file.metadata.row_group(group)
            for k in range(row_group.num_columns):
                chunk = row_group.column(k)
                name = chunk.path_in_schema
                if name in found:
                    found[name].append(_chunk_facts(chunk))
    return tuple(_info(field, found[field.name]) for field in schema)


def _chunk_facts(chunk: Any) -> tuple[Any, ...]:
    statistics = chunk.statistics
    size = chunk.total_uncompressed_size
    if statistics is None:
        return (None, None, None, size)
    nulls = statistics.null_count if statistics.has_null_count else None
    low, high = (statistics.min, statistics.max) if statistics.has_min_max else (None, None)
    return (nulls, low, high, size)


def _info(field: pa.Field, facts: list[tuple[Any, ...]]) -> ColumnInfo:
    if not facts:
        return ColumnInfo(field.name, field.type)
    nulls, lows, highs, sizes = zip(*facts, strict=True)
    return ColumnInfo(
        field.name,
        field.type,
        n_null=None if None in nulls else sum(nulls),
        minimum=None if any(v is None for v in lows) else min(lows),
        maximum=None if any(v is None for v in highs) else max(highs),
        nbytes=sum(sizes),
    )
