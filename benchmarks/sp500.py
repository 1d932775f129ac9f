"""End to end on a daily panel: time, peak, and equal bytes whatever the surroundings.

python benchmarks/sp500.py [FILE] [--cgroup]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from measure import FIXTURES, digest, megabytes, print_table, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default=FIXTURES / "sp500_sample.parquet", type=Path)
    parser.add_argument("--cgroup", action="store_true", help="hard limit equal to the budget")
    parser.add_argument("--min-features", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report(arguments.file, Path(directory), arguments.cgroup, arguments.min_features)


def report(file: Path, directory: Path, cgroup: bool, min_features: int) -> None:
    rewritten = directory / "rewritten.parquet"
    pq.write_table(pq.read_table(file), rewritten, row_group_size=10_007)
    cases = [
        ("512 MB, 2 threads", file, 512_000_000, 2),
        ("512 MB, 1 thread", file, 512_000_000, 1),
        ("1 GB, 2 threads", file, 1_000_000_000, 2),
        ("16 GB, 2 threads", file, 16_000_000_000, 2),
        ("512 MB, row groups of 10,007", rewritten, 512_000_000, 2),
    ]
    rows = []
    for number, (name, source, memory, threads) in enumerate(cases):
        output = directory / f"{number}.parquet"
        done = run(
            source,
            cgroup_bytes=memory if cgroup and memory < 2e9 else None,
            memory=memory,
            threads=threads,
            output=str(output),
            min_features=min_features,
        )
        if done.code:
            rows.append((name, f"exit {done.code}", "", "", "", done.error.splitlines()[-1:]))
            continue
        facts = done.facts
        rows.append(
            (
                name,
                f"{facts['seconds']:.1f} s",
                megabytes(facts["peak"]),
                facts.get("kills", ""),
                len(facts["features"]),
                digest(output)[:16],
            )
        )
    print_table(("case", "time", "peak (VmHWM)", "kills", "features", "SHA-256 of output"), rows)


if __name__ == "__main__":
    main()
