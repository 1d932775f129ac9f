"""The plan before: how many rows a chunk may have, given everything else.

This module covers: solving for the chunk, and refusing what cannot fit.
This module does *not* cover: what the fixed costs are (their users say), or correcting the size
during the run (controller).

    baseline + fixed + (rows + halo) x bytes per row + reserve <= budget
"""

from __future__ import annotations

from collections.abc import Sequence

from streamfeat.errors import BudgetTooSmallError
from streamfeat.memory.models import AllocationItem, AllocationPlan, format_bytes

MOST_ROWS = 262_144
"""Measured: no engine gets faster with longer chunks."""
RESERVE_SHARE = 0.10
LEAST_RESERVE_BYTES = 24_000_000


def reserve_bytes(budget_bytes: int) -> int:
    """What is kept free for allocations nobody asked the plan for."""
    return max(int(RESERVE_SHARE * budget_bytes), LEAST_RESERVE_BYTES)


def plan_allocation(
    budget_bytes: int,
    *,
    baseline_bytes: int,
    fixed: Sequence[AllocationItem],
    bytes_per_row: float,
    halo_rows: int,
    tile_rows: int,
    threads: int,
    most_rows: int = MOST_ROWS,
) -> AllocationPlan:
    """The plan with the largest chunks that fit.

    Raises
    ------
    BudgetTooSmallError
        If chunks of one tile do not fit; ``minimum_bytes`` is the least budget that would do.

    Examples
    --------
    >>> plan = plan_allocation(200_000_000, baseline_bytes=100_000_000, fixed=[], halo_rows=0,
    ...                        bytes_per_row=80.0, tile_rows=8192, threads=1)
    >>> plan.chunk_rows
    262144
    """
    spent = baseline_bytes + sum(item.nbytes for item in fixed)
    halo = _ceil(halo_rows * bytes_per_row)
    least = spent + halo + _ceil(tile_rows * bytes_per_row)
    minimum = _minimum_budget(least)
    if budget_bytes < minimum:
        needed = [
            AllocationItem("baseline", baseline_bytes),
            *fixed,
            AllocationItem("chunk", least - spent),
            AllocationItem("reserve", reserve_bytes(minimum)),
        ]
        raise _too_small(budget_bytes, minimum, needed)
    reserve = reserve_bytes(budget_bytes)
    room = budget_bytes - reserve - spent - halo
    rows = _rows_that_fit(room, bytes_per_row, tile_rows, most_rows)
    items = (
        AllocationItem("baseline", baseline_bytes, "held before the run"),
        *fixed,
        AllocationItem(
            "chunk", halo + _ceil(rows * bytes_per_row), f"{rows:,} rows and {halo_rows} of halo"
        ),
        AllocationItem("reserve", reserve, "kept free"),
    )
    return AllocationPlan(budget_bytes, items, rows, threads, minimum)


def _ceil(nbytes: float) -> int:
    return -int(-nbytes // 1)


def _rows_that_fit(room: int, bytes_per_row: float, tile_rows: int, most_rows: int) -> int:
    most = max(most_rows // tile_rows, 1)
    width = bytes_per_row * tile_rows
    tiles = int(min(room / width, most)) if width else most
    # The division rounds, so what it gives may be a byte over, or a tile short.
    while tiles > 1 and _ceil(tiles * tile_rows * bytes_per_row) > room:
        tiles -= 1
    while tiles < most and _ceil((tiles + 1) * tile_rows * bytes_per_row) <= room:
        tiles += 1
    return max(tiles, 1) * tile_rows


def _minimum_budget(least: int) -> int:
    """The smallest budget that leaves ``least`` beside its own reserve."""
    guess = max(least + LEAST_RESERVE_BYTES, int(least / (1 - RESERVE_SHARE)) - 2)
    while guess - reserve_bytes(guess) < least:
        guess += 1
    return guess


def _too_small(budget: int, minimum: int, items: Sequence[AllocationItem]) -> BudgetTooSmallError:
    heavy = sorted(items, key=lambda item: -item.nbytes)[:3]
    heaviest = ", ".join(f"{i.name} {format_bytes(i.nbytes)}" for i in heavy)
    return BudgetTooSmallError(
        f"a budget of {format_bytes(budget)} is too small for this plan; the least that would do "
        f"is {minimum:,} B ({format_bytes(minimum)}). Heaviest: {heaviest}.",
        minimum_bytes=minimum,
        hint=f'pass memory="{-(-minimum // 1_000_000)}MB" or more, or lower `beam` or `threads`',
    )
