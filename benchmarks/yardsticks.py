"""Public cries for help, run: the shapes that ended other tools, inside 2 GB, on every row.

J1-J5 are issues of autofeat and OpenFE. Columns are those of real bars, drawn again at random and
perturbed; the target is a ratio and a product of some of them, with noise. Writing the input is not
timed.

    python benchmarks/yardsticks.py [J1 J2 J3 J4 J4b J5] [--directory DIR]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from measure import FIXTURES, child

PART = 200_000
_CHILD = """
import json, sys, time
import streamfeat as sf
started = time.perf_counter()
table = sf.fit_transform(sys.argv[1], target="y", memory="2GB", output=sys.argv[1] + ".features",
                         overwrite=True, progress=False)
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak,
                  "candidates": table.report.n_candidates, "score": table.report.score}))
"""


@dataclass(frozen=True)
class Case:
    """Rows, columns, and what is asked."""

    n_rows: int
    n_columns: int
    asked: str
    classes: bool = False


CASES = {
    "J1": Case(48_573, 83, "autofeat #3"),
    "J2": Case(501, 95, "autofeat #24"),
    "J3": Case(200_000, 200, "autofeat #15, classification", classes=True),
    "J4": Case(570_000, 200, "OpenFE #39"),
    "J4b": Case(7_000, 140, "OpenFE #39"),
    "J5": Case(49_810_800, 5, "OpenFE #26"),
}


def real_columns() -> np.ndarray:
    """Shapes of real bars: changes, ranges, volumes, levels; (rows, 8)."""
    table = pq.read_table(FIXTURES / "sp500_sample.parquet")
    o, h, lo, c, v = (
        table.column(name).to_numpy().astype(float)
        for name in ("open", "high", "low", "close", "volume")
    )
    with np.errstate(all="ignore"):
        made = np.column_stack(
            [c, v, h / lo, c / o, np.log(v), (c - lo) / (h - lo), v * c, np.log(c)]
        )
    return made[np.isfinite(made).all(axis=1)]


def write(path: Path, case: Case) -> None:
    real, rng = real_columns(), np.random.default_rng(0)
    spread = real.std(axis=0)
    writer = None
    for start in range(0, case.n_rows, PART):
        n = min(PART, case.n_rows - start)
        columns = {}
        for k in range(case.n_columns):
            j = k % real.shape[1]
            drawn = real[rng.integers(0, len(real), n), j]
            columns[f"c{k:03d}"] = drawn + 0.05 * spread[j] * rng.normal(size=n)
        a, b, c, d = (columns[f"c{k:03d}"] for k in range(4))
        y = a / c / spread[0] + b * d / spread[1] + rng.normal(size=n)
        columns["y"] = (y > 2.5).astype(float) if case.classes else y
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=65_536)
    assert writer is not None
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    print(f"{'':4} {'asked in':30} {'rows':>11} {'columns':>8} {'candidates':>11} "
          f"{'seconds':>8} {'peak MB':>8} {'R2':>6}")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        for name in given.cases:
            case, path = CASES[name], Path(directory) / f"{name}.parquet"
            write(path, case)
            done = child([sys.executable, "-c", _CHILD, str(path)])
            if done.code:
                raise SystemExit(f"{name}: {done.error}")
            facts = done.facts
            score = "none" if facts["score"] is None else f"{facts['score']:.3f}"
            print(f"{name:4} {case.asked:30} {case.n_rows:11,} {case.n_columns:8} "
                  f"{facts['candidates']:11,} {facts['seconds']:8.1f} {facts['peak'] / 1e6:8.0f} "
                  f"{score:>6}", flush=True)  # fmt: skip
            path.unlink()


if __name__ == "__main__":
    main()
