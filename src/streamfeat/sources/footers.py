"""Parquet footers: opened once, agreed on one schema, read for statistics.

This module covers: one file's footer and stamp, the schema of several files, column statistics.
This module does *not* cover: rows (parquet), finding the files (opening).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from streamfeat.errors import (
    CorruptSourceError,
    SchemaDriftError,
    SourceError,
    SourceNotFoundError,
)
from streamfeat.sources.source import ColumnInfo, check_names

_MOST_CHUNKS = 300_000
"""Column chunks whose statistics are read; of more, telling them would take longer than rows."""
_TAIL_BYTES = 8
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class File:
    """One file: where it is, its footer, and constant columns from its directory names.

    ``stamp`` changes when the file does; ``footer`` is a hash of the footer's bytes. A constant's
    value is its spelling, None where the directory stands for null.
    """

    path: str
    metadata: pq.FileMetaData
    schema: pa.Schema
    stamp: str
    footer: str
    constants: tuple[tuple[str, str | None], ...] = ()


def open_file(
    filesystem: pafs.FileSystem, path: str, constants: Sequence[tuple[str, str | None]] = ()
) -> File:
    """Read a footer.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    CorruptSourceError
        If it is no Parquet file, or truncated.
    EmptySourceError
        If it has no columns, or two of one name.
    """
    try:
        stamp = file_stamp(filesystem, path)
        with filesystem.open_input_file(path) as handle:
            footer = _footer_hash(handle)
            file = pq.ParquetFile(handle)
            opened = File(
                path,
                file.metadata,
                file.schema_arrow,
                stamp,
                footer,
                tuple((key, value) for key, value in constants),
            )
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path} does not exist", hint="check the path") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read", hint="check its permissions") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptSourceError(
            f"{path} is no complete Parquet file: {first_line(error)}",
            hint="it may be truncated or still being written; write it again",
        ) from error
    check_names(opened.schema.names, path)
    return opened


def file_stamp(filesystem: pafs.FileSystem, path: str) -> str:
    """Size and time of change; where no time is known, the footer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError(path)
    if info.mtime_ns is not None:
        return f"{info.size}:{info.mtime_ns}"
    with filesystem.open_input_file(path) as handle:
        return f"{info.size}:{_footer_hash(handle)}"


def _footer_hash(handle: Any) -> str:
    size = handle.size()
    if size < _TAIL_BYTES:
        return ""
    tail = handle.read_at(_TAIL_BYTES, size - _TAIL_BYTES)
    n_bytes = min(int.from_bytes(tail[:4], "little") + _TAIL_BYTES, size)
    return hashlib.sha256(handle.read_at(n_bytes, size - n_bytes)).hexdigest()


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def common_schema(files: Sequence[File]) -> pa.Schema:
    """The schema of the first file, null-typed columns taking their type from a later one.

    Raises
    ------
    SchemaDriftError
        If a file lacks a column, has one more, or has one of another type.
    """
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
        values = [value for file in files for key, value in file.constants if key == name]
        fields[name] = pa.field(name, _constant_type(values))
    return pa.schema([pa.field(f.name, without_views(f.type)) for f in fields.values()])


def without_views(kind: pa.DataType) -> pa.DataType:
    """Text and bytes held as views become plain: Arrow cannot sort or compare views."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind) and without_views(kind.value_type) != kind.value_type:
        return pa.dictionary(kind.index_type, without_views(kind.value_type), ordered=kind.ordered)
    return kind


def constant_value(value: str | None, kind: pa.DataType) -> int | str | None:
    """A constant's value from its spelling.

    >>> constant_value("07", pa.int64()), constant_value("07", pa.string())
    (7, '07')
    """
    return int(value) if value is not None and pa.types.is_integer(kind) else value


def _constant_type(values: Sequence[str | None]) -> pa.DataType:
    known = [value for value in values if value is not None]
    whole = bool(known) and all(_WHOLE_NUMBER.fullmatch(value) for value in known)
    return pa.int64() if whole else pa.string()


def _check_drift(first: File, file: File, fields: dict[str, pa.Field]) -> None:
    hint = "give files of one schema, or select one of them"
    names = set(file.schema.names)
    for name in fields:
        if name not in names:
            like = [other for other in names if other.casefold() == name.casefold()]
            instead = f", but {like[0]!r}" if like else ""
            raise SchemaDriftError(
                f"{file.path} has no column {name!r}{instead}, which {first.path} has", hint=hint
            )
    for field in file.schema:
        if field.name not in fields:
            raise SchemaDriftError(
                f"{file.path} has a column {field.name!r}, which {first.path} has not", hint=hint
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


def column_infos(files: Sequence[File], schema: pa.Schema) -> tuple[ColumnInfo, ...]:
    """The columns with their statistics, summed up over all files."""
    n_chunks = sum(file.metadata.num_row_groups * file.metadata.num_columns for file in files)
    if n_chunks > _MOST_CHUNKS:
        return tuple(ColumnInfo(field.name, field.type) for field in schema)
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in schema.names}
    for file in files:
        places = _flat_columns(file)
        for group in range(file.metadata.num_row_groups):
            row_group = file.metadata.row_group(group)
            for name, k in places.items():
                found[name].append(_chunk_facts(row_group.column(k)))
    return tuple(_info(field, found[field.name]) for field in schema)


def _flat_columns(file: File) -> dict[str, int]:
    """Where each column that is not nested stands among the file's leaves.

    A nested column may hold a leaf whose path is another column's name, so paths are no guide.
    """
    leaves = [file.metadata.schema.column(k) for k in range(file.metadata.num_columns)]
    return {
        leaf.path: k
        for k, leaf in enumerate(leaves)
        if leaf.name == leaf.path and leaf.max_repetition_level == 0
    }


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
