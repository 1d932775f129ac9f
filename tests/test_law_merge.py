"""Law 5: an accumulator has a neutral element, and merging parts in order equals one pass."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening import rows_of
from streamfeat.search.rounds import Ranges
from streamfeat.search.standard import Statistics
from streamfeat.selection.folds import TimeHistogram
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.moments import Bands, OutputMoments, PairMoments, TileRows

M, Q = 3, 2
BANDS = Bands.cut(np.array([True, True, True]), np.array([0, 1, 0], dtype=np.intp))


def rows(U: np.ndarray, Y: np.ndarray) -> TileRows:
    return rows_of(BANDS, U, np.stack((U[0] > 0, U[1] > 0, U[2] == U[2])).astype(float), Y)


ACCUMULATORS = {
    "pairs": (lambda: PairMoments.empty(BANDS, BANDS.pairs()), lambda U, Y, b, t: (rows(U, Y),)),
    "outputs": (
        lambda: OutputMoments.empty(BANDS, BANDS.pairs(), Q),
        lambda U, Y, b, t: (rows(U, Y),),
    ),
    "grams": (lambda: FoldGrams.empty(M + Q, 4), lambda U, Y, b, t: (np.vstack((U, Y)), b)),
    "histogram": (lambda: TimeHistogram.empty(0, 10**6), lambda U, Y, b, t: (t,)),
    "statistics": (
        lambda: Statistics.empty(M),
        lambda U, Y, b, t: (
            np.where(U > 1, np.nan, U), t.astype(np.uint64), np.flatnonzero(t % 3 == 0)
        ),
    ),
    "ranges": (lambda: Ranges.empty(M), lambda U, Y, b, t: (U,)),
}  # fmt: skip


def arrays(accumulator: Any) -> list[np.ndarray]:
    found = []
    for value in vars(accumulator).values():
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, dict):
            found += value.values()
        elif isinstance(accumulator, Statistics) and isinstance(value, list):
            found.append(np.concatenate([np.empty((M, 0)), *value], axis=1))
        elif isinstance(value, list):
            found += value
        elif isinstance(value, int):
            found.append(np.array(value))
    return found


def same(left: Any, right: Any) -> bool:
    pairs = zip(arrays(left), arrays(right), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype == float) for a, b in pairs)


def tile(seed: int, n: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(M, n)),
        rng.normal(size=(Q, n)),
        rng.integers(-1, 4, n).astype(np.int16),
        rng.integers(0, 10**6, n),
    )


@pytest.mark.parametrize("name", ACCUMULATORS)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_law_merging_tiles_in_order_equals_one_pass(
    name: str, sizes: list[int], data: st.DataObject
) -> None:
    empty, pick = ACCUMULATORS[name]
    parts = [empty().update(*pick(*tile(k, n))) for k, n in enumerate(sizes)]
    whole = empty()
    for part in parts:
        whole.merge(part)
    cut = data.draw(st.integers(0, len(parts)))
    resumed = empty()
    for part in parts[:cut]:
        resumed.merge(part)
    resumed = pickle.loads(pickle.dumps(resumed))
    for part in parts[cut:]:
        resumed.merge(part)
    assert same(whole, resumed)
    rows = sum(sizes)
    together = empty().update(*pick(*(np.concatenate(c, axis=-1) for c in zip(
        *(tile(k, n) for k, n in enumerate(sizes)), strict=True))))  # fmt: skip
    for a, b in zip(arrays(whole), arrays(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(rows, 1))


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_law_the_empty_one_is_neutral(name: str) -> None:
    empty, pick = ACCUMULATORS[name]
    part = empty().update(*pick(*tile(1, 20)))
    copy = pickle.loads(pickle.dumps(part))
    assert same(part.merge(empty()), copy)
    assert same(empty().merge(copy), copy)
    assert not same(empty(), copy)


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_the_size_is_that_of_its_arrays(name: str) -> None:
    accumulator = ACCUMULATORS[name][0]()
    assert accumulator.nbytes == sum(a.nbytes for a in arrays(accumulator) if a.ndim)
