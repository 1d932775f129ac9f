"""Gains of all pairs as whole matrices, for tests that have few terms."""

from __future__ import annotations

import numpy as np

from streamfeat.selection.moments import Array, Bands, OutputMoments, PairMoments, TileRows
from streamfeat.selection.screen import (
    BestPairs,
    product_gains,
    spread_out,
    sum_gains,
    term_gains,
)

Both = tuple[PairMoments, OutputMoments]


def bands_of(U: Array, *, heavy: bool = True) -> tuple[Bands, Array]:
    """Bands of terms, and what is known of each null pattern, with a row of ones."""
    patterns: dict[bytes, int] = {}
    pattern = [patterns.setdefault(np.isnan(u).tobytes(), len(patterns)) for u in U]
    known = np.ones((len(patterns) + 1, U.shape[1]))
    for u, k in zip(U, pattern, strict=True):
        known[k] = ~np.isnan(u)
    return Bands.cut(np.full(len(U), heavy), np.array(pattern, dtype=np.intp)), known


def empty(bands: Bands, n_outputs: int) -> Both:
    pairs = bands.pairs()
    return PairMoments.empty(bands, pairs), OutputMoments.empty(bands, pairs, n_outputs)


def rows_of(bands: Bands, U: Array, known: Array, Y: Array, w: Array | None = None) -> TileRows:
    filled = np.nan_to_num(U)
    made = {k: filled[s].astype(bands.dtype(k)) for k, s in enumerate(bands.slices)}
    return TileRows(made, known, Y, w)


def moments_of(
    U: Array, Y: Array, *, heavy: bool = True, tile: int = 97, weights: Array | None = None
) -> Both:
    bands, known = bands_of(U, heavy=heavy)
    made = empty(bands, len(Y))
    for k in range(0, U.shape[1], tile):
        part = slice(k, k + tile)
        w = None if weights is None else weights[part]
        rows = rows_of(bands, U[:, part], known[:, part], Y[:, part], w)
        for moments in made:
            moments.update(rows)
    return made


def terms(both: Both) -> Array:
    return np.concatenate([gains for _, gains in sorted(term_gains(*both).items())])


def _whole(moments: PairMoments, blocks: list[Array]) -> Array:
    slices, m = moments.bands.slices, len(moments.bands.pattern)
    whole = np.zeros((m, m))
    for (i, j), gains in zip(moments.pairs, blocks, strict=True):
        whole[slices[i], slices[j]] = gains
    return whole


def products(both: Both) -> Array:
    return _whole(both[0], [product_gains(*both, k) for k in range(len(both[0].pairs))])


def sums(both: Both, scales: Array) -> tuple[Array, Array]:
    made = [sum_gains(*both, k, scales) for k in range(len(both[0].pairs))]
    return _whole(both[0], [m[0] for m in made]), _whole(both[0], [m[1] for m in made])


def best_pairs(gains: Array, *, count: int, per_term: int) -> list[tuple[int, int, float]]:
    ranked = BestPairs(gains.size).update(gains, 0, 0)
    return spread_out(ranked, count=count, per_term=per_term, wanted=lambda i, j: True)
