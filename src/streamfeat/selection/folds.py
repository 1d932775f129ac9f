"""Blocks of the data: which rows search, which confirm, which score.

This module covers: the layout of the blocks, and assigning rows to them by time or by row number.
This module does *not* cover: reading time (search.labels).

Blocks 0-4 search (60 % of the rows), 5-24 confirm (20 %), 25-34 score (20 %). By time they follow
one another, and a row whose label ends in a later block than it begins takes no part: purging at
every border (López de Prado 2018, ch. 7). Without time they interleave by a hash of the row number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Blocks = NDArray[np.int16]

N_SEARCH, N_CONFIRM, N_FINAL = 5, 20, 10
N_BLOCKS = N_SEARCH + N_CONFIRM + N_FINAL
SEARCH = range(N_SEARCH)
CONFIRM = range(N_SEARCH, N_SEARCH + N_CONFIRM)
FINAL = range(N_SEARCH + N_CONFIRM, N_BLOCKS)
NULL_TIME = np.iinfo(np.int64).min
_N_BINS = 65_536


def borders() -> list[Fraction]:
    """The share of rows before the end of each block but the last."""
    sizes = [Fraction(3, 5) / N_SEARCH] * N_SEARCH
    sizes += [Fraction(1, 5) / N_CONFIRM] * N_CONFIRM + [Fraction(1, 5) / N_FINAL] * N_FINAL
    return [sum(sizes[: k + 1], Fraction(0)) for k in range(N_BLOCKS - 1)]


@dataclass(eq=False)
class TimeHistogram:
    """Rows per bin of time: exact counts, so borders do not depend on chunks."""

    minimum: int
    width: int
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, minimum: int, maximum: int) -> TimeHistogram:
        """Equal bins over [minimum, maximum]."""
        width = max(1, -(-(maximum - minimum + 1) // _N_BINS))
        return cls(minimum, width, np.zeros(_N_BINS, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.counts.nbytes

    def update(self, times: Times) -> TimeHistogram:
        """Count int64 times; null ones are left out."""
        known = times[times != NULL_TIME]
        # Unsigned: the span from minimum to maximum may exceed what int64 holds.
        offset = known.astype(np.uint64) - np.uint64(self.minimum % 2**64)
        bins = (offset // np.uint64(self.width)).astype(np.int64)
        self.counts += np.bincount(bins, minlength=_N_BINS)
        return self

    def add(self, times: Times) -> None:
        """``update`` as a consumer."""
        self.update(times)

    def merge(self, other: TimeHistogram) -> TimeHistogram:
        self.counts += other.counts
        return self


@dataclass(frozen=True, eq=False)
class TimeFolds:
    """Blocks that follow one another in time; ``edges[k]`` is where block k + 1 begins."""

    edges: Times

    def assign(self, time: Times, label_end: Times) -> Blocks:
        """Block of each row, int16; -1 where time is null or the label leaves its block."""
        begin = np.searchsorted(self.edges, time, side="right")
        end = np.searchsorted(self.edges, label_end, side="right")
        known = (time != NULL_TIME) & (label_end != NULL_TIME)
        return np.where(known & (begin == end), begin, -1).astype(np.int16)


def time_folds(histogram: TimeHistogram, *, least_span: int = 0) -> TimeFolds:
    """Borders at the bin edges where the rows counted reach each share.

    Blocks shorter than ``least_span`` in time are joined with their neighbours of the same part,
    the others of the joined ones staying empty: a block no longer than a label would be purged
    whole.
    """
    reached = np.cumsum(histogram.counts)
    total = int(reached[-1])
    edges = []
    for share in borders():
        place = int(np.searchsorted(reached, float(share * total), side="left"))
        edge = histogram.minimum + (place + 1) * histogram.width
        edges.append(min(edge, np.iinfo(np.int64).max))
    last = int(np.searchsorted(reached, total, side="left")) + 1
    end = histogram.minimum + last * histogram.width
    widened = _widened(histogram.minimum, edges, end, least_span)
    return TimeFolds(np.array(widened, dtype=np.int64))


def _widened(start: int, edges: list[int], end: int, least_span: int) -> list[int]:
    """``edges`` without those closer than ``least_span`` to the one before or the part's end; they
    move to the one before, so that their block is empty and its rows belong to the next."""
    limits = [start, *edges, end]
    for part in (SEARCH, CONFIRM, FINAL):
        kept = limits[part.start]
        for k in range(part.start + 1, part.stop):
            if min(limits[k] - kept, limits[part.stop] - limits[k]) >= least_span:
                kept = limits[k]
            limits[k] = kept
    return limits[1:-1]


@dataclass(frozen=True)
class HashFolds:
    """Blocks by a hash of the row number: for rows that are independent of one another."""

    seed: int = 0

    def assign(self, row_numbers: NDArray[np.int64]) -> Blocks:
        """Block of each row, int16."""
        limits = np.array([int(share * 2**32) for share in borders()], dtype=np.uint64)
        high = splitmix64(row_numbers.astype(np.uint64), self.seed) >> np.uint64(32)
        return np.searchsorted(limits, high, side="right").astype(np.int16)


def splitmix64(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A well-mixed 64-bit hash of each value (Steele, Lea and Flood 2014).

    >>> int(splitmix64(np.zeros(1, dtype=np.uint64), 0)[0])
    16294208416658607535
    """
    with np.errstate(over="ignore"):
        mixed = values + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
