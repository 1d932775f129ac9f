"""How often pure noise is chosen, and real signal found, on a real panel.

Noise of five kinds against real forward returns of S&P 500 names. Rows of a panel are not
independent: returns of one day move together, and slow features look like trends. Each run is a
search over ``--columns`` noise columns; a hit is a run with any feature chosen. "planted" adds what
predicts to the return itself: a column that explains the share of its variance given.

    python benchmarks/noise.py FILE [--runs 20] [--names 120]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

import streamfeat as sf

LEVEL = 0.05
HORIZONS = (1, 5, 20)
Shape = tuple[int, int, int]


def slow(rng: np.random.Generator, shape: Shape, phi: float = 0.99) -> np.ndarray:
    """AR(1) along the last axis."""
    z = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        z[..., t] = phi * z[..., t - 1] + np.sqrt(1 - phi**2) * z[..., t]
    return z


def market_wide(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    k, names, days = shape
    return np.repeat(slow(rng, (k, 1, days)), names, axis=1)


def fixed_effect(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    k, names, days = shape
    level = np.repeat(rng.normal(size=(k, names, 1)), days, axis=2)
    return level + 0.3 * slow(rng, shape, 0.9)


KINDS: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "i.i.d.": lambda rng, shape: rng.normal(size=shape),
    "AR(0.99) per symbol": slow,
    "market-wide": market_wide,
    "market-wide + own": lambda rng, shape: market_wide(rng, shape) + slow(rng, shape),
    "fixed effect per symbol": fixed_effect,
}


def panel(path: Path, n_names: int) -> pl.DataFrame:
    """Names with the full history, by symbol and time."""
    frame = pl.read_parquet(path).select("symbol", "timestamp", "close").drop_nulls()
    frame = frame.unique(subset=["symbol", "timestamp"], keep="first").sort("symbol", "timestamp")
    counts = frame.group_by("symbol").len()
    full = counts.filter(pl.col("len") == counts["len"].max())["symbol"].sort().to_list()
    return frame.filter(pl.col("symbol").is_in(full[:n_names]))


def chosen(frame: pl.DataFrame, target: object, columns: list[str]) -> sf.Recipe:
    return sf.fit(
        frame, target=target, time="timestamp", group="symbol", include=tuple(columns), steps=1,
        transformations=(), windows=(), level=LEVEL, progress=False, memory="4GB",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--names", type=int, default=120)
    parser.add_argument("--columns", type=int, default=8)
    given = parser.parse_args()
    frame = panel(given.file, given.names)
    n_names = frame["symbol"].n_unique()
    shape = (given.columns, n_names, len(frame) // n_names)
    columns = [f"z{k}" for k in range(given.columns)]
    print(
        f"{n_names} names, {shape[2]:,} days; runs with any feature of {given.runs}, level {LEVEL}"
    )
    print(f"{'noise':26}" + "".join(f"{f'h = {h}':>8}" for h in HORIZONS))
    for kind, make in KINDS.items():
        hits = []
        for horizon in HORIZONS:
            hit = 0
            for run in range(given.runs):
                Z = make(np.random.default_rng([run, horizon]), shape).reshape(given.columns, -1)
                noisy = frame.with_columns(
                    pl.Series(name, z) for name, z in zip(columns, Z, strict=True)
                )
                target = sf.forward_return("close", horizon)
                hit += bool(chosen(noisy, target, columns).features)
            hits.append(hit)
        print(f"{kind:26}" + "".join(f"{hit:8}" for hit in hits), flush=True)
    planted(frame, shape, columns, given.runs)


def planted(frame: pl.DataFrame, shape: Shape, columns: list[str], runs: int) -> None:
    """Next day's return, of which the first column knows something."""
    later = pl.col("close").shift(-1).over("symbol") / pl.col("close") - 1
    frame = frame.with_columns(r=later)
    spread = float(frame["r"].std())  # type: ignore[arg-type]
    print(f"{'planted, share explained':26}{'found':>8}{'others':>8}")
    for kind in ("i.i.d.", "market-wide"):
        for share in (0.001, 0.003, 0.01):
            found = others = 0
            for run in range(runs):
                rng = np.random.default_rng([run, 99])
                Z = KINDS[kind](rng, shape).reshape(shape[0], -1)
                signal = spread * np.sqrt(share) * Z[0] / Z[0].std()
                noisy = frame.with_columns(
                    pl.Series(name, z) for name, z in zip(columns, Z, strict=True)
                ).with_columns(y=pl.col("r") + pl.Series(signal))
                names = {f.name for f in chosen(noisy, "y", columns).features}
                found += "z0" in names
                others += bool(names - {"z0"})
            print(f"{f'{kind}, {share:.1%}':26}{found:8}{others:8}", flush=True)


if __name__ == "__main__":
    main()
