"""Runs of the library in processes of their own, with their peak and wall time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).resolve().parent.parent / "data_fixtures"

_CHILD = """
import json, sys, time
job = json.loads(sys.argv[1])
import streamfeat as sf
started = time.perf_counter()
table = sf.fit_transform(job["source"], **job["options"])
seconds = time.perf_counter() - started
peak = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
print(json.dumps({
    "seconds": seconds, "peak": peak, "features": [f.formula for f in table.features],
    "score": table.report.score, "rows": table.report.n_rows,
    "candidates": table.report.n_candidates, "passes": list(table.report.passes),
}))
"""


@dataclass(frozen=True)
class Run:
    """What one process reported; ``code`` is its exit status."""

    code: int
    wall_seconds: float
    facts: dict[str, Any]
    error: str


def run(source: Path, *, cgroup_bytes: int | None = None, **options: Any) -> Run:
    """``fit_transform`` in a child process, inside a hard memory cgroup if asked."""
    job = json.dumps({"source": str(source), "options": {"progress": False, **options}})
    command = [sys.executable, "-c", _CHILD, job]
    return child(command, cgroup_bytes=cgroup_bytes)


def child(command: Sequence[str], *, cgroup_bytes: int | None = None) -> Run:
    """Run a command that prints one JSON object as its last line."""
    group = Cgroup(cgroup_bytes) if cgroup_bytes else None
    started = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=group.enter if group else None,
    )
    seconds = time.perf_counter() - started
    lines = done.stdout.strip().splitlines()
    facts = json.loads(lines[-1]) if done.returncode == 0 and lines else {}
    if group:
        facts["kills"] = group.kills()
        group.remove()
    return Run(done.returncode, seconds, facts, done.stderr[-2000:])


class Cgroup:
    """A version 1 memory cgroup with a hard limit; needs root."""

    def __init__(self, limit_bytes: int) -> None:
        self._path = Path(f"/sys/fs/cgroup/memory/streamfeat-{os.getpid()}-{time.monotonic_ns()}")
        self._path.mkdir()
        (self._path / "memory.limit_in_bytes").write_text(str(limit_bytes))

    def enter(self) -> None:
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> int:
        control = (self._path / "memory.oom_control").read_text().split()
        return int(control[control.index("oom_kill") + 1])

    def remove(self) -> None:
        self._path.rmdir()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.0f} MB"


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(map(str, header)), *([*map(str, row)] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
