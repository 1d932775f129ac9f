"""What expressions are like on the search rows: location, scale, range, null pattern, a sample.

This module covers: one pass that finds them (``statistics_pass``), exact whatever the chunk.
This module does *not* cover: what is made of them (rounds, beam).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from streamfeat.evaluate.kernels import Array
from streamfeat.evaluate.program import Program
from streamfeat.evaluate.scan import Scanner, Tile
from streamfeat.plan.expr import Expr
from streamfeat.search.labels import Labels
from streamfeat.selection.folds import N_SEARCH, splitmix64

SAMPLE_ROWS = 2_048
"""Rows kept to tell candidates apart before they are evaluated."""
_SAMPLE_SEED = 7
_MOST_SCALE = 1e100
_RUN = 128


@dataclass(frozen=True, eq=False)
class Standard:
    """Expressions and what they are like; arrays of shape (m,) unless said otherwise.

    Attributes
    ----------
    location, scale
        Mean and deviation of the known values; 0 and 1 where there are none or they overflow.
    low, high
        Least and largest known value.
    known_share
        Known rows of all search rows; 0 where values overflow.
    row_share
        The share of the variance that one row makes.
    pattern
        The null pattern, numbered from 0.
    sample
        Values on some rows, the same of all expressions, shape (m, s); NaN is null.
    """

    exprs: tuple[Expr, ...]
    location: Array
    scale: Array
    low: Array
    high: Array
    known_share: Array
    row_share: Array
    pattern: NDArray[np.intp]
    sample: Array

    def subset(self, kept: Sequence[int] | NDArray[np.intp]) -> Standard:
        places = np.asarray(kept, dtype=np.intp)
        _, pattern = np.unique(self.pattern[places], return_inverse=True)
        return Standard(
            tuple(self.exprs[k] for k in places),
            self.location[places],
            self.scale[places],
            self.low[places],
            self.high[places],
            self.known_share[places],
            self.row_share[places],
            pattern.astype(np.intp),
            self.sample[places],
        )

    def joined(self, other: Standard) -> Standard:
        """The expressions of both; null patterns are not told apart between them."""
        return Standard(
            self.exprs + other.exprs,
            np.concatenate((self.location, other.location)),
            np.concatenate((self.scale, other.scale)),
            np.concatenate((self.low, other.low)),
            np.concatenate((self.high, other.high)),
            np.concatenate((self.known_share, other.known_share)),
            np.concatenate((self.row_share, other.row_share)),
            np.concatenate((self.pattern, other.pattern + self.pattern.max(initial=-1) + 1)),
            np.concatenate((self.sample, other.sample)),
        )

    @property
    def reach(self) -> Array:
        """How far the values go from the mean, in deviations."""
        far = np.maximum(self.high - self.location, self.location - self.low)
        return np.asarray(far / self.scale, dtype=np.float64)

    @cached_property
    def programs(self) -> tuple[tuple[slice, Program], ...]:
        """The expressions in runs of at most 128, each with its program."""
        return programs_of(self.exprs)

    def clipped(self, values: Array, rows: slice) -> Array:
        """Rows ``rows`` of values, clipped in place to the range they had on the search rows."""
        return np.clip(values, self.low[rows, None], self.high[rows, None], out=values)

    def apply(self, values: Array, rows: slice) -> Array:
        """Standardise in place; null becomes the location."""
        values -= self.location[rows, None]
        values /= self.scale[rows, None]
        return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def programs_of(exprs: Sequence[Expr]) -> tuple[tuple[slice, Program], ...]:
    """Runs of at most 128 expressions, so that their values stay small beside the budget."""
    slices = (slice(start, min(start + _RUN, len(exprs))) for start in range(0, len(exprs), _RUN))
    return tuple((rows, Program(exprs[rows])) for rows in slices)


@dataclass(eq=False)
class Statistics:
    """Running statistics of m expressions.

    ``n`` counts known rows, ``spread`` sums squared deviations from ``mean``, ``nulls`` adds up a
    hash of each null row's number: equal sums mean equal null patterns.
    """

    n_rows: int
    n: Array
    mean: Array
    spread: Array
    low: Array
    high: Array
    nulls: NDArray[np.uint64]
    samples: list[Array]

    @classmethod
    def empty(cls, m: int) -> Statistics:
        return cls(
            0,
            np.zeros(m),
            np.zeros(m),
            np.zeros(m),
            np.full(m, np.inf),
            np.full(m, -np.inf),
            np.zeros(m, dtype=np.uint64),
            [],
        )

    @property
    def nbytes(self) -> int:
        arrays = (self.n, self.mean, self.spread, self.low, self.high, self.nulls, *self.samples)
        return sum(a.nbytes for a in arrays)

    def update(
        self, values: Array, hashes: NDArray[np.uint64], kept: NDArray[np.intp]
    ) -> Statistics:
        """Add rows: ``values`` (m, n) with NaN for null, a hash per row, rows of the sample."""
        return self.merge(self.of(values, hashes, kept))

    @staticmethod
    def of(values: Array, hashes: NDArray[np.uint64], kept: NDArray[np.intp]) -> Statistics:
        """Those of some rows; see ``update``."""
        missing = np.isnan(values)
        n = (values.shape[1] - missing.sum(axis=1)).astype(np.float64)
        nulls = np.zeros(len(values), dtype=np.uint64)
        full = values
        holed = np.flatnonzero(n < values.shape[1])
        if len(holed):
            full = values.copy()
            full[missing] = 0.0
            nulls[holed] = np.where(missing[holed], hashes, np.uint64(0)).sum(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = full.sum(axis=1) / np.maximum(n, 1.0)
            gap = full - mean[:, None]
            if len(holed):
                gap[missing] = 0.0
            spread = np.einsum("ij,ij->i", gap, gap)
        return Statistics(
            values.shape[1],
            n,
            mean,
            spread,
            np.fmin.reduce(values, axis=1, initial=np.inf),
            np.fmax.reduce(values, axis=1, initial=-np.inf),
            nulls,
            [values[:, kept]],
        )

    def merge(self, other: Statistics) -> Statistics:
        """Add the rows that follow (Chan, Golub and LeVeque 1979)."""
        total = np.maximum(self.n + other.n, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            gap = other.mean - self.mean
            self.mean += gap * (other.n / total)
            self.spread += other.spread + gap * gap * (self.n * other.n / total)
        self.n += other.n
        self.n_rows += other.n_rows
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        self.nulls += other.nulls
        self.samples += other.samples
        return self

    def part(self, rows: slice) -> Statistics:
        """Those of some of the expressions."""
        return Statistics(
            self.n_rows,
            self.n[rows],
            self.mean[rows],
            self.spread[rows],
            self.low[rows],
            self.high[rows],
            self.nulls[rows],
            [sample[rows] for sample in self.samples],
        )

    def standard(self, exprs: tuple[Expr, ...]) -> Standard:
        """What the rows say of ``exprs``."""
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.sqrt(self.spread / np.maximum(self.n, 1.0))
            reach = np.maximum(self.high - self.mean, self.mean - self.low)
            row_share = reach**2 / np.where(self.spread > 0, self.spread, 1.0)
        usable = (scale < _MOST_SCALE) & (np.abs(self.mean) < _MOST_SCALE) & (self.n > 0)
        flat = ~usable | (scale <= 1e-300) | (scale <= 1e-15 * np.abs(self.mean))
        patterns = np.column_stack((self.nulls, self.n.astype(np.uint64)))
        _, first, pattern = np.unique(patterns, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first, kind="stable"), kind="stable")
        empty = np.empty((len(self.n), 0))
        return Standard(
            exprs,
            np.where(usable, self.mean, 0.0),
            np.where(flat, 1.0, scale),
            np.where(usable, self.low, 0.0),
            np.where(usable, self.high, 0.0),
            np.where(usable & ~flat, self.n / max(self.n_rows, 1), 0.0),
            np.where(usable, row_share, 0.0),
            order[pattern.ravel()].astype(np.intp),
            np.concatenate([empty, *self.samples], axis=1),
        )


def statistics_pass(
    scanner: Scanner, name: str, exprs: Sequence[Expr], labels: Labels
) -> tuple[Standard, Array]:
    """Statistics of expressions on the search rows, and location and scale of the outputs, (2, q).

    One pass.
    """
    programs, label = programs_of(exprs), Program([labels.target.expr])
    m, q = len(exprs), labels.target.n_outputs
    total = Statistics.empty(m + q)
    share = SAMPLE_ROWS / max(scanner.source.n_rows, 1)
    limit = np.uint64(min(int(share * 2.0**64), 2**64 - 1))

    def work(tile: Tile) -> Statistics:
        outputs, blocks = labels.of(tile, label.run(tile.frame)[0])
        rows = np.flatnonzero((blocks >= 0) & (blocks < N_SEARCH))
        hashes = splitmix64((tile.start_row + rows).astype(np.uint64), _SAMPLE_SEED)
        kept = np.flatnonzero(hashes <= limit)
        own = (np.take(program.run(tile.frame), rows, axis=1) for _, program in programs)
        every = chain(own, [np.take(outputs, rows, axis=1)])
        return _stacked([Statistics.of(values, hashes, kept) for values in every])

    labels.run(scanner, name, exprs, work, total.merge)
    outputs = total.part(slice(m, m + q)).standard(())
    return total.part(slice(m)).standard(tuple(exprs)), np.array([outputs.location, outputs.scale])


def _stacked(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of different expressions on the same rows, one after the other."""
    return Statistics(
        parts[0].n_rows,
        np.concatenate([p.n for p in parts]),
        np.concatenate([p.mean for p in parts]),
        np.concatenate([p.spread for p in parts]),
        np.concatenate([p.low for p in parts]),
        np.concatenate([p.high for p in parts]),
        np.concatenate([p.nulls for p in parts]),
        [np.concatenate([p.samples[0] for p in parts])],
    )
