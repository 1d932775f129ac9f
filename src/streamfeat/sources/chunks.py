"""Chunks of rows in a reused arena, with halos and each row's place in its group.

This module covers: decoding batches into float64 and int64 arrays, carrying halos from chunk to
chunk, and chunk sizes that may change at every chunk.
This module does *not* cover: how many rows a chunk should have (memory.controller).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.sources.arrays import to_numpy
from streamfeat.sources.source import BASE_BATCH_ROWS, Source

NULL_TIME = np.iinfo(np.int64).min


@dataclass(slots=True)
class Chunk:
    """Rows ``start_row`` to ``start_row + n_rows``, with halo; valid until the next one is asked.

    ``columns`` and ``row_in_group`` have ``n_before + n_rows + n_after`` rows. ``keys`` are the
    passthrough columns of the chunk's own rows.
    """

    start_row: int
    n_rows: int
    n_before: int
    n_after: int
    columns: dict[str, NDArray[Any]]
    row_in_group: NDArray[np.int64]
    keys: list[pa.RecordBatch] = field(default_factory=list)


class ChunkReader:
    """Reads a source chunk by chunk.

    Parameters
    ----------
    columns
        Numbers become float64 with NaN for null and infinity; timestamps int64 microseconds since
        1970 with the smallest int64 for null.
    group
        Where its value changes, a group begins; None: all rows are one group.
    lookback, lookahead
        Rows of halo before and behind a chunk.
    passthrough
        Columns handed on as they are.
    """

    def __init__(
        self,
        source: Source,
        *,
        columns: Sequence[str],
        group: str | None,
        lookback: int,
        lookahead: int,
        passthrough: Sequence[str] = (),
    ) -> None:
        self._source = source
        self._columns = tuple(columns)
        self._group = group
        self._before = lookback
        self._after = lookahead
        self._passthrough = tuple(passthrough)
        kinds = {name: source.column(name).role_type for name in columns}
        self._dtypes = {
            name: np.dtype(np.int64 if kind == "timestamp" else np.float64)
            for name, kind in kinds.items()
        }

    def chunks(
        self, rows: Callable[[], int], *, start_row: int = 0, stop_row: int | None = None
    ) -> Iterator[Chunk]:
        """Chunks from ``start_row`` on; ``rows()`` is asked for the size of each."""
        n_total = self._source.n_rows
        stop_row = n_total if stop_row is None else min(stop_row, n_total)
        first = max(start_row - self._before, 0)
        last = min(stop_row + self._after, n_total)
        feed = _Feed(self, first, last, self._group_start(first))
        arena = _Arena(self._dtypes)
        row = start_row
        while row < stop_row:
            n_rows = min(rows(), stop_row - row)
            end = min(row + n_rows + self._after, last)
            arena.keep_from(max(row - self._before, 0) - first)
            feed.fill(arena, end)
            yield self._chunk(arena, first, row, n_rows, end, feed)
            row += n_rows

    def _chunk(
        self, arena: _Arena, first: int, row: int, n_rows: int, end: int, feed: _Feed
    ) -> Chunk:
        columns, position = arena.views()
        return Chunk(
            start_row=row,
            n_rows=n_rows,
            n_before=row - first - arena.start,
            n_after=end - row - n_rows,
            columns=columns,
            row_in_group=position,
            keys=feed.take_keys(row, row + n_rows),
        )

    def _group_start(self, first: int) -> int:
        """How many rows of its group lie before row ``first``.

        Looked for backwards in spans that double, as a span is decoded from its row group's start.
        """
        if first == 0 or self._group is None:
            return first
        value = next(self._groups(first, first + 1))[0]
        count, stop, span = 0, first, BASE_BATCH_ROWS
        while stop > 0:
            start = max(stop - span, 0)
            tail = _same_at_end(self._groups(start, stop), value)
            count += tail
            if tail < stop - start:
                break
            stop, span = start, 2 * span
        return count

    def _groups(self, start: int, stop: int) -> Iterator[pa.Array]:
        for batch in self._source.read(start, stop, [str(self._group)]):
            yield comparable(batch.column(0))


def _same_at_end(parts: Iterator[pa.Array], value: pa.Scalar) -> int:
    """How many values at the end of ``parts`` equal ``value``."""
    count = 0
    for values in parts:
        other = np.flatnonzero(~_equals(values, value))
        count = len(values) - 1 - int(other[-1]) if len(other) else count + len(values)
    return count


def comparable(values: pa.Array) -> pa.Array:
    """Keys as they are compared: dictionaries decoded, NaN a null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    return values


