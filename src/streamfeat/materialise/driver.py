"""Selected features, and only those, from the source to the output, tile by tile.

This module covers: evaluating the features once more and handing rows to the writer in order.
This module does *not* cover: files, atomicity and resume (writer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from streamfeat.evaluate.program import Program
from streamfeat.evaluate.recursion import Recursion
from streamfeat.evaluate.scan import Scanner, Tile
from streamfeat.materialise.writer import OutputWriter
from streamfeat.plan.expr import Expr
from streamfeat.sources.arrays import from_floats
from streamfeat.sources.chunks import Chunk
from streamfeat.sources.source import Source


def output_schema(source: Source, keys: Sequence[str], features: Mapping[str, Expr]) -> pa.Schema:
    """Key columns as they are in the source, then one float64 column per feature."""
    schema = source.schema()
    fields = [schema.field(name) for name in keys]
    return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in features)])


@dataclass
class Written:
    """What was written, per feature: nulls, and values clipped to the feature's range."""

    names: tuple[str, ...]
    null_counts: np.ndarray = field(init=False)
    clipped_counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.null_counts = np.zeros(len(self.names), dtype=np.int64)
        self.clipped_counts = np.zeros(len(self.names), dtype=np.int64)

    @property
    def nulls(self) -> dict[str, int]:
        return dict(zip(self.names, map(int, self.null_counts), strict=True))

    @property
    def clipped(self) -> dict[str, int]:
        return dict(zip(self.names, map(int, self.clipped_counts), strict=True))


def write_features(
    scanner: Scanner,
    features: Mapping[str, Expr],
    keys: Sequence[str],
    writer: OutputWriter,
    *,
    ranges: Mapping[str, tuple[float, float]],
) -> Written:
    """Write ``keys`` and ``features`` of every row from ``writer.resume_row`` on.

    Parameters
    ----------
    ranges
        Values of these features are clipped to (low, high).

    Returns
    -------
    Written
        Counts over the rows written now.
    """
    program = Program(list(features.values()))
    recursion = Recursion(program, state=writer.state)
    written = Written(tuple(features))
    cursor = _Cursor(writer, scanner, recursion)
    anywhere = (-np.inf, np.inf)
    limits = np.array([ranges.get(name, anywhere) for name in features]).reshape(-1, 2)
    low, high = limits[:, :1], limits[:, 1:]

    def work(tile: Tile) -> tuple[list[pa.Array], np.ndarray]:
        values = program.run(tile.frame)
        beyond = ((values < low) | (values > high)).sum(axis=1)
        np.clip(values, low, high, out=values)
        return [from_floats(row) for row in values], beyond

    def absorb(made: tuple[list[pa.Array], np.ndarray]) -> None:
        columns, beyond = made
        written.null_counts += np.array([column.null_count for column in columns], dtype=np.int64)
        written.clipped_counts += beyond
        cursor.append(columns, keys, tuple(features))

    scanner.run(
        "write the features", program, work, absorb,
        passthrough=keys, derive=cursor.begin, start_row=writer.resume_row, recursion=recursion,
        after_chunk=cursor.end, rows=cursor.rows,
    )  # fmt: skip
    if cursor.next_row % writer.span_rows:
        writer.finish_span(recursion.state)
    return written


class _Cursor:
    """Where the output stands: chunks end at span borders, rows meet their keys."""

    def __init__(self, writer: OutputWriter, scanner: Scanner, recursion: Recursion) -> None:
        self._writer = writer
        self._scanner = scanner
        self._recursion = recursion
        self._keys: pa.Table | None = None
        self._chunk_row = 0
        self.next_row = writer.resume_row

    def rows(self) -> int:
        span = self._writer.span_rows
        return min(self._scanner.rows(), span - self.next_row % span)

    def begin(self, chunk: Chunk) -> dict[str, np.ndarray]:
        self._keys = pa.Table.from_batches(chunk.keys) if chunk.keys else None
        self._chunk_row = 0
        return {}

    def append(self, columns: list[pa.Array], keys: Sequence[str], names: tuple[str, ...]) -> None:
        n_rows = self._n_rows(columns)
        arrays = list(columns)
        if keys and self._keys is not None:
            part = self._keys.slice(self._chunk_row, n_rows).combine_chunks()
            arrays = [part.column(k).combine_chunks() for k in range(len(keys))] + arrays
        self._chunk_row += n_rows
        self._writer.append(pa.Table.from_arrays(arrays, names=[*keys, *names]))

    def _n_rows(self, columns: list[pa.Array]) -> int:
        if columns:
            return len(columns[0])
        assert self._keys is not None
        from streamfeat.plan.execution import TILE_ROWS

        return min(TILE_ROWS, self._keys.num_rows - self._chunk_row)

    def end(self, chunk: Chunk) -> None:
        self.next_row = chunk.start_row + chunk.n_rows
        if self.next_row % self._writer.span_rows == 0:
            self._writer.finish_span(self._recursion.state)
