"""One pass over the rows: chunks are read, tiles are worked on in threads, results come in order.

This module covers:
1. asking for chunks of as many rows as the memory controller allows now (``Scanner.run``);
2. recursive columns, chunk by chunk, in row order;
3. tiles on a thread pool, few at a time, their results handed over in tile order (``_in_order``).
This module does *not* cover: what is computed from a tile, or reading.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from streamfeat.evaluate.program import Frame, Program
from streamfeat.evaluate.recursion import Recursion
from streamfeat.events import Events, PassAdvanced, PassFinished, PassStarted
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.sources.chunks import Chunk, ChunkReader
from streamfeat.sources.source import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tile:
    """A fixed run of rows: ``frame.n_rows`` rows from ``start_row`` of the whole data on."""

    start_row: int
    frame: Frame


def _nothing(chunk: Chunk) -> dict[str, NDArray[Any]]:
    return {}


@dataclass(frozen=True)
class Scanner:
    """Passes over one source.

    Parameters
    ----------
    source
        Rows in canonical order.
    group
        The group column, if any.
    rows
        Asked before each chunk for the number of rows to read.
    threads
        Tiles worked on at once.
    """

    source: Source
    group: str | None
    rows: Callable[[], int]
    threads: int
    events: Events

    def run(
        self,
        name: str,
        program: Program,
        work: Callable[[Tile], T],
        absorb: Callable[[T], object],
        *,
        columns: Sequence[str] = (),
        passthrough: Sequence[str] = (),
        derive: Callable[[Chunk], Mapping[str, NDArray[Any]]] = _nothing,
        start_row: int = 0,
        recursion: Recursion | None = None,
        after_chunk: Callable[[Chunk], None] = lambda chunk: None,
        rows: Callable[[], int] | None = None,
    ) -> None:
        """Run ``work`` on every tile and ``absorb`` on every result, in tile order.

        Parameters
        ----------
        columns
            Columns to read besides the program's inputs.
        derive
            Makes further columns of a chunk, as long as its others.
        after_chunk
            Called when all tiles of a chunk are absorbed; its arrays are still valid.

        Raises
        ------
        SourceChangedError
            If a file was changed since the source was opened.
        """
        self.source.check_unchanged()
        started = time.perf_counter()
        self.events.emit(PassStarted(name, self.source.n_rows))

        def advanced(chunk: Chunk) -> None:
            after_chunk(chunk)
            self.events.emit(PassAdvanced(name, chunk.start_row + chunk.n_rows))

        reader = self.reader(program, columns=columns, passthrough=passthrough)
        chunks = reader.chunks(rows or self.rows, start_row=start_row)
        self._over(chunks, program, work, absorb, derive, recursion, advanced)
        self.source.check_unchanged()
        self.events.emit(PassFinished(name, time.perf_counter() - started))

    def tiles(self, program: Program, numbers: Iterable[int], work: Callable[[Tile], None]) -> None:
        """Run ``work`` on single tiles, by number; recursive columns start afresh in each."""
        reader = self.reader(program)
        for number in numbers:
            start = number * TILE_ROWS
            stop = min(start + TILE_ROWS, self.source.n_rows)
            chunks = reader.chunks(lambda: TILE_ROWS, start_row=start, stop_row=stop)
            self._over(chunks, program, work, lambda _: None, _nothing, None, lambda _: None)

    def reader(
        self, program: Program, *, columns: Sequence[str] = (), passthrough: Sequence[str] = ()
    ) -> ChunkReader:
        known = {column.name for column in self.source.columns}
        return ChunkReader(
            self.source,
            columns=[n for n in dict.fromkeys((*program.inputs, *columns)) if n in known],
            group=self.group,
            lookback=program.lookback,
            lookahead=program.lookahead,
            passthrough=passthrough,
        )

    def _over(
        self,
        chunks: Iterable[Chunk],
        program: Program,
        work: Callable[[Tile], T],
        absorb: Callable[[T], object],
        derive: Callable[[Chunk], Mapping[str, NDArray[Any]]],
        recursion: Recursion | None,
        after_chunk: Callable[[Chunk], None],
    ) -> None:
        recursion = recursion or Recursion(program)
        with (
            threadpool_limits(1, "blas"),
            ThreadPoolExecutor(self.threads, thread_name_prefix="streamfeat-tile") as pool,
        ):
            for chunk in chunks:
                arrays = {**chunk.columns, **derive(chunk)}
                frame = Frame(arrays, chunk.row_in_group, chunk.n_before, chunk.n_rows)
                recursion.fill(frame, at_start=chunk.start_row == chunk.n_before)
                tiles = _tiles(frame, chunk.start_row, program)
                for result in _in_order(pool, _quiet(work), tiles, most=self.threads + 1):
                    absorb(result)
                after_chunk(chunk)


def _quiet(work: Callable[[Tile], T]) -> Callable[[Tile], T]:
    """``work`` without NumPy's warnings: what overflows is told apart by its value."""

    def run(tile: Tile) -> T:
        with np.errstate(all="ignore"):
            return work(tile)

    return run


def _tiles(frame: Frame, start_row: int, program: Program) -> Iterator[Tile]:
    for start in range(0, frame.n_rows, TILE_ROWS):
        stop = min(start + TILE_ROWS, frame.n_rows)
        part = frame.part(start, stop, lookback=program.lookback, lookahead=program.lookahead)
        yield Tile(start_row + start, part)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Tile], T], tiles: Iterable[Tile], *, most: int
) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    try:
        for tile in tiles:
            waiting.append(pool.submit(work, tile))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
