"""The memory half: what the process may hold, who holds it, and what to do when it gets tight.

This module covers: the room's public names, loaded when first used.
This module does *not* cover: any of the work; each name lives in the module its import names.

>>> from streamfeat.memory import format_bytes
>>> format_bytes(2 * 10**9)
'2.0 GB'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamfeat.memory.allocator import plan_allocation, reserve_bytes
    from streamfeat.memory.controller import BatchController
    from streamfeat.memory.models import (
        AllocationItem,
        AllocationPlan,
        MemorySample,
        format_bytes,
        parse_bytes,
    )
    from streamfeat.memory.monitor import MemoryMonitor
    from streamfeat.memory.pool import Lease, MemoryPool
    from streamfeat.memory.probe import (
        Budget,
        available_bytes,
        cgroup_limit_bytes,
        discover_budget,
        limit_malloc_arenas,
        peak_bytes,
        process_bytes,
        release_free_heap,
        rlimit_bytes,
    )

__all__ = [
    "AllocationItem",
    "AllocationPlan",
    "BatchController",
    "Budget",
    "Lease",
    "MemoryMonitor",
    "MemoryPool",
    "MemorySample",
    "available_bytes",
    "cgroup_limit_bytes",
    "discover_budget",
    "format_bytes",
    "limit_malloc_arenas",
    "parse_bytes",
    "peak_bytes",
    "plan_allocation",
    "process_bytes",
    "release_free_heap",
    "reserve_bytes",
    "rlimit_bytes",
]

_HOMES = {
    **dict.fromkeys(["plan_allocation", "reserve_bytes"], "allocator"),
    "BatchController": "controller",
    **dict.fromkeys(
        ["AllocationItem", "AllocationPlan", "MemorySample", "format_bytes", "parse_bytes"],
        "models",
    ),
    "MemoryMonitor": "monitor",
    **dict.fromkeys(["Lease", "MemoryPool"], "pool"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'streamfeat.memory' has no attribute {name!r}")
    value = getattr(import_module(f"streamfeat.memory.{_HOMES.get(name, 'probe')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
