"""What the process, its container and the machine have: the only place that measures.

This module covers: resident and peak bytes, cgroup and rlimit ceilings, the budget made of them,
and giving free heap back to the system.
This module does *not* cover: watching over time (monitor).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil

from streamfeat.memory.models import format_bytes, parse_bytes

resource: ModuleType | None
try:
    import resource
except ImportError:  # not on Windows
    resource = None

DEFAULT_SHARE = 0.6
"""Of what is free, where nobody said how much to use."""
_UNLIMITED_BYTES = 1 << 60
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_M_ARENA_MAX = -8


class _Statm:
    """An open /proc/self/statm, opened again after a fork."""

    def __init__(self) -> None:
        self._pid, self._handle = 0, -1
        self._lock = threading.Lock()

    def resident_bytes(self) -> int:
        if self._pid != os.getpid():
            with self._lock:
                self._handle = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
                self._pid = os.getpid()
        return int(os.pread(self._handle, 128, 0).split()[1]) * _PAGE_BYTES


_STATM = _Statm()
_HAS_PROC = Path("/proc/self/statm").exists()


def process_bytes() -> int:
    """Resident bytes of this process, in about a microsecond."""
    return _STATM.resident_bytes() if _HAS_PROC else int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most this process ever held (VmHWM); elsewhere what it holds now."""
    if not _HAS_PROC:
        return process_bytes()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return process_bytes()


def cgroup_limit_bytes(root: Path = Path("/")) -> int | None:
    """The least memory limit of this process's cgroups, version 1 and 2, ancestors included."""
    limits = [
        _number(directory / name)
        for directory, name in _cgroup_files(root, "memory.limit_in_bytes", "memory.max")
    ]
    known = [limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES]
    return min(known, default=None)


def cgroup_used_bytes(root: Path = Path("/")) -> int | None:
    """What the process's own cgroup holds without page cache."""
    for directory, _ in _cgroup_files(root, "memory.limit_in_bytes", "memory.max"):
        stat = _stat(directory / "memory.stat")
        if stat:
            return stat.get("total_rss", stat.get("rss", stat.get("anon")))
    return None


def _cgroup_files(root: Path, v1: str, v2: str) -> list[tuple[Path, str]]:
    """(directory, file name) of the process's memory cgroups, innermost first."""
    found: list[tuple[Path, str]] = []
    for mount, inside, name in _mounts(root, v1, v2):
        directory = mount / inside.strip("/")
        if not directory.exists():  # a namespace shows the container's own group at the mount
            directory = mount
        while True:
            found.append((directory, name))
            if directory == mount:
                break
            directory = directory.parent
    return found


def _mounts(root: Path, v1: str, v2: str) -> list[tuple[Path, str, str]]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    base = root / "sys/fs/cgroup"
    made = []
    for line in groups:
        _, controllers, inside = line.split(":", 2)
        if "memory" in controllers.split(","):
            made.append((base / "memory", inside, v1))
        elif controllers == "":
            unified = base / "unified" if (base / "unified").exists() else base
            made.append((unified, inside, v2))
    return made


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _stat(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def rlimit_bytes() -> int | None:
    """The least of the process's limits on address space and data."""
    if resource is None:
        return None
    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((s for s in soft if s != resource.RLIM_INFINITY), default=None)


def available_bytes() -> int:
    """What this process could hold in all: its own bytes and what is free for it."""
    own = process_bytes()
    free = int(psutil.virtual_memory().available)
    limit = cgroup_limit_bytes()
    if limit is not None:
        free = min(free, max(limit - (cgroup_used_bytes() or own), 0))
    return own + free


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes the process may hold, and where the number comes from."""

    nbytes: int
    origin: str


def discover_budget(memory: str | int | None = None) -> Budget:
    """The budget of a run.

    Parameters
    ----------
    memory
        What the user said; None: STREAMFEAT_MEMORY, else 60 % of what is free.

    Returns
    -------
    Budget
        Never above the container's or the process's limit.

    Raises
    ------
    OptionError
        If ``memory`` is no size.
    """
    if memory is None and (told := os.environ.get("STREAMFEAT_MEMORY")):
        asked = Budget(parse_bytes(told, option="STREAMFEAT_MEMORY"), "STREAMFEAT_MEMORY")
    elif memory is None:
        share = int(DEFAULT_SHARE * available_bytes())
        asked = Budget(share, f"{DEFAULT_SHARE:.0%} of what is free")
    else:
        asked = Budget(parse_bytes(memory), "as given")
    for limit, name in ((cgroup_limit_bytes(), "container"), (rlimit_bytes(), "process")):
        if limit is not None and limit < asked.nbytes:
            asked = Budget(limit, f"the {name}'s limit; {format_bytes(asked.nbytes)} asked")
    return asked


def release_free_heap() -> int:
    """Give free heap back to the system; bytes by which the process shrank."""
    before = process_bytes()
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := _libc_function("malloc_trim"):
        trim(0)
    return max(before - process_bytes(), 0)


def limit_malloc_arenas(n_arenas: int = 2) -> None:
    """Keep glibc from opening a heap per thread, whose free parts add up; a no-op elsewhere."""
    if mallopt := _libc_function("mallopt"):
        mallopt(_M_ARENA_MAX, n_arenas)


def _libc_function(name: str) -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