def _equals(values: pa.Array, value: pa.Scalar) -> NDArray[np.bool_]:
    """Where ``values`` equal ``value``; null equals null."""
    if not value.is_valid:
        return to_numpy(pc.is_null(values))
    return to_numpy(pc.equal(values, value), null=False)


class _Feed:
    """Batches of the source, decoded into the arena as far as asked.

    Columns that may not all be open at once are read block by block, the arena being the stripe.
    """

    def __init__(self, reader: ChunkReader, first: int, last: int, position: int) -> None:
        self._reader = reader
        self._row = first
        keys = [*reader._passthrough, *([reader._group] if reader._group is not None else [])]
        names = list(dict.fromkeys((*keys, *reader._columns)))
        self._blocks = reader._source.column_blocks(names)
        if len(self._blocks) > 1:
            rest = [name for name in names if name not in set(keys)]
            blocks = [list(dict.fromkeys(keys)), *reader._source.column_blocks(rest)]
            self._blocks = [block for block in blocks if block]
        self._batches = reader._source.read(first, last, names)
        self._held: pa.RecordBatch | None = None
        self._position = position
        self._last_group: pa.Scalar | None = None
        self._keys: list[tuple[int, pa.RecordBatch]] = []

    def fill(self, arena: _Arena, end: int) -> None:
        """Decode rows until row ``end``."""
        if end <= self._row:
            return
        arena.make_room(end - self._row)
        if len(self._blocks) > 1:
            self._fill_by_blocks(arena, end)
        while self._row < end:
            batch = self._held if self._held is not None else next(self._batches)
            part = batch.slice(0, end - self._row)
            rest = batch.slice(part.num_rows)
            self._held = rest if rest.num_rows else None
            self._decode_numbers(arena, part, 0)
            self._decode_keys(arena, part, 0)
            arena.advance(part.num_rows)
            self._row += part.num_rows

    def _fill_by_blocks(self, arena: _Arena, end: int) -> None:
        for number, block in enumerate(self._blocks):
            offset = 0
            for batch in self._reader._source.read(self._row, end, block):
                self._decode_numbers(arena, batch, offset)
                if number == 0:
                    self._decode_keys(arena, batch, offset)
                offset += batch.num_rows
        arena.advance(end - self._row)
        self._row = end

    def _decode_numbers(self, arena: _Arena, batch: pa.RecordBatch, offset: int) -> None:
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            arena.put(name, values, offset)

    def _decode_keys(self, arena: _Arena, batch: pa.RecordBatch, offset: int) -> None:
        arena.put_positions(self._positions(batch), offset)
        if self._reader._passthrough:
            keys = batch.select(list(self._reader._passthrough))
            self._keys.append((self._row + offset, keys))

    def _positions(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        n = batch.num_rows
        group = self._reader._group
        if group is None:
            out = np.arange(self._position, self._position + n, dtype=np.int64)
            self._position += n
            return out
        values = comparable(batch.column(batch.schema.get_field_index(group)))
        starts = np.flatnonzero(self._changes(values))
        begin = np.full(n, -self._position, dtype=np.int64)
        begin[starts] = starts
        np.maximum.accumulate(begin, out=begin)
        out = np.arange(n, dtype=np.int64) - begin
        self._position = int(out[-1]) + 1
        self._last_group = values[-1]
        return out

    def _changes(self, values: pa.Array) -> NDArray[np.bool_]:
        """Where a group begins."""
        out = np.zeros(len(values), dtype=bool)
        if self._last_group is not None:
            out[0] = not _equals(values.slice(0, 1), self._last_group)[0]
        else:
            out[0] = self._position == 0
        if len(values) > 1:
            out[1:] = differs(values)
        return out

    def take_keys(self, start: int, stop: int) -> list[pa.RecordBatch]:
        """Passthrough rows ``start`` to ``stop``; earlier ones are let go."""
        taken, kept = [], []
        for row, batch in self._keys:
            begin, end = max(start - row, 0), min(stop - row, batch.num_rows)
            if begin < end:
                taken.append(batch.slice(begin, end - begin))
            if row + batch.num_rows > stop:
                kept.append((row, batch))
        self._keys = kept
        return taken


def differs(values: pa.Array) -> NDArray[np.bool_]:
    """Where a value differs from the one before, shape (n - 1,); null equals null."""
    before, after = values.slice(0, len(values) - 1), values.slice(1)
    unequal = to_numpy(pc.not_equal(before, after), null=False)
    if values.null_count:
        nulls = to_numpy(values.is_null())
        unequal = unequal | (nulls[1:] != nulls[:-1])
    return unequal


class _Arena:
    """Preallocated arrays, one per column; rows are appended at ``end`` and dropped in front."""

    def __init__(self, dtypes: dict[str, np.dtype[Any]]) -> None:
        self._dtypes = dtypes
        self._arrays = {name: np.empty(0, dtype=dtype) for name, dtype in dtypes.items()}
        self._position = np.empty(0, dtype=np.int64)
        self.start = 0
        self._length = 0

    def keep_from(self, row: int) -> None:
        """Drop rows before ``row``, counted from the first row ever put."""
        drop = row - self.start
        if drop <= 0:
            return
        for array in (*self._arrays.values(), self._position):
            array[: self._length - drop] = array[drop : self._length]
        self._length -= drop
        self.start = row

    def make_room(self, n_rows: int) -> None:
        need = self._length + max(n_rows, 0)
        if need <= len(self._position):
            return
        for name, array in self._arrays.items():
            self._arrays[name] = _grown(array, need, self._length)
        self._position = _grown(self._position, need, self._length)

    def put(self, name: str, values: pa.Array, offset: int) -> None:
        """Decode ``values`` from ``offset`` rows behind the end on, if ``name`` is a column."""
        if name not in self._arrays:
            return
        start = self._length + offset
        target = self._arrays[name][start : start + len(values)]
        if target.dtype == np.int64:
            decode_times(values, target)
        else:
            decode_numbers(values, target)

    def put_positions(self, positions: NDArray[np.int64], offset: int) -> None:
        start = self._length + offset
        self._position[start : start + len(positions)] = positions

    def advance(self, n_rows: int) -> None:
        self._length += n_rows

    def views(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        columns = {name: array[: self._length] for name, array in self._arrays.items()}
        return columns, self._position[: self._length]


def _grown(array: NDArray[Any], n_rows: int, used: int) -> NDArray[Any]:
    out = np.empty(n_rows, dtype=array.dtype)
    out[:used] = array[:used]
    return out


def decode_numbers(values: pa.Array, out: NDArray[np.float64]) -> None:
    """Write an Arrow array of numbers into ``out``: null and infinity become NaN."""
    if not pa.types.is_float64(values.type):
        values = values.cast(pa.float64(), safe=False)
    out[:] = to_numpy(values, null=np.nan)
    infinite = np.isinf(out)
    if infinite.any():
        out[infinite] = np.nan


def decode_times(values: pa.Array, out: NDArray[np.int64]) -> None:
    """Write timestamps or dates into ``out`` as microseconds since 1970; null is the least."""
    if pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        whole = values.view(pa.int64()) if not values.null_count else values.cast(pa.int64())
        numbers = to_numpy(whole, null=NULL_TIME)
        out[:] = np.where(numbers == NULL_TIME, NULL_TIME, numbers // 1000)
        return
    zone = getattr(values.type, "tz", None)
    micro = values.cast(pa.timestamp("us", tz=zone)).cast(pa.int64())
    out[:] = to_numpy(micro, null=NULL_TIME)
