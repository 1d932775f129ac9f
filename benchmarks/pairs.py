"""Candidates times rows per second: the pair search against engines that evaluate each pair.

Ours scores every product (ratios are products with reciprocals) beyond its two terms, and every sum
and difference. The others evaluate the products of a sample of pairs and correlate each with the
target, nothing else; their rate is that of the sample. The matrix product has the shape and the
precision of one band by all: what this machine can do.

    python benchmarks/pairs.py [--terms 1024] [--rows 65536] [--sets 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import duckdb
import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from streamfeat.plan.candidates import count_pairs
from streamfeat.search.turns import Turns
from streamfeat.selection.moments import Bands, OutputMoments, PairMoments, TileRows
from streamfeat.selection.screen import BestPairs, product_gains, sum_gains

TILE = 8192
THREADS = 2
SAMPLE = 200


def ours(U: np.ndarray, y: np.ndarray) -> int:
    """Moments of all pairs by tiles on threads, then all gains; candidates scored."""
    m, n = U.shape
    bands = Bands.cut(np.zeros(m, dtype=bool), np.zeros(m, dtype=np.intp))
    pairs = bands.pairs()
    sums = (PairMoments.empty(bands, pairs), OutputMoments.empty(bands, pairs, 1))
    turns = [Turns(part.n_pieces) for part in sums]

    def work(number: int) -> None:
        part = slice(number * TILE, (number + 1) * TILE)
        made = {k: U[s, part] for k, s in enumerate(bands.slices)}
        rows = TileRows(made, np.ones((2, made[0].shape[1]), np.float32), y[None, part])
        for moments, turn in zip(sums, turns, strict=True):
            turn.add(moments, number, moments.pieces(rows))

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(n // TILE)))
        best, scales = BestPairs(1000), np.ones(m)
        for k, (i, j) in enumerate(pairs):
            for gains in (product_gains(*sums, k), *sum_gains(*sums, k, scales)):
                best.update(gains, bands.slices[i].start, bands.slices[j].start)
    return count_pairs(m)


def numpy_pairs(U: np.ndarray, y: np.ndarray) -> int:
    for k in range(SAMPLE):
        p = U[k] * U[-1 - k]
        np.dot(p - p.mean(), y) / (p.std() * len(p))
    return SAMPLE


def polars_pairs(U: np.ndarray, y: np.ndarray) -> int:
    frame = pl.DataFrame({f"u{k}": u for k, u in enumerate(U)}).with_columns(y=pl.Series(y))
    m = len(U)
    frame.lazy().select(
        pl.corr(pl.col(f"u{k}") * pl.col(f"u{m - 1 - k}"), "y").alias(str(k)) for k in range(SAMPLE)
    ).collect()
    return SAMPLE


def duckdb_pairs(U: np.ndarray, y: np.ndarray) -> int:
    frame = pl.DataFrame({f"u{k}": u for k, u in enumerate(U)}).with_columns(y=pl.Series(y))
    m = len(U)
    chosen = ", ".join(f"corr(u{k} * u{m - 1 - k}, y)" for k in range(SAMPLE))
    with duckdb.connect(config={"threads": THREADS}) as connection:
        connection.register("t", frame.to_arrow())
        connection.sql(f"SELECT {chosen} FROM t").fetchall()
    return SAMPLE


def gemm_seconds(U: np.ndarray) -> float:
    """Seconds of float32 products of 256 rows by all, on every thread, per floating operation."""
    m, n = U.shape

    def work(number: int) -> None:
        part = np.ascontiguousarray(U[:, number * TILE : (number + 1) * TILE])
        for start in range(0, m, 256):
            part[start : start + 256] @ part.T

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(n // TILE)))
        return (time.perf_counter() - started) / (2.0 * m * m * n)


def timed(work: Callable[[np.ndarray, np.ndarray], int], U: np.ndarray, y: np.ndarray) -> float:
    """Nanoseconds per candidate and row."""
    started = time.perf_counter()
    n_candidates = work(U, y)
    return (time.perf_counter() - started) / n_candidates / U.shape[1] * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--terms", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--sets", type=int, default=5)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    U = rng.standard_normal((chosen.terms, chosen.rows), dtype=np.float32)
    y = rng.standard_normal(chosen.rows)
    contenders = {
        "ours": ours, "NumPy": numpy_pairs, "Polars": polars_pairs, "DuckDB": duckdb_pairs,
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in contenders}
    shares = []
    for _ in range(chosen.sets):
        for name, work in contenders.items():
            times[name].append(timed(work, U, y))
        flops = 2.0 * (4 * 0.5 + 0.5) * chosen.terms**2 * chosen.rows  # A, C twice, S, P: halves
        seconds = times["ours"][-1] * count_pairs(chosen.terms) * chosen.rows / 1e9
        shares.append(gemm_seconds(U) * flops / seconds)
    print(f"{chosen.terms:,} terms, {chosen.rows:,} rows, medians of {chosen.sets}")
    print(f"{'':8} {'ns per candidate and row':>26} {'ours is faster':>15}")
    for name, seen in times.items():
        ratio = median(t / o for t, o in zip(seen, times["ours"], strict=True))
        print(f"{name:8} {median(seen):26.4f} {ratio:14.0f}x")
    print(f"share of the machine's float32 product rate: {median(shares):.0%}")


if __name__ == "__main__":
    main()
