"""What the process, its container and the machine have: the only place that measures.

This module covers: resident and peak bytes, cgroup and rlimit ceilings, the budget made of them,
and giving free heap back to the system.
This module does *not* cover: watching over time (monitor).
"""

from __future__ import annotations

import ctypes
import os
import re
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
    """An open /proc/self/statm, opened again after a fork or if somebody closed it."""

    def __init__(self) -> None:
        self._opened = (0, -1)  # process and handle in one, so that no thread sees half of it
        self.renew_lock()

    def renew_lock(self) -> None:
        self._lock = threading.Lock()

    def resident_bytes(self) -> int:
        opened = self._opened
        if opened[0] != os.getpid():
            opened = self._open(opened)
        try:
            return self._read(opened[1])
        except (OSError, ValueError, IndexError):  # a daemon closes what it inherits
            return self._read(self._open(opened)[1])

    def _read(self, handle: int) -> int:
        return int(os.pread(handle, 128, 0).split()[1]) * _PAGE_BYTES

    def _open(self, stale: tuple[int, int]) -> tuple[int, int]:
        """The stale handle is not closed: its number may be another file's by now."""
        with self._lock:
            if self._opened == stale:
                handle = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
                self._opened = (os.getpid(), handle)
            return self._opened


_STATM = _Statm()
if hasattr(os, "register_at_fork"):  # another thread may hold the lock while this one forks
    os.register_at_fork(after_in_child=_STATM.renew_lock)
_HAS_PROC = Path("/proc/self/statm").exists()


def process_bytes() -> int:
    """Resident bytes of this process, in about a microsecond."""
    return _STATM.resident_bytes() if _HAS_PROC else int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most this process ever held (VmHWM); elsewhere the system's own figure, if it has one."""
    if not _HAS_PROC:
        info = psutil.Process().memory_info()
        return int(getattr(info, "peak_wset", info.rss))
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return process_bytes()


@dataclass(frozen=True, slots=True)
class _Group:
    """A memory cgroup's directory; version 1 and 2 name the same things differently."""

    directory: Path
    version: int

    def limit_bytes(self) -> int | None:
        """Its own limit; in version 1 also the least of its ancestors', mounted or not."""
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        told = (_number(self.directory / name), self._stat().get("hierarchical_memory_limit"))
        return min((t for t in told if t is not None and t < _UNLIMITED_BYTES), default=None)

    def used_bytes(self) -> int | None:
        """What it holds without page cache, which the kernel drops when it must."""
        stat = self._stat()
        name = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        usage = _number(self.directory / name)
        if usage is None:
            return stat.get("total_rss", stat.get("rss", stat.get("anon")))
        lists = ("inactive_file", "active_file")
        return max(usage - sum(stat.get(f"total_{n}", stat.get(n, 0)) for n in lists), 0)

    def _stat(self) -> dict[str, int]:
        pairs = (line.split() for line in _lines(self.directory / "memory.stat"))
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def cgroup_limit_bytes(root: Path = Path("/")) -> int | None:
    """The least memory limit of this process's cgroups, version 1 and 2, ancestors included."""
    limits = (group.limit_bytes() for group in _groups(root))
    return min((limit for limit in limits if limit is not None), default=None)


def cgroup_used_bytes(root: Path = Path("/")) -> int | None:
    """What the process's own cgroup holds without page cache."""
    used = (group.used_bytes() for group in _groups(root))
    return next((nbytes for nbytes in used if nbytes is not None), None)


def cgroup_free_bytes(root: Path = Path("/")) -> int | None:
    """What the cgroups leave free: the least, as a parent's other children use up its limit too."""
    rooms = [(group.limit_bytes(), group.used_bytes()) for group in _groups(root)]
    free = (max(limit - (used or 0), 0) for limit, used in rooms if limit is not None)
    return min(free, default=None)


def _groups(root: Path) -> list[_Group]:
    """The process's memory cgroups, innermost first."""
    found: list[_Group] = []
    for version, inside in _memberships(root):
        for mount, relative in _mounts(root, version, inside):
            directory = mount / relative
            inner = [directory, *directory.parents]
            found += [_Group(path, version) for path in inner[: inner.index(mount) + 1]]
    return found


def _memberships(root: Path) -> list[tuple[int, str]]:
    """(version, path of the group) as /proc/self/cgroup tells."""
    made = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, inside = line.split(":", 2)
        if "memory" in controllers.split(","):
            made.append((1, inside))
        elif not controllers:
            made.append((2, inside))
    return made


def _mounts(root: Path, version: int, inside: str) -> list[tuple[Path, str]]:
    """(mount point, the group below it), by mountinfo or where mounts usually are.

    A container's mount may begin at its own group, which is then the mount point itself.
    """
    mounts = _mountinfo(root, version)
    if not mounts:
        base = root / "sys/fs/cgroup"
        name = "memory" if version == 1 else "unified" if (base / "unified").exists() else ""
        mounts = [(base / name, "/")]
    below = [(point, _relative(inside, begin)) for point, begin in mounts]
    known = [(point, relative) for point, relative in below if relative is not None]
    return known or [(point, "") for point, _ in mounts]


def _mountinfo(root: Path, version: int) -> list[tuple[Path, str]]:
    """(mount point, the group it begins at) of the memory cgroups' mounts."""
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = (part.split() for part in line.partition(" - "))
        if len(fields) < 5 or len(rest) < 3:
            continue
        first = rest[0] == "cgroup" and "memory" in rest[2].split(",")
        if first if version == 1 else rest[0] == "cgroup2":
            found.append((root / _unescaped(fields[4]).lstrip("/"), _unescaped(fields[3])))
    return found


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _relative(inside: str, begin: str) -> str | None:
    """``inside`` as seen from ``begin``; None where it lies elsewhere."""
    begin = begin.rstrip("/")
    if ".." in inside.split("/") or not f"{inside}/".startswith(f"{begin}/"):
        return None
    return inside.removeprefix(begin).strip("/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


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
    inside = cgroup_free_bytes()
    return own + (free if inside is None else min(free, inside))


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
    return _within_limits(asked)


def _within_limits(asked: Budget) -> Budget:
    limits = ((cgroup_limit_bytes(), "container"), (rlimit_bytes(), "process"))
    known = [(limit, name) for limit, name in limits if limit is not None]
    least, name = min(known, default=(asked.nbytes, ""))
    if least >= asked.nbytes:
        return asked
    return Budget(least, f"the {name}'s limit; {format_bytes(asked.nbytes)} asked")


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
