"""Random expressions and panels, shared by the tests of several rooms."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from streamfeat.plan.expr import Column, Constant, Expr
from streamfeat.plan.primitives import CALENDAR_PRIMITIVES, PRIMITIVES, call

NAMES = ("x", "y", "odd name", 'q"uote', "größe", "^a.*$", "log", "c1")
VALUES = st.one_of(
    st.floats(-1e4, 1e4),
    st.floats(0.5, 2.0),
    st.sampled_from([0.0, 1.0, 1.0, -1.0, 1e-9, 1e9, float("inf"), float("nan")]),
    st.none(),
)
ROW_NAMES = [p.name for p in PRIMITIVES.values() if p.kind == "row" and p.takes == "number"]
WINDOW_NAMES = [p.name for p in PRIMITIVES.values() if p.kind != "row" and not p.looks_ahead]


def expressions(names: tuple[str, ...] = NAMES, *, windows: bool = True) -> st.SearchStrategy[Expr]:
    """Expressions over number columns ``names`` and the timestamp column ``time``."""
    leaves = st.sampled_from(names).map(Column)
    calendars = st.sampled_from(CALENDAR_PRIMITIVES).map(lambda p: call(p.name, "time"))

    def extend(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        constants = st.sampled_from([1.0, -2.0, 0.5]).map(Constant)
        made = [st.builds(_row, st.sampled_from(ROW_NAMES), inner, inner | constants)]
        if windows:
            made.append(st.builds(_window, st.sampled_from(WINDOW_NAMES), inner, st.integers(2, 6)))
        return st.one_of(made)

    return st.recursive(leaves | (calendars if windows else leaves), extend, max_leaves=4)


def _row(name: str, left: Expr, right: Expr) -> Expr:
    params = (-0.75, 1.5) if PRIMITIVES[name].n_params else ()
    args = (left, right) if PRIMITIVES[name].arity == 2 else (left,)
    return call(name, *args, params=params)


def _window(name: str, inner: Expr, rows: int) -> Expr:
    return call(name, inner, params=(rows,))


@st.composite
def panels(draw: st.DrawFn, names: tuple[str, ...] = NAMES, *, most_rows: int = 40) -> pa.Table:
    """A table in order: ``group``, ``time``, and number columns; groups of any length from 1."""
    lengths = draw(st.lists(st.integers(1, 14), min_size=1, max_size=4))
    n = min(sum(lengths), most_rows)
    groups = np.repeat([f"g{k}" for k in range(len(lengths))], lengths)[:n].tolist()
    start = datetime(2020, 2, 27, 22, 30)
    times = [start + timedelta(hours=9 * k) for length in lengths for k in range(length)][:n]
    columns: dict[str, list[object]] = {"group": groups, "time": times}
    for name in names:
        pool = draw(st.lists(VALUES, min_size=1, max_size=12))
        columns[name] = [pool[(k * 7 + len(name)) % len(pool)] for k in range(n)]
    schema = pa.schema(
        [("group", pa.string()), ("time", pa.timestamp("us"))]
        + [(name, pa.float64()) for name in names]
    )
    return pa.table(columns, schema=schema)
