"""Sizes, samples and plans as frozen data.

This module covers: parsing and printing sizes, samples of the process, and allocation plans.
This module does *not* cover: measuring (probe), or deciding (allocator, controller).
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from streamfeat.errors import OptionError

_UNITS = {
    "": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "t": 10**12, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_DECIMAL = (("kB", 10**3), ("MB", 10**6), ("GB", 10**9), ("TB", 10**12))
_MOST_BYTES = 2**63
_SIZE = re.compile(r"\s*(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)\s*(?P<unit>[a-zA-Z]*)\s*\Z")


def parse_bytes(size: str | int | float, *, option: str = "memory") -> int:
    """Bytes that ``size`` says.

    Parameters
    ----------
    size
        A number of bytes, or text: "2GB" is 2 * 10**9 and "512MiB" 512 * 2**20.
    option
        Named in the error.

    Raises
    ------
    OptionError
        If it is no size, not above 0, or 2**63 and more.

    Examples
    --------
    >>> parse_bytes("1.5 GB"), parse_bytes("512MiB")
    (1500000000, 536870912)
    """
    nbytes = _read(size)
    if nbytes is None or not 0 < nbytes < _MOST_BYTES:
        raise OptionError(
            f"{option}={size!r} is no size above 0 and below 2**63",
            hint='write it as "2GB", "512MiB" or a number of bytes',
        )
    return nbytes


def _read(size: object) -> int | None:
    if isinstance(size, bool):
        return None
    if isinstance(size, int | float | numbers.Integral):  # NumPy's integers too
        return None if isinstance(size, float) and not math.isfinite(size) else int(size)
    match = _SIZE.match(size) if isinstance(size, str) else None
    factor = _UNITS.get(match["unit"].lower()) if match else None
    return int(Decimal(match["number"].replace("_", "")) * factor) if match and factor else None


def format_bytes(nbytes: float) -> str:
    """A size for people, in decimal units.

    >>> format_bytes(1_500_000_000), format_bytes(-2_000)
    ('1.5 GB', '-2.0 kB')
    """
    size = abs(nbytes)
    sign = "-" if nbytes < 0 else ""
    if round(size) < 1000:
        return f"{sign}{size:.0f} B"
    # Rounded before it is compared, so that 999,960 is not "1,000.0 kB".
    fitting = (pair for pair in _DECIMAL if round(size / pair[1], 1) < 1000)
    unit, factor = next(fitting, _DECIMAL[-1])
    return f"{sign}{size / factor:,.1f} {unit}"


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What the process held at one moment: process = managed + unmanaged, always.

    >>> MemorySample(process_bytes=10, managed_bytes=7, at_seconds=0.0).unmanaged_bytes
    3
    """

    process_bytes: int
    managed_bytes: int
    at_seconds: float

    @property
    def unmanaged_bytes(self) -> int:
        """What no lease accounts for; negative while leases are not yet touched."""
        return self.process_bytes - self.managed_bytes


@dataclass(frozen=True, slots=True)
class AllocationItem:
    """One line of an allocation plan."""

    name: str
    nbytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class AllocationPlan:
    """Where every byte of the budget goes.

    Attributes
    ----------
    items
        Baseline, fixed costs, chunk and reserve; they add up to ``total_bytes``.
    chunk_rows
        The most rows of a chunk.
    minimum_bytes
        The least budget that would do, with chunks of one tile.
    """

    budget_bytes: int
    items: tuple[AllocationItem, ...]
    chunk_rows: int
    threads: int
    minimum_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(item.nbytes for item in self.items)

    @property
    def baseline_bytes(self) -> int:
        """What the process held before the run."""
        return self.items[0].nbytes

    @property
    def leased(self) -> tuple[AllocationItem, ...]:
        """What the run itself will allocate: all but the baseline and the reserve."""
        return self.items[1:-1]

    def table(self) -> str:
        """The plan as aligned text."""
        rows = [(item.name, format_bytes(item.nbytes), item.note) for item in self.items]
        rows += [
            ("total", format_bytes(self.total_bytes), f"of {format_bytes(self.budget_bytes)}"),
            ("least", format_bytes(self.minimum_bytes), "the smallest budget that would do"),
        ]
        return _aligned(rows)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "budget_bytes": self.budget_bytes,
            "total_bytes": self.total_bytes,
            "minimum_bytes": self.minimum_bytes,
            "chunk_rows": self.chunk_rows,
            "threads": self.threads,
            "items": [{"name": i.name, "nbytes": i.nbytes, "note": i.note} for i in self.items],
        }


def _aligned(rows: Sequence[tuple[str, str, str]]) -> str:
    name, size = (max(len(row[k]) for row in rows) for k in (0, 1))
    return "\n".join(f"  {a:<{name}}  {b:>{size}}  {c}".rstrip() for a, b, c in rows)
