"""From paths to Parquet files.

This module covers: files, globs, directories, hive directories and fsspec URLs.
This module does *not* cover: objects in memory (opening), reading (parquet).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow.fs as pafs

from streamfeat.errors import SourceNotFoundError, UnsupportedSourceError
from streamfeat.sources.footers import first_line, open_file
from streamfeat.sources.parquet import ParquetSource

_SUFFIXES = (".parquet", ".pq")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_LOCAL_SCHEME = "file://"


def open_paths(paths: Sequence[str]) -> ParquetSource:
    """The Parquet files that ``paths`` stand for, as one source.

    Raises
    ------
    SourceNotFoundError
        If a path does not exist or stands for no Parquet file.
    """
    if not paths or not all(paths):
        raise SourceNotFoundError("an empty path was given", hint="name at least one file")
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    paths = [path.removeprefix(_LOCAL_SCHEME) for path in paths]
    if any("://" in path for path in paths):
        return _open_urls(paths, name)
    found = [(file, _hive(file, path)) for path in paths for file in _expand(path)]
    filesystem = pafs.LocalFileSystem()
    return ParquetSource([open_file(filesystem, *item) for item in found], filesystem, name)


def _expand(path: str) -> list[str]:
    """Files of one path; a path that exists is taken by its letters, not as a glob."""
    if os.path.isdir(path):  # noqa: PTH112 - Path refuses odd names that this calls missing
        found = _parquet_below(path)
        if found:
            return found
        raise SourceNotFoundError(
            f"the directory {path} holds no Parquet file",
            hint="files are taken by their ending, .parquet or .pq",
        )
    if os.path.exists(path):  # noqa: PTH110
        return [path]
    if any(mark in path for mark in "*?["):
        matches = sorted(glob.glob(path, recursive=True))
        found = [f for m in matches for f in (_parquet_below(m) if Path(m).is_dir() else [m])]
        if found:
            return list(dict.fromkeys(found))
        raise SourceNotFoundError(f"{path} matches no Parquet file", hint="check the pattern")
    raise SourceNotFoundError(f"{path} does not exist", hint="check the path")


def _parquet_below(path: str) -> list[str]:
    root = Path(path)
    return sorted(
        str(file)
        for file in root.rglob("*")
        if _is_data(file.relative_to(root).parts) and file.is_file()
    )


def _is_data(parts: Sequence[str]) -> bool:
    """Whether a file is data by its name: no engine's own, no hidden one."""
    hidden = any(part.startswith(("_", ".")) for part in parts)
    return not hidden and parts[-1].lower().endswith(_SUFFIXES)


def _hive(file: str, root: str) -> list[tuple[str, str | None]]:
    """Columns spelled in the directory names between ``root`` and the file: key=value."""
    path = PurePosixPath(Path(file).as_posix())
    try:
        parts = path.relative_to(PurePosixPath(Path(root).as_posix())).parts[:-1]
    except ValueError:
        parts = path.parts[:-1]
    pairs = [part.partition("=") for part in parts if "=" in part]
    return [(unquote(k), None if v == _NULL_PARTITION else unquote(v)) for k, _, v in pairs]


def _open_urls(urls: Sequence[str], name: str) -> ParquetSource:
    filesystem, root = _remote(urls[0])
    found: list[tuple[str, list[tuple[str, str | None]]]] = []
    for url in urls:
        other, path = (filesystem, root) if url == urls[0] else _remote(url)
        if other.handler.fs.protocol != filesystem.handler.fs.protocol:
            raise UnsupportedSourceError(
                f"{url} and {urls[0]} lie on different file systems", hint="give files of one"
            )
        found += [(file, _hive(file, path)) for file in _remote_files(other, path, url)]
    opened = [open_file(filesystem, file, constants) for file, constants in found]
    return ParquetSource(opened, filesystem, name)


def _remote(url: str) -> tuple[pafs.PyFileSystem, str]:
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
            f"{url} cannot be opened: {error}", hint="install the file system that fsspec names"
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(remote)), path


def _remote_files(filesystem: pafs.PyFileSystem, path: str, url: str) -> list[str]:
    remote = filesystem.handler.fs
    try:
        chosen = _remote_matches(remote, path)
    except OSError as error:
        raise SourceNotFoundError(
            f"{url} cannot be listed: {first_line(error)}", hint="check the URL and its access"
        ) from error
    if not chosen:
        raise SourceNotFoundError(f"{url} matches no Parquet file", hint="check the URL")
    return chosen


def _remote_matches(remote: Any, path: str) -> list[str]:
    if remote.isfile(path):
        return [path]
    if any(mark in path for mark in "*?["):
        matches = sorted(str(match) for match in remote.glob(path))
    else:
        matches = [path]
    found: list[str] = []
    for match in matches:
        below = [match] if remote.isfile(match) else sorted(map(str, remote.find(match)))
        found += [f for f in below if f == match or _is_data(_below(f, match))]
    return found


def _below(file: str, root: str) -> tuple[str, ...]:
    try:
        return PurePosixPath(file).relative_to(PurePosixPath(root)).parts
    except ValueError:
        return PurePosixPath(file).parts
