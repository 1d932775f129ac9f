"""Scores of all pairs from moments alone.

This module covers: marginal R² of terms, incremental R² of products, gain of sums and differences,
and picking the best pairs.
This module does *not* cover: accumulating the moments (moments).

For p = u_i u_j the score is the R² that p adds to {1, u_i, u_j}: with covariances taken from the
moments, p and y are projected off (u_i, u_j) by a 2 x 2 system, and the squared covariance of what
is left is divided by its variances (Frisch and Waugh 1933; Lovell 1963). Centring is exact: the
pilot's location and scale need not be the data's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamfeat.selection.moments import Array, Moments, ResidualMoments

_SINGULAR = 1e-9
"""A projection that leaves less than this share of a variance is taken to leave nothing."""
_ROUNDING = 1e-13
"""A variance below this share of its mean square is taken to be rounding."""
_BLOCK_ROWS = 128
"""Rows of the score matrix formed at a time, so that temporaries stay small beside it."""


@np.errstate(over="ignore", invalid="ignore")
def term_scores(moments: Moments, residual: ResidualMoments | None = None) -> Array:
    """R² of each term alone, shape (m,), mean over the outputs."""
    target = residual or moments.target
    mean = moments.sums / moments.n
    variance = _variances(moments)
    covariance = _target_covariance(moments, target, mean)
    share = covariance**2 / _target_variance(target)
    return _ratio(share.mean(axis=1), variance)


@np.errstate(over="ignore", invalid="ignore")
def product_scores(moments: Moments, residual: ResidualMoments | None = None) -> Array:
    """R² that each product adds to its two terms, shape (m, m), upper triangle with diagonal.

    The diagonal holds squares, which are compared with the term alone.
    """
    m = len(moments.sums)
    scores = np.zeros((m, m))
    for rows in _row_blocks(m):
        block = _product_rows(moments, residual or moments.target, rows)
        scores[rows] = np.triu(block, k=rows.start)
    return scores


def _row_blocks(m: int) -> Iterator[slice]:
    for start in range(0, m, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, m))


def _product_rows(moments: Moments, target: ResidualMoments, rows: slice) -> Array:
    n = moments.n
    mean = moments.sums / n
    variance = _variances(moments)
    mean_i, mean_j = mean[rows, None], mean[None, :]
    v_i, v_j = variance[rows, None], variance[None, :]
    rho = moments.a[rows] / n
    w = rho - mean_i * mean_j
    k_i = moments.c[rows] / n - rho * mean_i
    k_j = moments.c.T[rows] / n - rho * mean_j
    square = moments.s[rows] / n
    own = square - rho**2
    along_i, along_j = _solve(v_i, v_j, w, k_i, k_j)
    left = own - along_i * k_i - along_j * k_j
    usable = left > np.maximum(_SINGULAR * own, _ROUNDING * square)
    total = np.zeros_like(left)
    covariance = _target_covariance(moments, target, mean)
    for q, variance_y in enumerate(_target_variance(target)):
        with_p = target.p[q][rows] / n - rho * (target.sums[q] / n)
        with_p -= along_i * covariance[rows, None, q] + along_j * covariance[None, :, q]
        total += with_p**2 / variance_y
    return np.where(usable, total / np.where(usable, left, 1.0), 0.0) / len(target.sums)


def _solve(v_i: Array, v_j: Array, w: Array, k_i: Array, k_j: Array) -> tuple[Array, Array]:
    """Coefficients of the projection on (u_i, u_j); on one of them where they are collinear."""
    determinant = v_i * v_j - w**2
    regular = determinant > _SINGULAR * v_i * v_j
    safe = np.where(regular, determinant, 1.0)
    alone_i = _ratio(k_i, np.broadcast_to(v_i, k_i.shape))
    alone_j = np.where(v_i > 0, 0.0, _ratio(k_j, np.broadcast_to(v_j, k_j.shape)))
    along_i = np.where(regular, (v_j * k_i - w * k_j) / safe, alone_i)
    along_j = np.where(regular, (v_i * k_j - w * k_i) / safe, alone_j)
    return along_i, along_j


@np.errstate(over="ignore", invalid="ignore")
def sum_scores(
    moments: Moments, scales: Array, residual: ResidualMoments | None = None
) -> tuple[Array, Array]:
    """Gain of x_i + x_j and of x_i - x_j over the better of the two, each (m, m), upper triangle.

    ``scales`` (m,) turn standardised terms into raw units, x = scale * u + constant.
    """
    m = len(moments.sums)
    single = term_scores(moments, residual)
    plus, minus = np.zeros((m, m)), np.zeros((m, m))
    for rows in _row_blocks(m):
        better = np.maximum(single[rows, None], single[None, :])
        for scores, sign in ((plus, 1.0), (minus, -1.0)):
            r2 = _sum_rows(moments, scales, residual or moments.target, rows, sign)
            scores[rows] = np.triu(np.maximum(r2 - better, 0.0), k=rows.start + 1)
    return plus, minus


def _sum_rows(
    moments: Moments, scales: Array, target: ResidualMoments, rows: slice, sign: float
) -> Array:
    """R² of x_i + sign * x_j for the terms ``rows`` with all."""
    mean = moments.sums / moments.n
    spread = scales**2 * _variances(moments)
    square = scales**2 * (np.diag(moments.a) / moments.n)
    cross = moments.a[rows] / moments.n - np.outer(mean[rows], mean)
    cross *= np.outer(scales[rows], scales)
    variance = spread[rows, None] + spread[None, :] + 2.0 * sign * cross
    least = _SINGULAR * (spread[rows, None] + spread[None, :])
    np.maximum(least, _ROUNDING * (square[rows, None] + square[None, :]), out=least)
    usable = variance > least
    covariance = scales[:, None] * _target_covariance(moments, target, mean)
    total = np.zeros_like(variance)
    variance_y = _target_variance(target)
    for q, unit in enumerate(variance_y):
        total += (covariance[rows, None, q] + sign * covariance[None, :, q]) ** 2 / unit
    return np.where(usable, total / np.where(usable, variance, 1.0), 0.0) / len(variance_y)


def _variances(moments: Moments) -> Array:
    """Variance of each term; 0 where only rounding is left."""
    square = np.diag(moments.a) / moments.n
    variance = square - (moments.sums / moments.n) ** 2
    return np.where(variance > _ROUNDING * square, variance, 0.0)


def _target_covariance(moments: Moments, target: ResidualMoments, mean: Array) -> Array:
    """Covariance of each term with each output, shape (m, q)."""
    return target.b / moments.n - np.outer(mean, target.sums / moments.n)


def _target_variance(target: ResidualMoments) -> Array:
    """Variance of each output; infinite where it is constant, so that nothing explains it."""
    square = target.squares / target.n
    variance = square - (target.sums / target.n) ** 2
    return np.where(variance > _ROUNDING * square, variance, np.inf)


def _ratio(top: Array, bottom: Array) -> Array:
    usable = bottom > 0
    return np.where(usable, top / np.where(usable, bottom, 1.0), 0.0)


def top_pairs(
    scores: Array, *, allowed: NDArray[np.bool_], count: int, per_term: int
) -> list[tuple[int, int, float]]:
    """The ``count`` best pairs (i, j, score), best first; a term occurs ``per_term`` times at most.

    Ties go to the smaller indices.

    Examples
    --------
    >>> scores = np.array([[0.1, 0.9], [0.0, 0.5]])
    >>> top_pairs(scores, allowed=np.ones((2, 2), bool), count=2, per_term=2)
    [(0, 1, 0.9), (1, 1, 0.5)]
    """
    flat = np.where(allowed & np.isfinite(scores), scores, 0.0).ravel()
    candidates = np.flatnonzero(flat > 0)
    order = candidates[np.lexsort((candidates, -flat[candidates]))]
    used: Counter[int] = Counter()
    chosen: list[tuple[int, int, float]] = []
    for place in order:
        if len(chosen) >= count:
            break
        i, j = divmod(int(place), scores.shape[1])
        if used[i] < per_term and used[j] < per_term:
            used.update({i, j})
            chosen.append((i, j, float(flat[place])))
    return chosen
