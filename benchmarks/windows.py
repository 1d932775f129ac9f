"""Window kernels against Polars' rolling functions: nanoseconds for one value, in one run.

python benchmarks/windows.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from measure import print_table
from streamfeat.evaluate.program import Frame, Program
from streamfeat.plan.primitives import call

NAMES = ("rolling_mean", "rolling_std", "rolling_min", "rolling_max")
WINDOWS = (5, 10, 20, 60)
N_ROWS, N_RUNS = 131_072, 7


def nanoseconds(work: Callable[[], object], n_values: int) -> float:
    times = []
    for _ in range(N_RUNS + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / n_values * 1e9


def main() -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.lognormal(3, 1, N_ROWS) for name in "ab"}
    position = np.arange(N_ROWS) % 1259
    frame = Frame(columns, position, 0, N_ROWS)
    tiles = [frame.part(k, k + 8192, lookback=60) for k in range(0, N_ROWS, 8192)]
    data = pl.DataFrame({**columns, "g": np.arange(N_ROWS) // 1259})
    rows = []
    for name in NAMES:
        program = Program([call(name, c, params=(w,)) for c in columns for w in WINDOWS])
        whole = [getattr(pl.col(c), name)(w).alias(f"{c}{w}") for c in columns for w in WINDOWS]
        grouped = [expr.over("g") for expr in whole]
        n_values = N_ROWS * len(whole)
        ours = nanoseconds(lambda p=program: [p.run(tile) for tile in tiles], n_values)
        plain = nanoseconds(lambda e=whole: data.select(e), n_values)
        over = nanoseconds(lambda e=grouped: data.select(e), n_values)
        rows.append((name, f"{ours:.1f}", f"{plain:.1f}", f"{over:.1f}"))
    print_table(("ns a value", "ours, 1 thread", "Polars, ungrouped", "Polars, .over"), rows)


if __name__ == "__main__":
    main()
