"""The controller with prediction, and coupled to a process that follows it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.memory import BatchController, MemorySample

TILE = 8192
BUDGET = 10**9


def start(tiles: int, *, least: int = 0, width: float = 0.0) -> BatchController:
    return BatchController.start(
        most_rows=tiles * TILE,
        tile_rows=TILE,
        budget_bytes=BUDGET,
        least_rows=least,
        bytes_per_row=width,
    )


def step(controller: BatchController, process_bytes: float) -> BatchController:
    return controller.step(MemorySample(int(process_bytes), 0, 0.0))


@pytest.mark.parametrize(
    ("spare", "tiles"), [(2 * TILE * 100 + 1, 6), (2 * TILE * 100, 4), (1, 4), (0, 4), (-1, 4)]
)
def test_it_grows_only_if_it_would_stay_below_low(spare: int, tiles: int) -> None:
    controller = start(16, width=100.0)
    assert step(controller, controller.low_bytes - spare).rows == tiles * TILE


@pytest.mark.parametrize(
    ("most", "least", "rows"),
    [(16, 0, 4), (16, 1, 4), (16, 5 * TILE, 5), (16, 5 * TILE + 1, 6), (4, 9 * TILE, 4), (1, 0, 1),
     (7, 0, 1)],
)  # fmt: skip
def test_it_starts_at_a_quarter_within_its_bounds(most: int, least: int, rows: int) -> None:
    assert start(most, least=least).rows == rows * TILE


def test_a_most_of_part_tiles_is_rounded_down() -> None:
    controller = BatchController.start(most_rows=100_000, tile_rows=TILE, budget_bytes=BUDGET)
    for _ in range(20):
        controller = step(controller, 0)
    assert controller.rows == 12 * TILE


def test_high_halves_at_once_and_holds_four_steps() -> None:
    controller = start(16)
    rows = [
        (controller := step(controller, reading)).rows // TILE
        for reading in [0, 0, controller.high_bytes, 0, 0, 0, 0, 0]
    ]
    assert rows == [6, 8, 4, 4, 4, 4, 4, 6]


def test_the_marks_themselves() -> None:
    controller = start(16)
    assert step(controller, controller.high_bytes - 1).rows == controller.rows
    assert step(controller, controller.high_bytes).rows == controller.rows // 2
    assert step(controller, controller.low_bytes).rows == controller.rows
    assert step(controller, controller.low_bytes - 1).rows > controller.rows


def test_a_step_leaves_the_controller_as_it_was() -> None:
    controller = start(16)
    step(controller, 2 * BUDGET)
    assert controller == start(16)
    with pytest.raises(FrozenInstanceError):
        controller.rows = 1  # type: ignore[misc]


@given(
    st.lists(st.integers(0, 2 * BUDGET), max_size=60),
    st.integers(1, 40),
    st.integers(0, 50 * TILE),
    st.floats(0, 10**5),
)
def test_it_stays_in_bounds(readings: list[int], tiles: int, least: int, width: float) -> None:
    controller = start(tiles, least=least, width=width)
    floor = min(max(-(-least // TILE), 1), tiles)
    for reading in readings:
        controller = step(controller, reading)
        assert floor * TILE <= controller.rows <= tiles * TILE
        assert controller.rows % TILE == 0


@given(st.integers(0, 2 * BUDGET), st.integers(1, 40), st.floats(0, 1000))
def test_constant_readings_move_it_one_way_and_let_it_settle(
    reading: int, tiles: int, width: float
) -> None:
    controller = start(tiles, width=width)
    rows = [(controller := step(controller, reading)).rows for _ in range(60)]
    assert rows in (sorted(rows), sorted(rows, reverse=True))
    assert len(set(rows[-15:])) == 1


@given(st.integers(0, 899), st.integers(1, 40), st.floats(1, 5000))
def test_a_process_that_follows_its_rows_never_passes_high_by_growing(
    base_mb: int, tiles: int, width: float
) -> None:
    controller = start(tiles, width=width)
    held = [base_mb * 10**6 + controller.rows * width]
    for _ in range(60):
        controller = step(controller, held[-1])
        held.append(base_mb * 10**6 + controller.rows * width)
    passed = [nbytes >= controller.high_bytes for nbytes in held]
    # Once below the high mark, always below: growth is not what brings it back there.
    if False in passed:
        assert not any(passed[passed.index(False) :])
    assert len(set(held[-15:])) == 1
