"""The correction during: how many rows the next chunk has, given what the process holds.

This module covers: slow start, additive increase, multiplicative decrease between two water marks.
This module does *not* cover: measuring (probe), or acting on it (the run).

A step takes a sample and returns a new controller: decisions are data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamfeat.memory.allocator import reserve_bytes
from streamfeat.memory.models import MemorySample

_HOLD_STEPS = 4


@dataclass(frozen=True, slots=True)
class BatchController:
    """Rows of the next chunk.

    Attributes
    ----------
    low_bytes, high_bytes
        Below ``low`` the chunk grows by an eighth of the most; at ``high`` it is halved and held
        for four steps; between them it stays, so readings that tremble do not make it swing.
    least_rows
        Never fewer; 0: one tile.
    bytes_per_row
        What a row more is taken to cost: the chunk grows only if the process would stay below
        ``low``. 0: growing is free, as in an arena whose pages are already touched.

    Examples
    --------
    >>> start = BatchController.start(most_rows=65536, tile_rows=8192, budget_bytes=10**9)
    >>> start.rows
    16384
    >>> start.step(MemorySample(process_bytes=10**8, managed_bytes=0, at_seconds=0.0)).rows
    24576
    """

    rows: int
    most_rows: int
    tile_rows: int
    low_bytes: int
    high_bytes: int
    hold: int = 0
    least_rows: int = 0
    bytes_per_row: float = 0.0

    @classmethod
    def start(
        cls,
        *,
        most_rows: int,
        tile_rows: int,
        budget_bytes: int,
        least_rows: int = 0,
        bytes_per_row: float = 0.0,
    ) -> BatchController:
        """A quarter of the most, to begin with."""
        reserve = reserve_bytes(budget_bytes)
        unsized = cls(
            rows=0,
            most_rows=most_rows,
            tile_rows=tile_rows,
            low_bytes=budget_bytes - reserve,
            high_bytes=budget_bytes - reserve // 2,
            least_rows=least_rows,
            bytes_per_row=bytes_per_row,
        )
        return replace(unsized, rows=unsized._fit(most_rows // 4))

    def step(self, sample: MemorySample) -> BatchController:
        """The controller after a reading."""
        if sample.process_bytes >= self.high_bytes:
            return replace(self, rows=self._fit(self.rows // 2), hold=_HOLD_STEPS)
        if self.hold:
            return replace(self, hold=self.hold - 1)
        rows = self._fit(self.rows + max(self.most_rows // 8, self.tile_rows))
        predicted = sample.process_bytes + (rows - self.rows) * self.bytes_per_row
        return replace(self, rows=rows) if predicted < self.low_bytes else self

    def _fit(self, rows: int) -> int:
        most = max(self.most_rows // self.tile_rows, 1)
        least = min(max(-(-self.least_rows // self.tile_rows), 1), most)
        return min(max(rows // self.tile_rows, least), most) * self.tile_rows
