"""The passes of a search: moments of all pairs of terms, of what a model leaves, and fold Grams.

This module covers:
1. which pairs of bands a pass takes, by the memory there is (``Screen``);
2. scores of all pairs against the target or against what a model leaves of it (``Screen.scores``);
3. the Grams of finalists by block, and their ranges (``gram_pass``).
This module does *not* cover: scores (selection.screen), which candidates go on (beam), or the
choice (selection).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamfeat.evaluate.kernels import Array
from streamfeat.evaluate.program import Program
from streamfeat.evaluate.scan import Scanner, Tile
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.search.labels import Labels
from streamfeat.search.standard import Standard, programs_of
from streamfeat.search.turns import Turns
from streamfeat.selection.folds import N_BLOCKS, N_SEARCH
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.moments import (
    AnyFloat,
    Bands,
    OutputMoments,
    PairMoments,
    Piece,
    TileRows,
)
from streamfeat.selection.screen import BestPairs, product_gains, sum_gains, term_gains

Pairs = tuple[tuple[int, int], ...]
Allowed = Callable[[str, slice, slice], NDArray[np.bool_]]
"""Which pairs of two runs of terms an operation may join."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Gains of terms, shape (m,), and the best pairs of each operation."""

    terms: Array
    pairs: Mapping[str, BestPairs]


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model of standardised features, one row of coefficients per output."""

    standard: Standard
    coefficients: Array
    intercepts: Array

    def active(self) -> Model:
        """The model without the features it does not use."""
        used = np.flatnonzero(np.any(self.coefficients != 0, axis=0))
        return Model(self.standard.subset(used), self.coefficients[:, used], self.intercepts)

    def residual(self, values: Array, outputs: Array) -> Array:
        return outputs - self.intercepts[:, None] - self.coefficients @ values


@dataclass(eq=False)
class Screen:
    """Scores of all pairs of ``standard``'s terms on the search rows.

    Parameters
    ----------
    standard
        The terms, those of heavy-tailed bands last.
    bands
        How they are cut.
    outputs
        Location and scale of the numbers to predict, shape (2, q).
    allowance_bytes
        What the moments held at a time may take.
    n_best
        Pairs kept per operation.
    """

    scanner: Scanner
    standard: Standard
    bands: Bands
    labels: Labels
    outputs: Array
    allowed: Allowed
    with_pairs: bool
    allowance_bytes: int
    n_best: int
    _kept: PairMoments | None = field(default=None, init=False)

    def passes(self) -> list[Pairs]:
        """The pairs of bands each pass takes."""
        if not self.with_pairs:
            return [tuple((band, band) for band in range(len(self.bands)))]
        return cut_passes(self.bands, self.outputs.shape[1], self.allowance_bytes)

    def scores(self, name: str, model: Model | None = None) -> Scores:
        """Gains against the target, or against what ``model`` leaves of it."""
        terms = np.zeros(len(self.standard.exprs))
        best = {operation: BestPairs(self.n_best) for operation in ("mul", "add", "sub")}
        parts = self.passes()
        for k, pairs in enumerate(parts):
            told = name if len(parts) == 1 else f"{name}, part {k + 1} of {len(parts)}"
            moments, outputs = self._moments(told, pairs, model)
            for band, gains in term_gains(moments, outputs).items():
                terms[self.bands.slices[band]] = gains
            if self.with_pairs:
                self._add_pairs(best, moments, outputs)
            if len(parts) == 1:
                self._kept = moments
        return Scores(terms, best)

    def _moments(
        self, name: str, pairs: Pairs, model: Model | None
    ) -> tuple[PairMoments, OutputMoments]:
        outputs = OutputMoments.empty(self.bands, pairs, self.outputs.shape[1])
        if self._kept is not None:
            self._run(name, pairs, model, [outputs])
            return self._kept, outputs
        moments = PairMoments.empty(self.bands, pairs)
        self._run(name, pairs, model, [moments, outputs])
        return moments, outputs

    def _run(
        self,
        name: str,
        pairs: Pairs,
        model: Model | None,
        sums: Sequence[PairMoments | OutputMoments],
    ) -> None:
        turns = [Turns(part.n_pieces) for part in sums]
        reader = _TermReader(self.standard, self.bands, self.labels, self.outputs, pairs, model)

        def work(tile: Tile) -> None:
            rows = reader.rows(tile)
            for part, turn in zip(sums, turns, strict=True):
                pieces: Iterator[Piece] = part.pieces(rows) if rows is not None else iter(())
                turn.add(part, tile.start_row // TILE_ROWS, pieces)

        self.labels.run(self.scanner, name, reader.exprs, work, lambda _: None)

    def _add_pairs(
        self, best: dict[str, BestPairs], moments: PairMoments, outputs: OutputMoments
    ) -> None:
        for k, (i, j) in enumerate(moments.pairs):
            rows, columns = self.bands.slices[i], self.bands.slices[j]
            plus, minus = sum_gains(moments, outputs, k, self.standard.scale)
            made = {"mul": product_gains(moments, outputs, k), "add": plus, "sub": minus}
            for operation, gains in made.items():
                gains[~self.allowed(operation, rows, columns)] = 0.0
                best[operation].update(gains, rows.start, columns.start)


def cut_passes(bands: Bands, n_outputs: int, allowance_bytes: int) -> list[Pairs]:
    """All pairs of bands in as few passes as the allowance lets, squares of neighbours together.

    Each pass has at least one pair, whatever the allowance.
    """
    for side in range(len(bands), 0, -1):
        squares = list(_squares(len(bands), side))
        costs = [sum(bands.pair_bytes(pair, n_outputs) for pair in square) for square in squares]
        if side == 1 or max(costs) <= allowance_bytes:
            return squares
    return []


def _squares(n_bands: int, side: int) -> Iterator[Pairs]:
    starts = range(0, n_bands, side)
    for a in starts:
        for b in starts[a // side :]:
            pairs = [
                (i, j)
                for i in range(a, min(a + side, n_bands))
                for j in range(max(b, i), min(b + side, n_bands))
            ]
            yield tuple(pairs)


class _TermReader:
    """Tiles to standardised bands of terms, for the bands that ``pairs`` touch."""

    def __init__(
        self,
        standard: Standard,
        bands: Bands,
        labels: Labels,
        outputs: Array,
        pairs: Pairs,
        model: Model | None,
    ) -> None:
        self._standard, self._bands, self._labels = standard, bands, labels
        self._location, self._scale = outputs[0, :, None], outputs[1, :, None]
        self._label = Program([labels.target.expr])
        touched = sorted({band for pair in pairs for band in pair})
        self._programs = {band: Program(standard.exprs[bands.slices[band]]) for band in touched}
        self._first = _representatives(bands, touched)
        self._model = model.active() if model is not None else None
        self.exprs = [e for program in self._programs.values() for e in program.exprs]
        if self._model is not None:
            self.exprs += self._model.standard.exprs

    def rows(self, tile: Tile) -> TileRows | None:
        """The tile's search rows; None where it has none."""
        outputs, blocks = self._labels.of(tile, self._label.run(tile.frame)[0])
        kept = np.flatnonzero((blocks >= 0) & (blocks < N_SEARCH))
        if len(kept) == 0:
            return None
        outputs = np.take(outputs, kept, axis=1)
        if self._model is not None:
            values = finalist_values(tile, self._model.standard, kept)
            outputs = self._model.residual(values, outputs)
        else:
            outputs = outputs - self._location
        known = np.zeros((self._bands.n_patterns, len(kept)), dtype=np.float32)
        known[-1] = 1.0
        made = {band: self._band(tile, band, kept, known) for band in self._programs}
        return TileRows(made, known, outputs / self._scale)

    def _band(self, tile: Tile, band: int, kept: NDArray[np.intp], known: AnyFloat) -> AnyFloat:
        rows = self._bands.slices[band]
        values = np.take(self._programs[band].run(tile.frame), kept, axis=1)
        for pattern, place in self._first.get(band, ()):
            known[pattern] = ~np.isnan(values[place])
        return self._standard.apply(values, rows).astype(self._bands.dtype(band))


