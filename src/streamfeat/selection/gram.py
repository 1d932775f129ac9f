"""Gram matrices per block: every split into training and test rows, without a row.

This module covers: accumulating products of features and outputs per block, sums over blocks.
This module does *not* cover: models (lasso, selector).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from streamfeat.selection.folds import Blocks
from streamfeat.selection.moments import AnyFloat, Array


@dataclass(frozen=True, eq=False)
class Gram:
    """Products over some rows of the columns [1, z_1, ..., z_K], shape (K + 1, K + 1)."""

    products: Array

    @property
    def n(self) -> float:
        return float(self.products[0, 0])

    @property
    def _n(self) -> float:
        """So that no rows have means of 0."""
        return max(self.n, 1e-300)

    @property
    def means(self) -> Array:
        return self.products[0, 1:] / self._n

    @property
    def covariance(self) -> Array:
        """Shape (K, K)."""
        return self.products[1:, 1:] / self._n - np.outer(self.means, self.means)

    def squared_error(self, weights: Array) -> float:
        """Sum over rows of (weights · [1, z])², never below 0."""
        return max(float(weights @ self.products @ weights), 0.0)


@dataclass(eq=False)
class FoldGrams:
    """One Gram per block over [1, z_1..z_K, y_1..y_q].

    Examples
    --------
    >>> grams = FoldGrams.empty(1, 2)
    >>> grams = grams.update(np.array([[1.0, 2.0, 3.0]]), np.array([0, 1, 1], dtype=np.int16))
    >>> grams.total([0, 1]).n, grams.total([1]).means
    (3.0, array([2.5]))
    """

    products: Array

    @classmethod
    def empty(cls, n_columns: int, n_blocks: int) -> FoldGrams:
        return cls(np.zeros((n_blocks, n_columns + 1, n_columns + 1)))

    @property
    def nbytes(self) -> int:
        return self.products.nbytes

    @property
    def rows(self) -> Array:
        """Rows per block."""
        return self.products[:, 0, 0]

    def pieces(self, Z: Array, blocks: Blocks) -> Iterator[tuple[int, Array]]:
        """What a tile adds to each block, by block; see ``add``."""
        order = np.argsort(blocks, kind="stable")
        ordered = blocks[order]
        rows = np.empty((Z.shape[0] + 1, Z.shape[1]))
        rows[0] = 1.0
        np.take(Z, order, axis=1, out=rows[1:])
        for block in np.unique(ordered[ordered >= 0]):
            start, stop = np.searchsorted(ordered, [block, block + 1])
            part = rows[:, start:stop]
            yield int(block), part @ part.T

    def add(self, piece: int, values: AnyFloat) -> None:
        """Add what a tile has of one block; tiles must come in their order."""
        self.products[piece] += values

    def update(self, Z: Array, blocks: Blocks) -> FoldGrams:
        """Add a tile: ``Z`` (K + q, n), no NaN; rows of block -1 are left out."""
        for piece, values in self.pieces(Z, blocks):
            self.add(piece, values)
        return self

    def merge(self, other: FoldGrams) -> FoldGrams:
        """Add the Grams of the tiles that follow."""
        for block in np.flatnonzero(other.rows):
            self.products[block] += other.products[block]
        return self

    def total(self, blocks: Iterable[int]) -> Gram:
        """The Gram of all rows in ``blocks``."""
        return Gram(self.products[list(blocks)].sum(axis=0))

    def block(self, number: int) -> Gram:
        return Gram(self.products[number])
