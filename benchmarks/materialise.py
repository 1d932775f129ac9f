"""Writing features: ours inside a budget against the same Polars expressions without one.

python benchmarks/materialise.py [FILE] [--rows 2] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from measure import FIXTURES, child, megabytes, print_table
from scaling import write_panel

FORMULAS = [
    f"{name}({column}, {window})"
    for name in ("rolling_mean", "rolling_std", "rolling_max", "pct_change")
    for column in ("close", "volume")
    for window in (5, 20)
] + ["close / rolling_mean(close, 20)", "log(volume)", "(close - open) / (high - low)"]

_OURS = """
import json, sys, time
job = json.loads(sys.argv[1])
import streamfeat.pipeline.run
from streamfeat.pipeline.recipe import Feature, Recipe
features = tuple(Feature(f, f, 0.0, None) for f in job["formulas"])
names = sorted({n for f in features for n in f.expr.inputs})
recipe = Recipe(features, {n: "number" for n in names}, group="symbol", time="timestamp")
started = time.perf_counter()
recipe.transform(job["source"], output=job["output"], memory=job["memory"], overwrite=True,
                 progress=False)
seconds = time.perf_counter() - started
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
print(json.dumps({"seconds": seconds, "peak": peak}))
"""

_POLARS = """
import json, sys, time
job = json.loads(sys.argv[1])
import polars as pl
from streamfeat.evaluate.polars_backend import select_polars
from streamfeat.plan.parse import parse
started = time.perf_counter()
frame = pl.scan_parquet(job["source"])
made = select_polars(frame, {f: parse(f) for f in job["formulas"]}, keys=["symbol", "timestamp"],
                     group="symbol", time="timestamp")
made.sink_parquet(job["output"], compression="zstd", compression_level=1)
seconds = time.perf_counter() - started
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default=FIXTURES / "sp500_sample.parquet", type=Path)
    parser.add_argument("--rows", type=float, default=2, help="millions")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", default="1GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        source = sorted_panel(arguments.file, Path(directory), int(arguments.rows * 1e6))
        job = {"source": str(source), "formulas": FORMULAS, "memory": arguments.memory}
        taken: dict[str, list[dict[str, float]]] = {"ours": [], "Polars": []}
        for _ in range(arguments.runs):
            for name, code in (("ours", _OURS), ("Polars", _POLARS)):
                job["output"] = str(Path(directory) / f"{name}.parquet")
                done = child([sys.executable, "-c", code, json.dumps(job)])
                if done.code:
                    raise SystemExit(done.error)
                taken[name].append(done.facts)
    seconds = {n: statistics.median(f["seconds"] for f in facts) for n, facts in taken.items()}
    rows = [
        (name, f"{seconds[name]:.2f} s", megabytes(max(f["peak"] for f in facts)))
        for name, facts in taken.items()
    ]
    print_table(("writer", "median time", "peak (VmHWM)"), rows)
    print(f"ours / Polars: {seconds['ours'] / seconds['Polars']:.2f}")


def sorted_panel(file: Path, directory: Path, n_rows: int) -> Path:
    import polars as pl

    raw, target = directory / "raw.parquet", directory / "sorted.parquet"
    write_panel(file, raw, n_rows)
    pl.read_parquet(raw).sort("symbol", "timestamp").write_parquet(target, row_group_size=122_880)
    return target


if __name__ == "__main__":
    main()
