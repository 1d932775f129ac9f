"""Parquet output that appears whole or not at all, and goes on where a killed run stopped.

This module covers: row groups of exact size, finished spans, resume, the atomic commit.
This module does *not* cover: what is written (driver).

A single file
-------------
Row groups are encoded by a thread of the writer's own while the next one is filled.

1. All spans grow one hidden data file beside the output, each by a Parquet writer of its own that
   starts where the file ends.
2. When a span is finished, its footer is cut off the data file, its offsets are moved to where the
   span lies (footer), and the manifest, replaced atomically, records it with the length and
   checksum so far. A rerun cuts the data file back to what the manifest knows and goes on.
3. The commit appends one footer made of all spans', syncs, and renames. No byte is copied.

A directory gets one file per span, and is renamed into place as a whole.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from streamfeat.errors import OutputError, OutputExistsError
from streamfeat.materialise.footer import joined, moved

ROW_GROUP_ROWS = 65_536
"""8 tiles: what readers of all engines handle well, and small enough to hold."""
SPAN_ROWS = 16 * ROW_GROUP_ROWS


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output path that cannot be written, before any work.

    Raises
    ------
    OutputExistsError
        If it exists and ``overwrite`` is false.
    OutputError
        If its directory is missing or cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"output {path} exists", hint="pass overwrite=True, or another path"
        )
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"output {path}: the directory {parent} does not exist", hint="create it first"
        )
    if not os.access(parent, os.W_OK):
        raise OutputError(f"output {path}: {parent} cannot be written", hint="choose another path")


def read_metadata(path: Path) -> dict[str, str]:
    """Key-value metadata of an output, a file or a directory of them."""
    file = min(path.glob("*.parquet"), default=path) if path.is_dir() else path
    try:
        found = pq.read_metadata(file).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise OutputError(f"{path} is no Parquet output: {error}") from error
    return {key.decode(): value.decode("utf-8", "replace") for key, value in found.items()}


def write_all(file: BinaryIO, data: Any) -> int:
    """Write all of ``data`` to an unbuffered file."""
    left = memoryview(data).cast("B")
    while left:
        left = left[file.write(left) :]
    return memoryview(data).nbytes


class _Tail:
    """The end of a file as a writer's sink: counts and checksums what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        return write_all(self._file, data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class OutputWriter:
    """Writes rows to ``path``; a context manager.

    Parameters
    ----------
    run_key
        Says what is written; only a run of the same key goes on where another stopped.
    metadata
        Key-value metadata of the output.
    directory
        Write a directory with one file per span.
    span_rows, row_group_rows
        Rows between two points of resume, and of a row group; None: ``SPAN_ROWS`` and
        ``ROW_GROUP_ROWS``.

    Attributes
    ----------
    resume_row : int
        Rows finished by an earlier run.
    state : dict or None
        What that run handed to its last ``finish_span``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "out.parquet"
    >>> schema = pa.schema([("x", pa.int64())])
    >>> with OutputWriter(path, schema=schema, run_key="k", metadata={}) as writer:
    ...     writer.append(pa.table({"x": [1, 2, 3]}))
    ...     writer.finish_span({})
    ...     _ = writer.commit()
    >>> pq.read_table(path)["x"].to_pylist()
    [1, 2, 3]
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: pa.Schema,
        run_key: str,
        metadata: Mapping[str, str],
        overwrite: bool = False,
        directory: bool = False,
        span_rows: int | None = None,
        row_group_rows: int | None = None,
    ) -> None:
        if len(schema) == 0:
            raise OutputError(
                f"output {path} would have no columns",
                hint="ask for min_features, or originals=True",
            )
        check_output(path, overwrite=overwrite)
        self._path = path
        self._plain_schema = schema.remove_metadata()
        self._schema = schema.with_metadata(dict(metadata))
        self._directory = directory
        self.span_rows = span_rows or SPAN_ROWS
        self._row_group_rows = row_group_rows or ROW_GROUP_ROWS
        self._key = f"{run_key}:{directory}:{self.span_rows}:{self._row_group_rows}"
        self._held: list[pa.Table] = []
        self._n_held = 0
        self._writer: pq.ParquetWriter | None = None
        self._tail: _Tail | None = None
        self._n_written = 0
        self._done = False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="streamfeat-writer")
        self._pending: Future[None] | None = None
        with self._telling():
            self._open_work()

    # -- the work directory ------------------------------------------------------------------

    @property
    def _work(self) -> Path:
        return self._path.with_name(f".{self._path.name}.streamfeat")

    def _open_work(self) -> None:
        self._work.mkdir(mode=0o700, exist_ok=True)
        self._lock = (self._work / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise OutputError(
                f"output {self._path} is being written by another run",
                hint="wait for it, or choose another path",
            ) from error
        self._spans = self._known_spans()
        if not self._directory:
            self._data = (self._work / "data").open("r+b" if self._spans else "w+b", buffering=0)
            self._data.truncate(self._length)
            self._data.seek(self._length)
        self.resume_row = sum(span["rows"] for span in self._spans)
        self.state = self._spans[-1]["state"] if self._spans else None

    @property
    def _length(self) -> int:
        return self._spans[-1]["end"] if self._spans else 0

    def _known_spans(self) -> list[dict[str, Any]]:
        """Finished spans of an earlier run of the same key, as far as their bytes are intact."""
        try:
            manifest = json.loads((self._work / "manifest.json").read_text(encoding="utf-8"))
            spans = manifest["spans"] if manifest["key"] == self._key else []
        except (OSError, ValueError, KeyError):
            spans = []
        good: list[dict[str, Any]] = []
        start = 0
        for number, span in enumerate(spans):
            if span["rows"] != self.span_rows or not self._intact(number, start, span):
                break
            good.append(span)
            start = span["end"]
        return good

    def _intact(self, number: int, start: int, span: dict[str, Any]) -> bool:
        file = self._part(number) if self._directory else self._work / "data"
        begin = 0 if self._directory else start
        try:
            with file.open("rb") as handle:
                handle.seek(begin)
                return _checksum(handle, span["end"] - begin) == span["checksum"]
        except OSError:
            return False

    def _part(self, number: int) -> Path:
        return self._work / "parts" / f"part-{number:05d}.parquet"

    # -- rows --------------------------------------------------------------------------------

    def append(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; how they are cut has no effect on the output."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        plain = rows.schema.equals(self._plain_schema)
        self._held.append(rows if plain else rows.cast(self._plain_schema))
        self._n_held += rows.num_rows
        while self._n_held >= self._row_group_rows:
            self._write_group(self._row_group_rows)

    def _write_group(self, n_rows: int) -> None:
        table = pa.concat_tables(self._held)
        group, rest = table.slice(0, n_rows), table.slice(n_rows)
        self._held = [rest] if rest.num_rows else []
        self._n_held = rest.num_rows
        self._wait()
        self._pending = self._encoder.submit(self._encode, group)
        self._n_written += n_rows

    def _encode(self, group: pa.Table) -> None:
        if self._writer is None:
            self._writer = self._open_writer()
        whole = group.combine_chunks().replace_schema_metadata(self._schema.metadata)
        self._writer.write_table(whole, row_group_size=self._row_group_rows)

    def _wait(self) -> None:
        """Until the row group in hand is encoded; its trouble is told here."""
        if self._pending is not None:
            with self._telling():
                pending, self._pending = self._pending, None
                pending.result()

    def _open_writer(self) -> pq.ParquetWriter:
        if self._directory:
            part = self._part(len(self._spans))
            part.parent.mkdir(exist_ok=True)
            self._data = part.open("w+b", buffering=0)
        self._tail = _Tail(self._data)
        text = [f.name for f in self._schema if not pa.types.is_primitive(f.type)]
        return pq.ParquetWriter(
            self._tail,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=text or False,
            write_page_checksum=True,
        )

    def finish_span(self, state: Mapping[str, Any]) -> None:
        """Make the rows so far durable; ``state`` is handed to a run that resumes after them."""
        if self._n_held:
            self._write_group(self._n_held)
        self._wait()
        if self._writer is None or self._tail is None:
            return
        with self._telling():
            end, checksum = self._data.tell(), self._tail.checksum
            self._writer.close()
            span = {"rows": self._n_written, "state": dict(state)}
            if self._directory:
                span |= {"end": self._data.tell(), "checksum": self._tail.checksum}
                _sync(self._data)
                self._data.close()
            else:
                self._data.seek(end)
                footer = self._data.read()
                self._data.truncate(end)
                self._data.seek(end)
                span |= {"end": end, "checksum": checksum}
                span["footer"] = base64.b64encode(moved(footer, self._length)).decode()
                _sync(self._data)
            self._spans.append(span)
            self._save_manifest()
        self._writer, self._tail, self._n_written = None, None, 0

    def _save_manifest(self) -> None:
        _replace(self._work / "manifest.json", json.dumps({"key": self._key, "spans": self._spans}))

    # -- the end -----------------------------------------------------------------------------

    def commit(self) -> Path:
        """Put the whole output under its name; nothing else remains."""
        self.finish_span(self.state or {})
        with self._telling():
            if self._directory:
                self._commit_directory()
            else:
                self._commit_file()
            self._close()
            shutil.rmtree(self._work, ignore_errors=True)
        self._done = True
        return self._path

    def _commit_file(self) -> None:
        footers = [base64.b64decode(span["footer"]) for span in self._spans]
        write_all(self._data, joined(footers))
        _sync(self._data)
        self._data.close()
        if self._path.is_dir():
            shutil.rmtree(self._path)
        os.replace(self._work / "data", self._path)
        _sync_directory(self._path.absolute().parent)

    def _commit_directory(self) -> None:
        parts = self._work / "parts"
        rows = [span["rows"] for span in self._spans]
        _replace(parts / "_manifest.json", json.dumps({"rows": sum(rows), "parts": rows}))
        _sync_directory(parts)
        old = self._work / "old"
        if self._path.exists():
            os.replace(self._path, old)
        os.replace(parts, self._path)
        _sync_directory(self._path.absolute().parent)

    def abort(self, *, keep: bool) -> None:
        """Stop; ``keep`` leaves finished spans for a run that resumes."""
        if self._done:
            return
        self._done = True
        self._close()
        if not (keep and self._spans):
            shutil.rmtree(self._work, ignore_errors=True)

    def _close(self) -> None:
        self._encoder.shutdown(wait=True)
        if self._writer is not None:
            with suppress(OSError):  # its footer has nowhere to go
                self._writer.close()
        if hasattr(self, "_data"):
            self._data.close()
        self._lock.close()

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort(keep=True)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn the system's errors into ours, with the space left."""
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            free = shutil.disk_usage(self._path.absolute().parent).free
            raise OutputError(
                f"output {self._path} cannot be written: {error} ({free:,} B free)",
                hint="free some space, or choose another path",
            ) from error


def _checksum(handle: BinaryIO, n_bytes: int) -> int | None:
    value, left = 0, n_bytes
    while left > 0:
        data = handle.read(min(left, 1 << 22))
        if not data:
            return None
        value = zlib.crc32(data, value)
        left -= len(data)
    return value


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    """Write a file whole: to another name, synced, then renamed."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(text.encode())
        _sync(file)
    os.replace(partial, path)
    _sync_directory(path.parent)
