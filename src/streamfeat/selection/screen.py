"""Scores of all pairs from moments alone.

This module covers: what a term explains, what a product, a sum or a difference explains beyond its
two terms, and keeping the best pairs.
This module does *not* cover: accumulating the moments (moments).

For p = u_i u_j the gain is what p explains of y beyond {1, u_i, u_j}: with covariances taken from
the moments, p and y are projected off (u_i, u_j) by a 2 x 2 system, and the squared covariance of
what is left is divided by the variance of p that is left (Frisch and Waugh 1933; Lovell 1963).
Everything is over the rows where both terms are known; gains are shares of the variance that y has
over all rows (y comes standardised), so pairs with few known rows explain little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.selection.moments import Array, OutputMoments, PairMoments

_LIGHT_SINGULAR = 1e-5
_HEAVY_SINGULAR = 1e-9
"""A projection that leaves less than this share of a variance is taken to leave nothing."""
_ROUNDING = 1e-13
"""A variance below this share of its mean square is taken to be rounding."""
_LEAST_ROWS = 8
"""Pairs known together on fewer rows have no score."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two bands over the rows where both terms of a pair are known; matrices of shape (a, b).

    ``mean_i`` is the mean of u_i over those rows, ``covariance_i[q]`` that of u_i with y_q.
    """

    n: Array
    mean_i: Array
    mean_j: Array
    variance_i: Array
    variance_j: Array
    rho: Array
    square_i_j: Array
    i_square_j: Array
    square: Array
    products: Array
    covariance_i: Array
    covariance_j: Array
    output_mean: Array
    singular: float


def _pair(moments: PairMoments, outputs: OutputMoments, k: int) -> _Pair:
    i, j = moments.pairs[k]
    bands = moments.bands
    a, b = bands.size(i), bands.size(j)
    pattern_i, pattern_j = bands.pattern[bands.slices[i]], bands.pattern[bands.slices[j]]
    grid = np.ix_(pattern_i, pattern_j)
    n = np.maximum(moments.counts[grid], 1.0)
    side_i, side_j = moments.sides[i][:, pattern_j] / _twice(n), _side_j(moments, j, pattern_i, n)
    mean_i, mean_j = side_i[:a], side_j[:b].T
    block = moments.products[k]
    output_mean = np.stack([sums[grid] for sums in outputs.sums]) / n
    with_i = outputs.sides[i][:, :, pattern_j] / n
    with_j = outputs.sides[j][:, :, pattern_i].transpose(0, 2, 1) / n
    heavy = bands.heavy[i] and bands.heavy[j]
    return _Pair(
        n=moments.counts[grid],
        mean_i=mean_i,
        mean_j=mean_j,
        variance_i=_variance(side_i[a:], mean_i),
        variance_j=_variance(side_j[b:].T, mean_j),
        rho=block[:a, :b] / n,
        square_i_j=block[a:, :b] / n,
        i_square_j=block[:a, b:] / n,
        square=block[a:, b:] / n,
        products=outputs.products[k] / n,
        covariance_i=with_i - mean_i * output_mean,
        covariance_j=with_j - mean_j * output_mean,
        output_mean=output_mean,
        singular=_HEAVY_SINGULAR if heavy else _LIGHT_SINGULAR,
    )


def _twice(n: Array) -> Array:
    return np.concatenate((n, n))


def _side_j(moments: PairMoments, j: int, pattern_i: NDArray[np.intp], n: Array) -> Array:
    return moments.sides[j][:, pattern_i] / _twice(n.T)


def _variance(square: Array, mean: Array) -> Array:
    """0 where only rounding is left."""
    variance = square - mean**2
    return np.where(variance > _ROUNDING * square, variance, 0.0)


@np.errstate(over="ignore", invalid="ignore")
def term_gains(moments: PairMoments, outputs: OutputMoments) -> dict[int, Array]:
    """What each term of the bands held explains of y alone, by band, mean over the outputs."""
    total = _total(moments)
    made = {}
    for band, side in moments.sides.items():
        pattern = moments.bands.pattern[moments.bands.slices[band]]
        place = np.arange(len(pattern))
        n = np.maximum(moments.counts[pattern, pattern], 1.0)
        mean = side[place, pattern] / n
        variance = _variance(side[len(pattern) + place, pattern] / n, mean)
        output_mean = outputs.sums[:, pattern, pattern] / n
        covariance = outputs.sides[band][:, place, pattern] / n - mean * output_mean
        explained = _ratio((covariance**2).mean(axis=0), variance)
        made[band] = explained * (moments.counts[pattern, pattern] / total)
    return made


def _total(moments: PairMoments) -> float:
    """Rows seen, or their weight."""
    return max(float(moments.counts[-1, -1]), 1e-300)


@np.errstate(over="ignore", invalid="ignore")
def product_gains(moments: PairMoments, outputs: OutputMoments, k: int) -> Array:
    """What each product of pair ``k`` of bands explains beyond its two terms, shape (a, b).

    On a diagonal pair of bands only the upper triangle is filled; its diagonal holds squares, which
    are compared with the term alone.
    """
    p = _pair(moments, outputs, k)
    w = p.rho - p.mean_i * p.mean_j
    k_i = p.square_i_j - p.rho * p.mean_i
    k_j = p.i_square_j - p.rho * p.mean_j
    own = p.square - p.rho**2
    along_i, along_j = _solve(p.variance_i, p.variance_j, w, k_i, k_j, p.singular)
    left = own - along_i * k_i - along_j * k_j
    usable = left > np.maximum(p.singular * own, _ROUNDING * p.square)
    covariance = p.products - p.rho * p.output_mean
    covariance = covariance - along_i * p.covariance_i - along_j * p.covariance_j
    explained = _over((covariance**2).mean(axis=0), left, usable)
    return _upper(moments, k, _known(moments, p, explained), 0)


@np.errstate(over="ignore", invalid="ignore")
def sum_gains(
    moments: PairMoments, outputs: OutputMoments, k: int, scales: Array
) -> tuple[Array, Array]:
    """What x_i + x_j and x_i - x_j explain more than the better of the two, each (a, b).

    ``scales`` (m,) turn standardised terms into raw units, x = scale * u + constant.
    """
    p = _pair(moments, outputs, k)
    i, j = moments.pairs[k]
    scale_i = scales[moments.bands.slices[i], None]
    scale_j = scales[None, moments.bands.slices[j]]
    spread_i, spread_j = scale_i**2 * p.variance_i, scale_j**2 * p.variance_j
    cross = 2.0 * scale_i * scale_j * (p.rho - p.mean_i * p.mean_j)
    alone_i = _ratio((p.covariance_i**2).mean(axis=0), p.variance_i)
    alone_j = _ratio((p.covariance_j**2).mean(axis=0), p.variance_j)
    better = np.maximum(alone_i, alone_j)
    made = []
    for sign in (1.0, -1.0):
        variance = spread_i + spread_j + sign * cross
        usable = variance > p.singular * (spread_i + spread_j)
        covariance = scale_i * p.covariance_i + sign * scale_j * p.covariance_j
        explained = _over((covariance**2).mean(axis=0), variance, usable)
        gain = np.maximum(explained - better, 0.0)
        made.append(_upper(moments, k, _known(moments, p, gain), 1))
    return made[0], made[1]


def _known(moments: PairMoments, p: _Pair, explained: Array) -> Array:
    share = np.where(p.n >= _LEAST_ROWS, p.n / _total(moments), 0.0)
    return np.nan_to_num(explained * share, nan=0.0, posinf=0.0, neginf=0.0)


def _upper(moments: PairMoments, k: int, gains: Array, diagonal: int) -> Array:
    i, j = moments.pairs[k]
    return np.triu(gains, diagonal) if i == j else gains


def _solve(
    v_i: Array, v_j: Array, w: Array, k_i: Array, k_j: Array, singular: float
) -> tuple[Array, Array]:
    """Coefficients of the projection on (u_i, u_j); on one of them where they are collinear."""
    determinant = v_i * v_j - w**2
    regular = determinant > singular * v_i * v_j
    safe = np.where(regular, determinant, 1.0)
    alone_j = np.where(v_i > 0, 0.0, _ratio(k_j, v_j))
    along_i = np.where(regular, (v_j * k_i - w * k_j) / safe, _ratio(k_i, v_i))
    along_j = np.where(regular, (v_i * k_j - w * k_i) / safe, alone_j)
    return along_i, along_j


def _ratio(top: Array, bottom: Array) -> Array:
    return _over(top, bottom, bottom > 0)


def _over(top: Array, bottom: Array, usable: NDArray[np.bool_]) -> Array:
    return np.where(usable, top / np.where(usable, bottom, 1.0), 0.0)


@dataclass(eq=False)
class BestPairs:
    """The best pairs of terms seen so far; ties go to the smaller indices.

    Examples
    --------
    >>> best = BestPairs(2).update(np.array([[0.1, 0.9], [0.0, 0.5]]), 0, 0)
    >>> list(best)
    [(0, 1, 0.9), (1, 1, 0.5)]
    """

    count: int
    _gains: Array
    _places: NDArray[np.int64]

    def __init__(self, count: int) -> None:
        self.count = count
        self._gains = np.empty(0)
        self._places = np.empty((0, 2), dtype=np.int64)

    @property
    def nbytes(self) -> int:
        return self._gains.nbytes + self._places.nbytes

    def update(self, gains: Array, first_row: int, first_column: int) -> BestPairs:
        """Add a block of gains whose corner is the pair (first_row, first_column)."""
        least = self._gains[-1] if len(self._gains) == self.count else 0.0
        rows, columns = np.nonzero((gains > 0) & (gains >= least))
        own = gains[rows, columns]
        if len(own) > 4 * self.count:  # what cannot be among the best need not be sorted
            least = np.partition(own, len(own) - self.count)[len(own) - self.count]
            kept = own >= least
            rows, columns, own = rows[kept], columns[kept], own[kept]
        places = np.column_stack((rows + first_row, columns + first_column)).astype(np.int64)
        return self._keep(
            np.concatenate((self._gains, own)), np.concatenate((self._places, places))
        )

    def merge(self, other: BestPairs) -> BestPairs:
        """Add the best of another part."""
        return self._keep(
            np.concatenate((self._gains, other._gains)),
            np.concatenate((self._places, other._places)),
        )

    def _keep(self, gains: Array, places: NDArray[np.int64]) -> BestPairs:
        order = np.lexsort((places[:, 1], places[:, 0], -gains))[: self.count]
        self._gains, self._places = gains[order], places[order]
        return self

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        for (i, j), gain in zip(self._places.tolist(), self._gains.tolist(), strict=True):
            yield i, j, gain


def spread_out(
    ranked: BestPairs, *, count: int, per_term: int, wanted: Callable[[int, int], bool]
) -> list[tuple[int, int, float]]:
    """The first ``count`` pairs that are wanted, no term in more than ``per_term`` of them.

    >>> best = BestPairs(3).update(np.array([[0.3, 0.9], [0.0, 0.5]]), 0, 0)
    >>> spread_out(best, count=2, per_term=2, wanted=lambda i, j: i != j)
    [(0, 1, 0.9)]
    """
    used: Counter[int] = Counter()
    chosen: list[tuple[int, int, float]] = []
    for i, j, gain in ranked:
        if len(chosen) == count:
            break
        if used[i] < per_term and used[j] < per_term and wanted(i, j):
            used.update({i, j})
            chosen.append((i, j, gain))
    return chosen
