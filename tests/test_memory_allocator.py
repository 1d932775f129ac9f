"""Plans to the byte: what they add up to, and what a refusal names."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamfeat.errors import BudgetTooSmallError
from streamfeat.memory import AllocationItem, AllocationPlan, plan_allocation, reserve_bytes

LEAST_RESERVE = 24_000_000


def plan(budget: int, *, width: float, tile: int = 8192, **costs: int) -> AllocationPlan:
    return plan_allocation(
        budget,
        baseline_bytes=costs.get("baseline", 0),
        fixed=[AllocationItem("gram", costs.get("gram", 0))],
        bytes_per_row=width,
        halo_rows=costs.get("halo", 0),
        tile_rows=tile,
        threads=1,
        most_rows=costs.get("most", 262_144),
    )


WIDTHS = st.integers(1, 5000).map(lambda tenths: tenths / 10) | st.floats(0.01, 5000)


@given(WIDTHS, st.sampled_from([1, 3, 7, 8192]), st.integers(1, 30), st.integers(0, 500),
       st.integers(-1, 1))  # fmt: skip
@example(418.6, 3, 30, 0, 0)  # divided in floats, a tile short
@example(135.3, 3, 20, 0, -1)  # divided in floats, a byte over
def test_the_chunk_is_the_largest_that_fits_to_the_byte(
    width: float, tile: int, tiles: int, halo: int, spare: int
) -> None:
    border = math.ceil(halo * width)
    budget = LEAST_RESERVE + math.ceil(tile * tiles * width) + border + spare
    room = budget - reserve_bytes(budget)
    try:
        made = plan(budget, width=width, tile=tile, halo=halo)
    except BudgetTooSmallError:
        assert math.ceil(tile * width) + border > room
        return
    assert made.total_bytes <= made.budget_bytes
    if made.chunk_rows + tile <= 262_144:
        assert math.ceil((made.chunk_rows + tile) * width) + border > room


@pytest.mark.parametrize("width", [0.0, 1e-310, 1e-12])
def test_rows_that_cost_nothing_are_as_many_as_allowed(width: float) -> None:
    assert plan(10**8, width=width, most=100_000).chunk_rows == 12 * 8192


def test_fewer_rows_than_a_tile_are_a_tile() -> None:
    assert plan(10**8, width=8.0, most=100).chunk_rows == 8192


@pytest.mark.parametrize("budget", [10**8, 24 * 10**7, 24 * 10**7 + 11, 10**9])
def test_the_reserve_is_a_tenth_but_never_little(budget: int) -> None:
    assert reserve_bytes(budget) == max(budget // 10, LEAST_RESERVE)
    assert plan(budget, width=80.0).items[-1].nbytes == reserve_bytes(budget)


def test_every_item_is_listed_once() -> None:
    made = plan(10**9, width=80.0, baseline=7, gram=9, halo=10)
    assert [item.name for item in made.items] == ["baseline", "gram", "chunk", "reserve"]
    assert made.baseline_bytes == 7
    assert [item.nbytes for item in made.leased] == [9, (made.chunk_rows + 10) * 80]


@pytest.mark.parametrize(
    ("costs", "width", "heaviest"),
    [
        ({"gram": 10**9, "baseline": 10**8}, 8.0, "gram 1.0 GB, reserve 122.2 MB, baseline"),
        ({"baseline": 10**8}, 50_000.0, "chunk 409.6 MB, baseline 100.0 MB, reserve 56.6 MB"),
        ({"halo": 10**6}, 100.0, "chunk 100.8 MB, reserve 24.0 MB"),
    ],
)
def test_a_refusal_names_what_weighs_most_and_the_least_that_would_do(
    costs: dict[str, int], width: float, heaviest: str
) -> None:
    with pytest.raises(BudgetTooSmallError) as told:
        plan(1_000_000, width=width, **costs)
    least = told.value.minimum_bytes
    assert f"Heaviest: {heaviest}" in told.value.message
    assert f"{least:,} B" in told.value.message
    assert f'"{math.ceil(least / 10**6)}MB"' in told.value.hint
    assert plan(least, width=width, **costs).chunk_rows == 8192
    with pytest.raises(BudgetTooSmallError):
        plan(least - 1, width=width, **costs)


@given(st.integers(10**8, 10**10), st.integers(0, 10**9))
def test_more_budget_never_gives_shorter_chunks(budget: int, more: int) -> None:
    assert plan(budget + more, width=900.0).chunk_rows >= plan(budget, width=900.0).chunk_rows
