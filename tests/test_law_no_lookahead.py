"""Law 3: no value depends on a later row, another group's row, or the label."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import NAMES, expressions, panels
from streamfeat.errors import RecipeError
from streamfeat.evaluate.program import Frame, Program
from streamfeat.evaluate.recursion import Recursion
from streamfeat.pipeline.recipe import Feature, Recipe
from streamfeat.plan.expr import Expr
from streamfeat.plan.targets import forward_return
from streamfeat.selection.folds import NULL_TIME, TimeHistogram, time_folds
from streamfeat.sources.chunks import ChunkReader
from streamfeat.sources.frames import TableSource


def values(table: pa.Table, expr: Expr) -> np.ndarray:
    program = Program([expr])
    columns = [name for name in table.column_names if name != "group"]
    reader = ChunkReader(
        TableSource(table, "<test>"),
        columns=columns,
        group="group",
        lookback=program.lookback,
        lookahead=program.lookahead,
    )
    (chunk,) = reader.chunks(lambda: 8192)
    frame = Frame(chunk.columns, chunk.row_in_group, chunk.n_before, chunk.n_rows)
    Recursion(program).fill(frame, at_start=True)
    return program.run(frame)[0]


def keys(table: pa.Table) -> list[tuple[object, object]]:
    return list(
        zip(table.column("group").to_pylist(), table.column("time").to_pylist(), strict=True)
    )


@given(panels(), expressions(), st.data())
def test_law_prefix_later_rows_change_nothing(
    table: pa.Table, expr: Expr, data: st.DataObject
) -> None:
    """The same bits whether or not rows after a cut exist."""
    cut = data.draw(st.sampled_from(sorted(set(table.column("time").to_pylist()))))
    early = pa.array([t <= cut for t in table.column("time").to_pylist()])
    whole = values(table, expr)[np.array(early)]
    np.testing.assert_array_equal(values(table.filter(early), expr), whole)


@given(panels(), expressions(), st.integers(0, 39))
def test_law_tampering_with_a_later_row_changes_nothing_before(
    table: pa.Table, expr: Expr, place: int
) -> None:
    place = min(place, table.num_rows - 1)
    group, time = keys(table)[place]
    touched = table
    for name in NAMES:
        column = table.column(name).to_pylist()
        column[place] = 12345.678 if column[place] != 12345.678 else 1.0
        index = table.column_names.index(name)
        touched = touched.set_column(index, name, pa.array(column, pa.float64()))
    before, after = values(table, expr), values(touched, expr)
    untouched = [g != group or t < time for g, t in keys(table)]
    np.testing.assert_array_equal(before[untouched], after[untouched])


@given(panels(), expressions())
def test_law_groups_do_not_see_each_other(table: pa.Table, expr: Expr) -> None:
    groups = table.column("group").to_pylist()
    whole = values(table, expr)
    for group in set(groups):
        own = pa.array([g == group for g in groups])
        np.testing.assert_array_equal(values(table.filter(own), expr), whole[np.array(own)])


def test_a_label_never_becomes_a_feature() -> None:
    label = str(forward_return("x", 2).expr)
    recipe = Recipe((Feature("f", label, 0.0, None),), {"x": "number"})
    with pytest.raises(RecipeError, match="looks into the future"):
        Recipe.from_json(recipe.to_json())


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 40))
def test_law_no_label_reaches_into_another_block(days: int, horizon: int, symbols: int) -> None:
    """Purging: rows of different blocks never share a moment between label start and end."""
    time = np.tile(np.arange(days, dtype=np.int64) * 1000, symbols)
    end = np.tile(
        np.concatenate((np.arange(horizon, days) * 1000, np.full(min(horizon, days), NULL_TIME))),
        symbols,
    ).astype(np.int64)
    folds = time_folds(TimeHistogram.empty(0, (days - 1) * 1000).update(time))
    blocks = folds.assign(time, end)
    spans: dict[int, tuple[float, float]] = {}
    for block in np.unique(blocks[blocks >= 0]):
        own = blocks == block
        spans[int(block)] = (time[own].min(), end[own].max())
    ordered = [spans[block] for block in sorted(spans)]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(ordered))
    assert (blocks[end == NULL_TIME] == -1).all()
    assert not any(math.isnan(low) for low, _ in ordered)
