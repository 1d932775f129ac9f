"""Second-order moments of all pairs of terms, without forming a pair.

This module covers: accumulating A, S, C, P and b over tiles, and merging.
This module does *not* cover: the scores made from them (screen).

With U (m x n) the terms, standardised by a pilot, and y the numbers to predict:

    A = U U'        S = (U∘U)(U∘U)'        C = (U∘U) U'        P_q = (U∘y_q) U'        b = U Y'

A, S and P are symmetric, C is not. Nulls enter as 0, the pilot's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(eq=False)
class ResidualMoments:
    """The moments that involve what is to be predicted: P, b and its sums.

    Shapes: ``p`` (q, m, m), ``b`` (m, q), ``sums`` (q,), ``squares`` (q,).
    """

    n: int
    p: Array
    b: Array
    sums: Array
    squares: Array

    @classmethod
    def empty(cls, n_terms: int, n_targets: int) -> ResidualMoments:
        return cls(
            0,
            np.zeros((n_targets, n_terms, n_terms)),
            np.zeros((n_terms, n_targets)),
            np.zeros(n_targets),
            np.zeros(n_targets),
        )

    @property
    def nbytes(self) -> int:
        return self.p.nbytes + self.b.nbytes + self.sums.nbytes + self.squares.nbytes

    def update(self, U: Array, Y: Array) -> ResidualMoments:
        """Add a tile: ``U`` (m, n) and ``Y`` (q, n), no NaN."""
        self.n += U.shape[1]
        for k, y in enumerate(Y):
            self.p[k] += (U * y) @ U.T
        self.b += U @ Y.T
        self.sums += Y.sum(axis=1)
        self.squares += (Y * Y).sum(axis=1)
        return self

    def merge(self, other: ResidualMoments) -> ResidualMoments:
        self.n += other.n
        self.p += other.p
        self.b += other.b
        self.sums += other.sums
        self.squares += other.squares
        return self


@dataclass(eq=False)
class Moments:
    """All moments of a screen; shapes (m, m), ``sums`` (m,).

    Examples
    --------
    >>> U, Y = np.array([[1.0, -1.0], [2.0, 0.0]]), np.array([[1.0, 0.0]])
    >>> Moments.empty(2, 1).update(U, Y).a
    array([[2., 2.],
           [2., 4.]])
    """

    n: int
    sums: Array
    a: Array
    s: Array
    c: Array
    target: ResidualMoments

    @classmethod
    def empty(cls, n_terms: int, n_targets: int) -> Moments:
        square = (n_terms, n_terms)
        return cls(
            0,
            np.zeros(n_terms),
            np.zeros(square),
            np.zeros(square),
            np.zeros(square),
            ResidualMoments.empty(n_terms, n_targets),
        )

    @property
    def nbytes(self) -> int:
        own = self.sums.nbytes + self.a.nbytes + self.s.nbytes + self.c.nbytes
        return own + self.target.nbytes

    def update(self, U: Array, Y: Array) -> Moments:
        """Add a tile: ``U`` (m, n) standardised terms, ``Y`` (q, n), no NaN."""
        squared = U * U
        self.n += U.shape[1]
        self.sums += U.sum(axis=1)
        self.a += U @ U.T
        self.s += squared @ squared.T
        self.c += squared @ U.T
        self.target.update(U, Y)
        return self

    def merge(self, other: Moments) -> Moments:
        """Add the moments of the tiles that follow."""
        self.n += other.n
        self.sums += other.sums
        self.a += other.a
        self.s += other.s
        self.c += other.c
        self.target.merge(other.target)
        return self
