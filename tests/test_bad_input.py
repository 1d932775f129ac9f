"""What is wrong is named, with what to do; nothing is left behind."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamfeat as sf
from streamfeat import errors

RNG = np.random.default_rng(0)
N = 400


def columns(**named: Any) -> pa.Table:
    return pa.table({"a": RNG.normal(size=N), "b": RNG.normal(size=N), **named})


def days(n: int = N) -> list[dt.datetime]:
    return [dt.datetime(2020, 1, 1) + dt.timedelta(days=k) for k in range(n)]


CASES: dict[str, tuple[pa.Table, dict[str, Any], type[Exception], str]] = {
    "target absent": (
        columns(y=RNG.normal(size=N)),
        {"target": "yy"},
        errors.ColumnNotFoundError,
        r"has no column 'yy'(.|\n)*did you mean 'y'",
    ),
    "target constant": (
        columns(y=np.ones(N)),
        {"target": "y"},
        errors.TargetError,
        "'y' is constant: every value is 1",
    ),
    "target all null": (
        columns(y=pa.nulls(N, pa.float64())),
        {"target": "y"},
        errors.TargetError,
        "'y' is null in every row",
    ),
    "target text": (
        columns(y=[f"name {k}" for k in range(N)]),
        {"target": "y"},
        errors.TargetError,
        "'y' is text with more than 50 different values",
    ),
    "target a date": (
        columns(y=pa.array(days(), pa.timestamp("us"))),
        {"target": "y"},
        errors.TargetError,
        "'y' is timestamp",
    ),
    "no target and no bars": (
        columns(),
        {},
        errors.TargetError,
        r"no target was given(.|\n)*pass `target=`",
    ),
    "a label without time": (
        columns(),
        {"target": "forward_return(a, 1)"},
        errors.TargetError,
        r"needs rows in time order",
    ),
    "no numeric column": (
        pa.table({"word": ["x", "y"] * 200, "y": RNG.normal(size=N)}),
        {"target": "y"},
        errors.NoUsableColumnsError,
        "no numeric column is left",
    ),
    "all columns null": (
        pa.table({"a": pa.nulls(N, pa.float64()), "y": RNG.normal(size=N)}),
        {"target": "y"},
        errors.NoUsableColumnsError,
        "null in most rows",
    ),
    "duplicate keys": (
        columns(
            symbol=["s"] * N,
            date=pa.array(days(N // 2) * 2, pa.timestamp("us")),
            close=np.arange(1.0, N + 1),
        ),
        {"target": "forward_return(close, 1)"},
        errors.DuplicateRowsError,
        r"200 rows repeat a key of symbol, date",
    ),
    "time out of order": (
        columns(
            date=pa.array(days()[::-1], pa.timestamp("us")),
            close=np.arange(1.0, N + 1),
        ),
        {"target": "forward_return(close, 1)", "sort": "never"},
        errors.RowOrderError,
        "row 1 is out of order by date",
    ),
    "budget too small": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "memory": "20MB"},
        errors.BudgetTooSmallError,
        r"the least that would do is [\d,]+ B",
    ),
    "unknown option": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "max_feature": 3},
        errors.OptionError,
        r"no option is called 'max_feature'(.|\n)*did you mean 'max_features'",
    ),
    "too many candidates": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "max_candidates": 10},
        errors.OptionError,
        r"max_candidates is 10",
    ),
    "excluded all": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "exclude": ["a", "b"]},
        errors.NoUsableColumnsError,
        "leave no numeric column",
    ),
    "missing group": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "group": "c"},
        errors.ColumnNotFoundError,
        "has no column 'c'",
    ),
    "classes of a number": (
        columns(y=RNG.normal(size=N)),
        {"target": "y", "task": "classification"},
        errors.TargetError,
        "more than 50 different values",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["file", "table"])
def test_what_is_wrong_is_named_and_nothing_is_left(case: str, form: str, tmp_path: Path) -> None:
    table, options, kind, message = CASES[case]
    source: Any = table
    if form == "file":
        source = tmp_path / "in.parquet"
        pq.write_table(table, source)
    before = sorted(tmp_path.iterdir())
    spill = tmp_path / "spill"
    with pytest.raises(kind, match=message) as told:
        sf.fit_transform(
            source,
            output=tmp_path / "out.parquet",
            spill=str(spill),
            **{"progress": False, "beam": 20, **options},
        )
    assert isinstance(told.value, errors.StreamFeatError)
    if spill.exists():
        assert list(spill.iterdir()) == []
        spill.rmdir()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([np.inf, -np.inf, np.nan, None], "infinities and nulls"),
        ([0.0], "constant"),
        ([1e300, -1e300, 1e-300], "extremes"),
        ([1.7e9, 1.7e9 + 1, 1.7e9 + 59], "large with little spread"),
    ],
)
def test_odd_values_are_ordinary(values: list[float | None], why: str, tmp_path: Path) -> None:
    odd = [values[k % len(values)] for k in range(3000)]
    x = RNG.normal(size=3000)
    table = pa.table({"x": x, "odd": pa.array(odd, pa.float64()), "y": x**2 + 0.1 * x})
    made = sf.fit_transform(table, target="y", output=tmp_path / "o.parquet", progress=False)
    assert any("x" in f.expr.inputs for f in made.features), why
    for feature in made.features:
        column = made.to_arrow().column(feature.name).drop_null().to_numpy()
        assert np.isfinite(column).all()


def test_odd_names_are_ordinary(tmp_path: Path) -> None:
    names = ["^a.*$", '"; DROP TABLE x', "größe 🦆", "a", "A", "log", "c0", "`", "a.b", "*"]
    x = RNG.normal(size=(3000, len(names)))
    table = pa.table({**dict(zip(names, x.T, strict=True)), "y": x[:, 3] * x[:, 4] + x[:, 0]})
    made = sf.fit_transform(table, target="y", output=tmp_path / "o.parquet", progress=False)
    formulas = {f.formula for f in made.features}
    assert formulas >= {"A * a", "`^a.*$`"}
    values = made.to_polars()
    np.testing.assert_array_equal(values["A * a"].to_numpy(), x[:, 3] * x[:, 4])
    from duckdb import connect

    with connect() as connection:
        connection.register("source", table.rename_columns([f"{n}" for n in names] + ["y"]))
    again = sf.load(tmp_path / "o.parquet").transform(
        table, output=tmp_path / "t.parquet", progress=False
    )
    assert again.to_polars().equals(values)


def test_a_time_zone_and_number_times_are_ordinary(tmp_path: Path) -> None:
    close = np.exp(np.cumsum(0.01 * RNG.normal(size=3000)))
    zone = pa.array(days(3000), pa.timestamp("ns", tz="Europe/Berlin"))
    for time in (zone, pa.array(range(3000), pa.int64()), pa.array(days(3000)).cast(pa.date32())):
        table = pa.table({"time": time, "close": close})
        made = sf.fit_transform(
            table,
            time="time",
            target=sf.forward_return("close", 2),
            output=tmp_path / "o.parquet",
            overwrite=True,
            min_features=2,
            progress=False,
        )
        assert len(made.features) == 2
        assert made.scan().collect().height == 3000


def test_errors_survive_pickling() -> None:
    import pickle

    error = errors.BudgetTooSmallError("too small", minimum_bytes=7, hint="more")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.minimum_bytes) == (type(error), str(error), 7)
    assert issubclass(errors.BudgetTooSmallError, MemoryError)
    assert "'x'" in str(errors.ColumnNotFoundError("no column 'x'"))
