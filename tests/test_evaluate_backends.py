"""Law 4: Polars, DuckDB, the kernels and the slow reference agree on every primitive."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import evaluate
from strategies import NAMES, expressions, panels
from streamfeat.errors import OptionError
from streamfeat.evaluate.backend import backend
from streamfeat.evaluate.program import Frame, Program
from streamfeat.evaluate.recursion import Recursion
from streamfeat.plan.expr import Expr
from streamfeat.plan.primitives import PRIMITIVES, call
from streamfeat.sources.chunks import ChunkReader
from streamfeat.sources.frames import TableSource


def by_kernels(table: pa.Table, exprs: list[Expr]) -> list[list[float | None]]:
    program = Program(exprs)
    source = TableSource(table, "<test>")
    names = [n for n in table.column_names if n != "group"]
    reader = ChunkReader(
        source, columns=names, group="group", lookback=program.lookback, lookahead=0
    )
    (chunk,) = reader.chunks(lambda: 8192)
    frame = Frame(chunk.columns, chunk.row_in_group, chunk.n_before, chunk.n_rows)
    Recursion(program).fill(frame, at_start=True)
    return [[None if math.isnan(v) else v for v in row] for row in program.run(frame).tolist()]


def by_engine(name: str, table: pa.Table, exprs: list[Expr]) -> list[list[float | None]]:
    made = backend(name).evaluate(table, exprs, group="group", time="time")
    return [made.column(k).to_pylist() for k in range(len(exprs))]


EVALUATORS = {
    "kernels": by_kernels,
    "polars": lambda table, exprs: by_engine("polars", table, exprs),
    "duckdb": lambda table, exprs: by_engine("duckdb", table, exprs),
}


def close(got: float | None, expected: float | None, scale: float) -> bool:
    if got is None or expected is None:
        return got is expected
    return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-9 * scale)


def compare(name: str, table: pa.Table, expr: Expr) -> None:
    columns = {n: table.column(n).to_pylist() for n in table.column_names}
    expected = evaluate(expr, columns, columns["group"])
    (got,) = EVALUATORS[name](table, [expr])
    scale = max((abs(v) for v in expected if v is not None), default=1.0)
    wrong = [
        (i, g, e) for i, (g, e) in enumerate(zip(got, expected, strict=True))
        if not close(g, e, scale)
    ]  # fmt: skip
    assert not wrong, f"{name}: {expr}: {wrong[:3]}"


SINGLE = [p for p in PRIMITIVES.values() if p.takes == "number"]


@pytest.mark.parametrize("name", EVALUATORS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(panels(), st.integers(2, 6))
def test_every_primitive_agrees_with_the_reference(name: str, table: pa.Table, rows: int) -> None:
    for primitive in SINGLE:
        if primitive.looks_ahead and name == "kernels":
            continue
        args = NAMES[: primitive.arity]
        compare(name, table, call(primitive.name, *args, params=(rows,) * primitive.n_params))
    for primitive in PRIMITIVES.values():
        if primitive.takes == "timestamp":
            compare(name, table, call(primitive.name, "time"))


@pytest.mark.parametrize("name", EVALUATORS)
@pytest.mark.parametrize("spread", [5.0, 40.0])
@pytest.mark.parametrize("rows", [7, 20])
def test_an_outlier_leaves_with_its_window(name: str, spread: float, rows: int) -> None:
    """Values are right on the scale of their own window, whatever was in windows before."""
    rng, n = np.random.default_rng(rows), 900
    x = rng.normal(size=n) * np.exp(rng.normal(0.0, spread, n).clip(-300, 300))
    start = datetime(2020, 1, 1)
    table = pa.table(
        {
            "group": ["a"] * 650 + ["b"] * 250,
            "time": [start + timedelta(hours=k) for k in range(n)],
            "x": x,
        }
    )
    columns = {n: table.column(n).to_pylist() for n in table.column_names}
    for primitive in ("rolling_sum", "rolling_mean", "rolling_std", "rolling_zscore"):
        expr = call(primitive, "x", params=(rows,))
        expected = evaluate(expr, columns, columns["group"])
        (got,) = EVALUATORS[name](table, [expr])
        for i, (g, e) in enumerate(zip(got, expected, strict=True)):
            own = float(np.abs(x[max(i - rows + 1, 0) : i + 1]).max())
            scale = 1.0 if primitive == "rolling_zscore" else own
            assert (g is None) == (e is None), (primitive, i)
            assert g is None or e is None or abs(g - e) <= 1e-12 * rows * scale, (primitive, i)


@pytest.mark.parametrize("name", EVALUATORS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(panels(), expressions(windows=False))
def test_compositions_of_rows_agree(name: str, table: pa.Table, expr: Expr) -> None:
    compare(name, table, expr)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(OptionError, match="no backend is called 'spark'"):
        backend("spark")


def test_rows_in_any_order_come_back_in_their_order() -> None:
    rng = np.random.default_rng(0)
    n = 60
    table = pa.table(
        {
            "group": np.repeat(["a", "b", "c"], 20),
            "time": pa.array(np.tile(np.arange(20), 3).astype("datetime64[us]")),
            "x": rng.normal(size=n),
        }
    )
    shuffled = rng.permutation(n)
    exprs = [call("rolling_mean", call("diff", "x", params=(1,)), params=(3,))]
    for name in ("polars", "duckdb"):
        whole = np.array(by_engine(name, table, exprs)[0], dtype=float)
        mixed = np.array(by_engine(name, table.take(shuffled), exprs)[0], dtype=float)
        np.testing.assert_allclose(mixed, whole[shuffled], rtol=1e-12, atol=1e-12)
