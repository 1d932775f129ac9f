"""Second-order moments of all pairs of terms, without forming a pair.

This module covers: cutting terms into bands, and accumulating A, S, C, P and b of every two bands.
This module does *not* cover: the scores made from them (screen).

With U (m x n) the terms, standardised, null as 0, M (g x n) the g different null patterns as 0 and
1, w the weights of the rows and y the numbers to predict:

    A = (wU) U'      S = (wU∘U)(U∘U)'      C = (wU∘U) U'      P_q = (wU∘y_q) U'
    (wU) M'          (wU∘U) M'             (wU∘y_q) M'        (wM) M', (wM∘y_q) M', (wM∘y_q²) M'

The products with M make every moment one over the rows where both terms of a pair are known. Terms
with the same null pattern share a row of M, so this costs little.

A *band* is a fixed run of terms. [U; U∘U] of one band times that of another is one matrix product,
and holds A, S and C both ways; a pass may take some pairs of bands and the next pass the others,
with the same bits. Bands are float32 (summed into float64) but for those of heavy-tailed terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
AnyFloat = NDArray[np.floating]

BAND_TERMS = 128
"""A product of two bands of 128 runs at nine tenths of the speed of a large one."""
_FLOAT_BYTES = 8


@dataclass(frozen=True, eq=False)
class Bands:
    """Terms cut into bands.

    Attributes
    ----------
    slices
        Which terms each band holds.
    heavy
        Whether a band is kept in float64.
    pattern
        The null pattern of each term, shape (m,).
    """

    slices: tuple[slice, ...]
    heavy: tuple[bool, ...]
    pattern: NDArray[np.intp]

    @classmethod
    def cut(cls, heavy: NDArray[np.bool_], pattern: NDArray[np.intp]) -> Bands:
        """Bands of terms in their order; ``heavy`` must be a run of False, then a run of True."""
        n_light = int(np.count_nonzero(~heavy))
        starts = [*range(0, n_light, BAND_TERMS), *range(n_light, len(heavy), BAND_TERMS)]
        limits = [*starts, len(heavy)]
        slices = tuple(slice(a, b) for a, b in pairwise(limits))
        return cls(slices, tuple(s.start >= n_light for s in slices), pattern)

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def n_patterns(self) -> int:
        """Null patterns, and as the last one that of a row of ones."""
        return int(self.pattern.max(initial=-1)) + 2

    def size(self, band: int) -> int:
        return self.slices[band].stop - self.slices[band].start

    def dtype(self, band: int) -> type[np.floating]:
        return np.float64 if self.heavy[band] else np.float32

    def pairs(self) -> list[tuple[int, int]]:
        """Every pair of bands, (i, j) with i <= j."""
        return list(combinations_with_replacement(range(len(self)), 2))

    def pair_bytes(self, pair: tuple[int, int], n_outputs: int) -> int:
        """What the moments of a pair of bands take."""
        return (4 + n_outputs) * self.size(pair[0]) * self.size(pair[1]) * _FLOAT_BYTES

    def side_bytes(self, n_outputs: int) -> int:
        """What the moments with the null patterns take."""
        g = self.n_patterns
        return ((2 + n_outputs) * len(self.pattern) + (1 + 2 * n_outputs) * g) * g * _FLOAT_BYTES


@dataclass(frozen=True, eq=False)
class TileRows:
    """Some rows of all terms.

    Attributes
    ----------
    bands
        Standardised values by band, shape (terms of the band, n), null as 0.
    known
        Shape (patterns, n): 1 where terms of the pattern are known; the last row is all 1.
    outputs
        Numbers to predict, shape (q, n).
    weights
        Shape (n,), or None: all 1.
    """

    bands: Mapping[int, AnyFloat]
    known: AnyFloat
    outputs: Array
    weights: Array | None = None

    def weighted(self, values: AnyFloat) -> AnyFloat:
        if self.weights is None:
            return values
        return values * self.weights.astype(values.dtype)

    def times_output(self, values: AnyFloat, q: int) -> AnyFloat:
        return self.weighted(values * self.outputs[q].astype(values.dtype))


Piece = tuple[int, AnyFloat]


@dataclass(eq=False)
class PairMoments:
    """A, S and C of pairs of bands, and the sums over the rows where another pattern is known.

    Attributes
    ----------
    pairs
        The pairs of bands that are held.
    products
        By pair: [U; U∘U] of the first times that of the second, shape (2a, 2b).
    sides
        By band: [U; U∘U] times M', shape (2a, g).
    counts
        Rows where both patterns are known, shape (g, g).
    """

    bands: Bands
    pairs: tuple[tuple[int, int], ...]
    products: list[Array]
    sides: dict[int, Array]
    counts: Array

    @classmethod
    def empty(cls, bands: Bands, pairs: Sequence[tuple[int, int]]) -> PairMoments:
        g = bands.n_patterns
        return cls(
            bands,
            tuple(pairs),
            [np.zeros((2 * bands.size(i), 2 * bands.size(j))) for i, j in pairs],
            {i: np.zeros((2 * bands.size(i), g)) for i in _touched(pairs)},
            np.zeros((g, g)),
        )

    @property
    def nbytes(self) -> int:
        arrays = (*self.products, *self.sides.values(), self.counts)
        return sum(a.nbytes for a in arrays)

    @property
    def n_pieces(self) -> int:
        return len(self.pairs) + len(self.sides) + 1

    def pieces(self, rows: TileRows) -> Iterator[Piece]:
        """What a tile adds, piece by piece, in a fixed order; see ``add``."""
        for k, (left, j) in enumerate(_stacked(self.pairs, rows)):
            yield k, left @ _with_squares(rows.bands[j]).T
        for k, i in enumerate(self.sides, len(self.pairs)):
            yield k, rows.weighted(_with_squares(rows.bands[i])) @ rows.known.T
        yield len(self.pairs) + len(self.sides), rows.weighted(rows.known) @ rows.known.T

    def add(self, piece: int, values: AnyFloat) -> None:
        """Add one piece of a tile; tiles must come in their order, piece for piece."""
        target = [*self.products, *self.sides.values(), self.counts][piece]
        target += values

    def update(self, rows: TileRows) -> PairMoments:
        """Add a tile."""
        for piece, values in self.pieces(rows):
            self.add(piece, values)
        return self

    def merge(self, other: PairMoments) -> PairMoments:
        """Add the moments of the tiles that follow."""
        for mine, its in zip(self.products, other.products, strict=True):
            mine += its
        for i, side in self.sides.items():
            side += other.sides[i]
        self.counts += other.counts
        return self


@dataclass(eq=False)
class OutputMoments:
    """The moments that involve what is to be predicted.

    Attributes
    ----------
    products
        P by pair of bands, shape (q, a, b).
    sides
        By band: (U∘y_q) times M', shape (q, a, g).
    sums, squares
        Of y_q over the rows where both patterns are known, shape (q, g, g).
    """

    pairs: tuple[tuple[int, int], ...]
    products: list[Array]
    sides: dict[int, Array]
    sums: Array
    squares: Array

    @classmethod
    def empty(cls, bands: Bands, pairs: Sequence[tuple[int, int]], n_outputs: int) -> OutputMoments:
        q, g = n_outputs, bands.n_patterns
        return cls(
            tuple(pairs),
            [np.zeros((q, bands.size(i), bands.size(j))) for i, j in pairs],
            {i: np.zeros((q, bands.size(i), g)) for i in _touched(pairs)},
            np.zeros((q, g, g)),
            np.zeros((q, g, g)),
        )

    @property
    def nbytes(self) -> int:
        arrays = (*self.products, *self.sides.values(), self.sums, self.squares)
        return sum(a.nbytes for a in arrays)

    @property
    def n_pieces(self) -> int:
        return len(self.pairs) + len(self.sides) + 2

    def pieces(self, rows: TileRows) -> Iterator[Piece]:
        """What a tile adds, piece by piece, in a fixed order; see ``add``."""
        outputs = range(len(rows.outputs))
        for k, (i, j) in enumerate(self.pairs):
            left, right = rows.bands[i], rows.bands[j]
            yield k, np.stack([rows.times_output(left, q) @ right.T for q in outputs])
        for k, i in enumerate(self.sides, len(self.pairs)):
            left = rows.bands[i]
            yield k, np.stack([rows.times_output(left, q) @ rows.known.T for q in outputs])
        last, known = len(self.pairs) + len(self.sides), rows.known.astype(np.float64)
        with_y = [rows.times_output(known, q) for q in outputs]
        yield last, np.stack([part @ known.T for part in with_y])
        squared = [part * rows.outputs[q] for q, part in enumerate(with_y)]
        yield last + 1, np.stack([part @ known.T for part in squared])

    def add(self, piece: int, values: AnyFloat) -> None:
        """Add one piece of a tile; tiles must come in their order, piece for piece."""
        target = [*self.products, *self.sides.values(), self.sums, self.squares][piece]
        target += values

    def update(self, rows: TileRows) -> OutputMoments:
        """Add a tile."""
        for piece, values in self.pieces(rows):
            self.add(piece, values)
        return self

    def merge(self, other: OutputMoments) -> OutputMoments:
        """Add the moments of the tiles that follow."""
        for mine, its in zip(self.products, other.products, strict=True):
            mine += its
        for i, side in self.sides.items():
            side += other.sides[i]
        self.sums += other.sums
        self.squares += other.squares
        return self


def _touched(pairs: Sequence[tuple[int, int]]) -> list[int]:
    return sorted({band for pair in pairs for band in pair})


def _with_squares(values: AnyFloat) -> AnyFloat:
    return np.concatenate((values, values * values))


def _stacked(pairs: Sequence[tuple[int, int]], rows: TileRows) -> Iterator[tuple[AnyFloat, int]]:
    """Pairs with the weighted stack of their first band, made once for pairs that follow."""
    made = -1
    left: AnyFloat = np.empty((0, 0))
    for i, j in pairs:
        if i != made:
            made, left = i, rows.weighted(_with_squares(rows.bands[i]))
        yield left, j
