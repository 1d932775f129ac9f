"""Seconds per row at 2 and 20 million rows inside 1 GB.

python benchmarks/scaling.py [FILE] [--rows 2 20] [--memory 1GB]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from measure import FIXTURES, megabytes, print_table, run

PRICES = ("open", "high", "low", "close")


def write_panel(file: Path, target: Path, n_rows: int, *, row_group_rows: int = 122_880) -> None:
    """The symbols of ``file`` over and over under new names, prices with 0.1 % noise."""
    base = pl.read_parquet(file)
    writer = None
    for copy in range(-(-n_rows // base.height)):
        rng = np.random.default_rng(copy)
        part = base.with_columns(
            pl.col("symbol") + f".{copy:03d}",
            *(pl.col(c) * (1 + 1e-3 * rng.standard_normal(base.height)) for c in PRICES),
        ).head(n_rows - copy * base.height)
        table = part.to_arrow()
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=row_group_rows)
    if writer:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default=FIXTURES / "sp500_sample.parquet", type=Path)
    parser.add_argument("--rows", nargs="+", type=float, default=[2, 20], help="millions")
    parser.add_argument("--memory", default="1GB")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for millions in arguments.rows:
            source = Path(directory) / "panel.parquet"
            write_panel(arguments.file, source, int(millions * 1e6))
            output = str(Path(directory) / "out.parquet")
            done = run(
                source, memory=arguments.memory, output=output, min_features=5, overwrite=True
            )
            facts = done.facts
            if done.code:
                print(done.error)
                continue
            passes = ", ".join(f"{name} {seconds:.0f}" for name, seconds in facts["passes"])
            rows.append(
                (
                    f"{facts['rows']:,}",
                    megabytes(source.stat().st_size),
                    f"{facts['seconds']:.1f} s",
                    f"{facts['seconds'] / facts['rows'] * 1e6:.2f}",
                    megabytes(facts["peak"]),
                    passes,
                )
            )
    print_table(("rows", "file", "time", "us a row", "peak (VmHWM)", "seconds by pass"), rows)


if __name__ == "__main__":
    main()
