"""From whatever the user holds to a source.

This module covers: paths, globs, directories, URLs, tables, frames, relations and streams; what can
be read only once is written to the spill directory first.
This module does *not* cover: reading rows (parquet, frames).
"""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from streamfeat.errors import EmptySourceError, SourceNotFoundError, UnsupportedSourceError
from streamfeat.sources.frames import TableSource
from streamfeat.sources.parquet import ParquetSource, open_file
from streamfeat.sources.source import Source

_SUFFIXES = (".parquet", ".pq")
_SPOOL_ROWS = 65_536


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
    if isinstance(source, str | os.PathLike):
        return _open_paths([os.fspath(source)])
    if isinstance(source, list | tuple) and source and all(_is_path(item) for item in source):
        return _open_paths([os.fspath(item) for item in source])
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
        columns = {f"x{k}": source[:, k].copy() for k in range(source.shape[1])}
        return TableSource(pa.table(columns), name)
    if module == "polars" and kind == "LazyFrame":
        path = _spool_path(spill)
        source.sink_parquet(path, row_group_size=_SPOOL_ROWS)
        return _open_files([str(path)], name)
    if module == "polars" and kind == "DataFrame":
        return TableSource(source.to_arrow(), name)
    if module == "pandas" and kind == "DataFrame":
        names = [str(column) for column in source.columns]
        table = pa.Table.from_pandas(source.set_axis(names, axis=1), preserve_index=False)
        return TableSource(table.replace_schema_metadata(None), name)
    if kind == "DuckDBPyRelation":
        return _spool(source.to_arrow_reader(_SPOOL_ROWS), name, spill)
    if hasattr(source, "files") and hasattr(source, "filesystem") and hasattr(source, "scanner"):
        return _open_dataset(source, name, spill)
    if hasattr(source, "scanner"):
        return _spool(source.scanner(batch_readahead=1).to_reader(), name, spill)
    if hasattr(source, "__arrow_c_stream__"):
        return _spool(pa.RecordBatchReader.from_stream(source), name, spill)
    raise UnsupportedSourceError(
        f"a {module}.{kind} is no source",
        hint="pass a path to Parquet files, a DataFrame, or an object with __arrow_c_stream__",
    )


def _open_dataset(source: Any, name: str, spill: Path) -> Source:
    if getattr(source.format, "default_extname", "") == "parquet":
        files = [open_file(source.filesystem, path) for path in source.files]
        if not files:
            raise EmptySourceError(f"{name} has no files")
        return ParquetSource(files, source.filesystem, name)
    return _spool(source.scanner(batch_readahead=1).to_reader(), name, spill)


def _spool_path(spill: Path) -> Path:
    return spill / f"spool-{uuid.uuid4().hex}.parquet"


def _spool(reader: pa.RecordBatchReader, name: str, spill: Path) -> Source:
    """Write a stream that can be read only once to the spill directory."""
    path = _spool_path(spill)
    with pq.ParquetWriter(
        path, reader.schema, compression="zstd", compression_level=1, write_page_checksum=True
    ) as writer:
        for batch in reader:
            writer.write_batch(batch, row_group_size=_SPOOL_ROWS)
    return _open_files([str(path)], name)


def _open_files(paths: Sequence[str], name: str) -> ParquetSource:
    filesystem = pafs.LocalFileSystem()
    return ParquetSource([open_file(filesystem, path) for path in paths], filesystem, name)


def _open_paths(paths: Sequence[str]) -> Source:
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if any("://" in path for path in paths):
        return _open_urls(paths, name)
    files: list[str] = []
    roots: dict[str, str] = {}
    for path in paths:
        found = _expand(path)
        files += found
        roots.update(dict.fromkeys(found, path))
    filesystem = pafs.LocalFileSystem()
    opened = [open_file(filesystem, f, _hive(f, roots[f])) for f in files]
    return ParquetSource(opened, filesystem, name)


def _expand(path: str) -> list[str]:
    """Files of one path; a path that exists is taken by its letters, not as a glob."""
    if Path(path).is_dir():
        return _in_directory(path)
    if Path(path).exists():
        return [path]
    if any(mark in path for mark in "*?["):
        found = [f for match in sorted(glob.glob(path, recursive=True)) for f in _matched(match)]
        if found:
            return found
        raise SourceNotFoundError(f"{path} matches no Parquet file", hint="check the pattern")
    raise SourceNotFoundError(f"{path} does not exist", hint="check the path")


def _matched(match: str) -> list[str]:
    if Path(match).is_dir():
        return _parquet_below(match)
    return [match]


def _in_directory(path: str) -> list[str]:
    found = _parquet_below(path)
    if not found:
        raise SourceNotFoundError(
            f"the directory {path} holds no Parquet file",
            hint="files are taken by their ending, .parquet or .pq",
        )
    return found


def _parquet_below(path: str) -> list[str]:
    return sorted(
        str(file)
        for file in Path(path).rglob("*")
        if file.suffix in _SUFFIXES
        and not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
    )


def _hive(file: str, root: str) -> tuple[tuple[str, Any], ...]:
    """Columns spelled in the directory names between ``root`` and the file: key=value."""
    try:
        parts: Iterable[str] = Path(file).relative_to(root).parts[:-1]
    except ValueError:
        parts = Path(file).parts[:-1]
    pairs = [part.partition("=") for part in parts if "=" in part]
    return tuple((key, _partition_value(value)) for key, _, value in pairs)


def _partition_value(value: str) -> Any:
    if value == "__HIVE_DEFAULT_PARTITION__":
        return None
    return int(value) if value.lstrip("-").isdigit() and str(int(value)) == value else value


def _open_urls(urls: Sequence[str], name: str) -> Source:
    filesystem, root = _remote(urls[0])
    files: list[str] = []
    for url in urls:
        path = _remote(url)[1] if url != urls[0] else root
        files += _remote_files(filesystem, path, url)
    opened = [open_file(filesystem, f, _hive(f, root)) for f in files]
    return ParquetSource(opened, filesystem, name)


def _remote(url: str) -> tuple[pafs.FileSystem, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UnsupportedSourceError(
            f"{url} needs fsspec", hint="install streamfeat[remote]"
        ) from error
    try:
        remote, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UnsupportedSourceError(
            f"{url} cannot be opened: {error}", hint="install the filesystem that fsspec names"
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(remote)), path


def _remote_files(filesystem: pafs.PyFileSystem, path: str, url: str) -> list[str]:
    remote = filesystem.handler.fs
    if remote.isfile(path):
        return [path]
    found = remote.glob(path) if any(mark in path for mark in "*?[") else remote.find(path)
    chosen = sorted(str(f) for f in found if str(f).endswith(_SUFFIXES))
    if not chosen:
        raise SourceNotFoundError(f"{url} matches no Parquet file", hint="check the URL")
    return chosen
