"""Where every byte of the budget goes, before any work.

This module covers: the fixed costs of each pass, and the allocation plan made from them.
This module does *not* cover: solving for the chunk (memory.allocator).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamfeat.memory.allocator import plan_allocation
from streamfeat.memory.models import AllocationItem, AllocationPlan
from streamfeat.memory.probe import process_bytes
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.selection.folds import N_BLOCKS

FLOAT_BYTES = 8
_TILE_ARRAYS = 3
"""Arrays of terms x rows alive in a tile's work: values, chosen rows, a product."""
_INTERMEDIATE_ARRAYS = 96
"""Columns alive while a tile is evaluated: levels of doubling and operands not yet released."""
OPEN_COLUMN_BYTES = 2_500_000
"""Measured: an open column's input buffer, page and dictionary, read without pre-buffering."""
ENGINE_BYTES = 60_000_000
"""Measured: Polars and its first thread pool, loaded when a recursive primitive or a lazy result
needs it."""


@dataclass(frozen=True)
class Shape:
    """What a run's memory depends on."""

    n_columns: int
    n_terms: int
    n_finalists: int
    n_outputs: int
    n_written: int
    lookback: int
    threads: int
    row_group_rows: int
    key_bytes_per_row: float


def allocation(
    shape: Shape, *, budget_bytes: int, baseline_bytes: int | None = None
) -> AllocationPlan:
    """The allocation plan of a run.

    Raises
    ------
    BudgetTooSmallError
        If not even chunks of one tile fit, naming the least budget that would do.
    """
    return plan_allocation(
        budget_bytes,
        baseline_bytes=process_bytes() if baseline_bytes is None else baseline_bytes,
        fixed=fixed_items(shape),
        bytes_per_row=_bytes_per_row(shape),
        halo_rows=2 * shape.lookback,
        tile_rows=TILE_ROWS,
        threads=shape.threads,
    )


def _bytes_per_row(shape: Shape) -> float:
    """Arena columns, the row's place in its group, recursive columns and keys."""
    return FLOAT_BYTES * (shape.n_columns + 2) + shape.key_bytes_per_row


def fixed_items(shape: Shape) -> list[AllocationItem]:
    """Costs that do not depend on the rows of a chunk: what all passes need, and what the heavier
    of searching and writing needs, which follow one another."""
    phases = (list(_search_items(shape)), list(_write_items(shape)))
    heavier = max(phases, key=lambda items: sum(item.nbytes for item in items))
    return [
        AllocationItem("engines", ENGINE_BYTES, "loaded on first use"),
        AllocationItem(
            "reader", OPEN_COLUMN_BYTES * min(shape.n_columns, 50), "buffers of the open columns"
        ),
        *heavier,
    ]


def _search_items(shape: Shape) -> Iterator[AllocationItem]:
    m, k = shape.n_terms, shape.n_finalists
    yield _tiles(shape, max(m + k // 2, k))
    in_flight = shape.threads + 3
    moments = (3 + shape.n_outputs) * m * m * FLOAT_BYTES
    grams = N_BLOCKS * (k + shape.n_outputs + 1) ** 2 * FLOAT_BYTES
    scores = 8 * m * m * FLOAT_BYTES
    yield AllocationItem(
        "accumulators",
        max(in_flight * moments, in_flight * grams, moments + scores),
        "moments of the pairs, Grams of the folds",
    )


def _write_items(shape: Shape) -> Iterator[AllocationItem]:
    yield _tiles(shape, shape.n_written)
    row = FLOAT_BYTES * shape.n_written + shape.key_bytes_per_row
    yield AllocationItem(
        "writer", int(3.5 * shape.row_group_rows * row), "a row group filling, another encoding"
    )


def _tiles(shape: Shape, n_exprs: int) -> AllocationItem:
    arrays = _TILE_ARRAYS * n_exprs + _INTERMEDIATE_ARRAYS
    nbytes = shape.threads * arrays * TILE_ROWS * FLOAT_BYTES
    return AllocationItem("tiles", nbytes, f"{shape.threads} of {n_exprs} expressions in flight")
