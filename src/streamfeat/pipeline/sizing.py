"""Where every byte of the budget goes, before any work.

This module covers: the fixed costs of each pass, and the allocation plan made from them.
This module does *not* cover: solving for the chunk (memory.allocator).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamfeat.memory.allocator import plan_allocation
from streamfeat.memory.models import AllocationItem, AllocationPlan
from streamfeat.memory.probe import process_bytes
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.search.standard import SAMPLE_ROWS
from streamfeat.selection.folds import N_BLOCKS
from streamfeat.selection.moments import BAND_TERMS

MOMENTS = "moments"
FLOAT_BYTES = 8
_FEW_TILES = 4
"""A chunk is not made shorter than this for the sake of fewer passes."""
_TILE_ARRAYS = 3
"""Arrays of expressions x rows alive while a tile is written: values, clipped, encoded."""
_FINALIST_ARRAYS = 3
"""Arrays of finalists x rows alive while their Gram is formed: values, by block, one block."""
_SCREEN_ROW_BYTES = 5
"""A standardised term of a tile, in float32, and a share of those in float64."""
_SCRATCH_BYTES = 40_000_000
"""A band being evaluated and the stacks of two bands."""
_MOST_PATTERNS = 64
"""Null patterns beyond these are taken out of the chunk."""
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
    baseline = process_bytes() if baseline_bytes is None else baseline_bytes

    def plan(fixed: Sequence[AllocationItem]) -> AllocationPlan:
        return plan_allocation(
            budget_bytes,
            baseline_bytes=baseline,
            fixed=fixed,
            bytes_per_row=_bytes_per_row(shape),
            halo_rows=2 * shape.lookback,
            tile_rows=TILE_ROWS,
            threads=shape.threads,
        )

    fixed = fixed_items(shape)
    made = plan(fixed)
    more = min(_wanted_moments(shape), _spare(made, shape))
    return plan(_with_moments(fixed, more)) if more > 0 else made


def _wanted_moments(shape: Shape) -> int:
    """What moments may take beyond the least, so that one pass does for all pairs."""
    least = least_moments(shape.n_terms, shape.n_outputs)
    return all_moments(shape.n_terms, shape.n_outputs) - least if shape.n_terms else 0


def _spare(plan: AllocationPlan, shape: Shape) -> int:
    """What the plan leaves, and what its chunk has beyond a few tiles."""
    few = min(plan.chunk_rows, _FEW_TILES * TILE_ROWS)
    chunk = int((plan.chunk_rows - few) * _bytes_per_row(shape))
    return plan.budget_bytes - plan.total_bytes + chunk


def _with_moments(fixed: Sequence[AllocationItem], more: int) -> list[AllocationItem]:
    if not any(item.name == MOMENTS for item in fixed):
        return [*fixed, AllocationItem(MOMENTS, more, "of pairs of terms")]
    return [replace(i, nbytes=i.nbytes + more) if i.name == MOMENTS else i for i in fixed]


def moments_allowance(plan: AllocationPlan, shape: Shape) -> int:
    """Bytes for the moments of pairs of bands that are held at a time."""
    held = sum(item.nbytes for item in plan.items if item.name == MOMENTS)
    pair = (4 + shape.n_outputs) * min(shape.n_terms, BAND_TERMS) ** 2 * FLOAT_BYTES
    return max(held - least_moments(shape.n_terms, shape.n_outputs) + 2 * pair, pair)


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
    screened = shape.threads * (m * _SCREEN_ROW_BYTES * TILE_ROWS + _SCRATCH_BYTES)
    formed = shape.threads * (_FINALIST_ARRAYS * k * TILE_ROWS * FLOAT_BYTES + _SCRATCH_BYTES)
    yield AllocationItem(
        "tiles", max(screened, formed), f"{shape.threads} of {max(m, k):,} expressions in flight"
    )
    samples = (m + 2 * k) * SAMPLE_ROWS * FLOAT_BYTES
    yield AllocationItem("sample", samples, "some rows of every term")
    width = k + shape.n_outputs + 1
    grams = (N_BLOCKS + 2 * shape.threads + 8) * width**2 * FLOAT_BYTES
    yield AllocationItem("Grams", grams, "of the finalists, by block")
    yield AllocationItem(MOMENTS, least_moments(m, shape.n_outputs), "of two bands of terms")


def least_moments(n_terms: int, n_outputs: int) -> int:
    """What the moments of one pair of bands take, and those with the null patterns."""
    band = min(n_terms, BAND_TERMS)
    patterns = min(n_terms, _MOST_PATTERNS)
    pair = (4 + n_outputs) * band * band
    return 2 * FLOAT_BYTES * (pair + (2 + n_outputs) * patterns * n_terms)


def all_moments(n_terms: int, n_outputs: int) -> int:
    """What the moments of all pairs of terms take."""
    n_bands = -(-n_terms // BAND_TERMS)
    pairs = n_bands * (n_bands + 1) // 2
    return least_moments(n_terms, n_outputs) + pairs * (4 + n_outputs) * BAND_TERMS**2 * FLOAT_BYTES


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
