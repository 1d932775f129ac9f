"""Blocks at the edges of time, and purging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.selection.folds import (
    CONFIRM,
    FINAL,
    N_BLOCKS,
    NULL_TIME,
    SEARCH,
    Blocks,
    HashFolds,
    TimeFolds,
    TimeHistogram,
    borders,
    time_folds,
)

LEAST, MOST = int(np.iinfo(np.int64).min) + 1, int(np.iinfo(np.int64).max)
TIMES = st.lists(
    st.sampled_from([LEAST, -1, 0, 1, MOST]) | st.integers(LEAST, MOST), min_size=1, max_size=80
)


def folds_of(times: np.ndarray) -> TimeFolds:
    known = times[times != NULL_TIME]
    return time_folds(TimeHistogram.empty(int(known.min()), int(known.max())).update(times))


def assign(times: np.ndarray, ends: np.ndarray) -> Blocks:
    return folds_of(times).assign(times, ends)


@given(TIMES)
def test_blocks_follow_one_another_over_any_span(values: list[int]) -> None:
    times = np.array(sorted(values), dtype=np.int64)
    blocks = assign(times, times)
    assert blocks.dtype == np.int16
    assert blocks.min() >= 0 and blocks.max() < N_BLOCKS
    assert (np.diff(blocks) >= 0).all()
    assert all(len(set(blocks[times == t])) == 1 for t in set(values))


def test_even_times_have_their_shares() -> None:
    times = np.linspace(-9.2e18, 9.2e18, 100_000).astype(np.int64)
    shares = np.bincount(assign(times, times), minlength=N_BLOCKS) / len(times)
    np.testing.assert_allclose(shares, np.diff([0.0, *map(float, borders()), 1.0]), atol=1e-3)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_law_no_label_reaches_into_another_block(seed: int, horizon: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 10**9, 3000))
    ends = np.full_like(times, NULL_TIME)
    ends[:-horizon] = times[horizon:]
    edges, blocks = folds_of(times).edges, assign(times, ends)
    limits = np.concatenate(([LEAST], edges, [MOST]))
    kept = np.flatnonzero(blocks >= 0)
    assert (limits[blocks[kept]] <= times[kept]).all()
    assert (ends[kept] < limits[blocks[kept] + 1]).all()
    crossing = np.searchsorted(edges, times, "right") != np.searchsorted(edges, ends, "right")
    assert (blocks[crossing] == -1).all() and (blocks[-horizon:] == -1).all()


def test_null_times_and_null_ends_take_no_part() -> None:
    times = np.array([1, 2, NULL_TIME, 4], dtype=np.int64)
    ends = np.array([1, NULL_TIME, 3, 4], dtype=np.int64)
    assert (assign(times, ends) == -1).tolist() == [False, True, True, False]


def test_one_moment_is_one_block() -> None:
    times = np.full(9, 5, dtype=np.int64)
    assert len(set(assign(times, times).tolist())) == 1


def test_nothing_counted_still_has_borders() -> None:
    nothing = np.array([], dtype=np.int64)
    folds = time_folds(TimeHistogram.empty(0, 10).update(nothing))
    assert len(folds.edges) == N_BLOCKS - 1 and len(folds.assign(nothing, nothing)) == 0


@pytest.mark.parametrize("seed", [0, 7, -3, 2**70])
def test_a_row_keeps_its_block_whatever_is_asked_beside_it(seed: int) -> None:
    folds = HashFolds(seed)
    whole = folds.assign(np.arange(5000))
    parts = [folds.assign(np.arange(k, min(k + 777, 5000))) for k in range(0, 5000, 777)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, HashFolds(seed + 1).assign(np.arange(5000)))


def test_blocks_are_wider_than_a_label() -> None:
    """A year of days and a label of 20: without joining, purging would leave nothing to confirm."""
    days = np.arange(1259, dtype=np.int64) * 86_400
    end = np.concatenate((days[20:], np.full(20, NULL_TIME)))
    histogram = TimeHistogram.empty(0, int(days[-1])).update(days)
    narrow = time_folds(histogram).assign(days, end)
    assert not np.isin(narrow, CONFIRM).any()
    wide = time_folds(histogram, least_span=2 * 20 * 86_400).assign(days, end)
    confirming = np.unique(wide[np.isin(wide, CONFIRM)])
    assert len(confirming) == 5
    assert np.isin(wide, FINAL).sum() > 100 and np.isin(wide, SEARCH).sum() > 600
    plain = time_folds(histogram, least_span=86_400)
    np.testing.assert_array_equal(plain.edges, time_folds(histogram).edges)