def _representatives(bands: Bands, touched: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """By band: (pattern, place in the band) of the first term of each pattern."""
    made: dict[int, list[tuple[int, int]]] = {}
    seen: set[int] = set()
    for band in touched:
        for place, pattern in enumerate(bands.pattern[bands.slices[band]].tolist()):
            if pattern not in seen:
                seen.add(pattern)
                made.setdefault(band, []).append((pattern, place))
    return made


def finalist_values(tile: Tile, standard: Standard, kept: NDArray[np.intp]) -> Array:
    """Standardised values of ``standard``'s expressions on some rows, clipped to their range."""
    out = np.empty((len(standard.exprs), len(kept)))
    for rows, program in standard.programs:
        values = np.take(program.run(tile.frame), kept, axis=1)
        out[rows] = standard.apply(standard.clipped(values, rows), rows)
    return out


@dataclass(eq=False)
class Ranges:
    """Least and largest value of each expression, as a sum of one piece."""

    low: Array
    high: Array

    @classmethod
    def empty(cls, m: int) -> Ranges:
        return cls(np.full(m, np.inf), np.full(m, -np.inf))

    @property
    def nbytes(self) -> int:
        return self.low.nbytes + self.high.nbytes

    def update(self, values: Array) -> Ranges:
        """Add rows, shape (m, n), with NaN for null."""
        np.fmin(self.low, np.fmin.reduce(values, axis=1, initial=np.inf), out=self.low)
        np.fmax(self.high, np.fmax.reduce(values, axis=1, initial=-np.inf), out=self.high)
        return self

    def merge(self, other: Ranges) -> Ranges:
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        return self


def gram_pass(
    scanner: Scanner, name: str, standard: Standard, labels: Labels
) -> tuple[FoldGrams, Ranges]:
    """Grams of the features and the outputs by block, and the ranges over all blocks.

    Outside the search blocks, values are clipped to the range they had on them.
    """
    label, programs = Program([labels.target.expr]), programs_of(standard.exprs)
    m, q = len(standard.exprs), labels.target.n_outputs
    total, turns = FoldGrams.empty(m + q, N_BLOCKS), Turns(N_BLOCKS)

    def work(tile: Tile) -> Ranges:
        outputs, blocks = labels.of(tile, label.run(tile.frame)[0])
        kept = np.flatnonzero(blocks >= 0)
        columns, ranges = np.empty((m + q, len(kept))), []
        for rows, program in programs:
            values = np.take(program.run(tile.frame), kept, axis=1)
            ranges.append(Ranges.empty(len(values)).update(values))
            columns[rows] = standard.apply(standard.clipped(values, rows), rows)
        np.take(outputs, kept, axis=1, out=columns[m:])
        turns.add(total, tile.start_row // TILE_ROWS, total.pieces(columns, blocks[kept]))
        return Ranges(
            np.concatenate([r.low for r in ranges]), np.concatenate([r.high for r in ranges])
        )

    seen = Ranges.empty(m)
    labels.run(scanner, name, standard.exprs, work, seen.merge)
    return total, seen
