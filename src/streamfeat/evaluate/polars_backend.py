"""Expressions as Polars expressions.

This module covers: one translation per primitive, evaluation of a table, a lazy frame of features,
and the recursion of exponential averages, which the kernels borrow.
This module does *not* cover: choosing what to compute.

User names never reach Polars' expression parser (``^a.*$`` is a pattern there): columns are called
c0, c1, ... inside, unless the caller names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from streamfeat.evaluate.backend import check_supported
from streamfeat.plan.expr import Call, Column, Constant, Expr, Primitive

Array = NDArray[np.float64]
Over = Callable[[Any], Any]
Translation = Callable[[Call, list[Any], Over], Any]

_LONG_RUN_ROWS = 64
"""From this mean length on, a call per run is faster than one call with groups."""


class PolarsBackend:
    """Polars, in memory.

    Examples
    --------
    >>> from streamfeat.plan.parse import parse
    >>> table = pa.table({"x": [1.0, 4.0, -1.0]})
    >>> PolarsBackend().evaluate(table, [parse("sqrt(x)")])["f0"].to_pylist()
    [1.0, 2.0, None]
    """

    name = "polars"

    def supports(self, primitive: Primitive) -> bool:
        return primitive.name in TRANSLATIONS

    def evaluate(
        self,
        table: pa.Table,
        exprs: Sequence[Expr],
        *,
        group: str | None = None,
        time: str | None = None,
    ) -> pa.Table:
        check_supported(self, exprs)
        inside = {name: f"c{k}" for k, name in enumerate(table.column_names)}
        frame = pl.DataFrame(table.rename_columns(list(inside.values())))
        made = [
            polars_expr(expr, columns=inside, group=group, time=time).alias(f"f{k}")
            for k, expr in enumerate(exprs)
        ]
        return frame.select(made).to_arrow()


def polars_expr(
    expr: Expr,
    *,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    time: str | None = None,
    library: Any = pl,
    finite: Callable[[Any], Any] | None = None,
) -> Any:
    """``expr`` as a Polars expression, float64, null for every violation.

    Parameters
    ----------
    columns
        The frame's name of each column; None: its own.
    library, finite
        What stands for ``polars`` and for ``finite_only`` where code is written.
    """
    finite = finite or finite_only
    rename = columns or {}

    def over(inner: Any) -> Any:
        order = library.col(rename.get(time, time)) if time is not None else None
        if group is not None:
            key = library.col(rename.get(group, group))
            return inner.over(key, order_by=order) if order is not None else inner.over(key)
        return inner.over(library.lit(1), order_by=order) if order is not None else inner

    def build(node: Expr) -> Any:
        if isinstance(node, Constant):
            return library.lit(node.value)
        if isinstance(node, Column):
            values = library.col(rename.get(node.name, node.name)).cast(library.Float64)
            return finite(values)
        assert isinstance(node, Call)
        if node.primitive.takes == "timestamp":
            (argument,) = node.args
            assert isinstance(argument, Column)
            return _calendar(node, library.col(rename.get(argument.name, argument.name)), library)
        args = [build(child) for child in node.args]
        made = TRANSLATIONS[node.primitive.name](node, args, over)
        return finite(made)

    return build(expr)


def finite_only(values: pl.Expr) -> Any:
    """``values`` where they are finite, else null."""
    return pl.when(values.is_finite()).then(values)


def _calendar(node: Call, values: Any, library: Any) -> Any:
    part = {
        "day_of_week": "weekday",
        "day_of_year": "ordinal_day",
    }.get(node.primitive.name, node.primitive.name)
    moment = values.cast(library.Datetime("us"))
    return getattr(moment.dt, part)().cast(library.Float64)


def _rolling(name: str) -> Translation:
    def translate(call: Call, args: list[Any], over: Over) -> Any:
        return over(getattr(args[0], name)(int(call.params[0])))

    return translate


class _Ones(list[float]):
    """Weights of 1, which read as what makes them."""

    def __init__(self, count: int) -> None:
        super().__init__([1.0] * count)

    def __repr__(self) -> str:
        return f"[1.0] * {len(self)}"


def _rolling_sum(call: Call, args: list[Any], over: Over) -> Any:
    """With weights each window is added up afresh; without, the kernel slides, and an outlier that
    has left the window leaves its rounding in all that follow. A null in the window makes it null
    by way of the maximum of zeros."""
    x, rows = args[0], int(call.params[0])
    total = over(x.fill_null(0.0).rolling_sum(rows, weights=_Ones(rows)))
    return total + over((x * 0.0).rolling_max(rows))


def _rolling_mean(call: Call, args: list[Any], over: Over) -> Any:
    return _rolling_sum(call, args, over) / float(call.params[0])


def _constant_window(call: Call, x: Any, over: Over) -> Any:
    rows = int(call.params[0])
    return over(x.rolling_max(rows)) == over(x.rolling_min(rows))


def _rolling_std(call: Call, args: list[Any], over: Over) -> Any:
    """0 where all values are equal: the sliding kernel leaves a rest there."""
    spread = over(args[0].rolling_std(int(call.params[0])))
    return spread * (~_constant_window(call, args[0], over)).cast(_float(spread))


def _rolling_zscore(call: Call, args: list[Any], over: Over) -> Any:
    return (args[0] - _rolling_mean(call, args, over)) / _rolling_std(call, args, over)


def _float(values: Any) -> Any:
    return pl.Float64 if isinstance(values, pl.Expr) else values.library.Float64


def _lag(call: Call, args: list[Any], over: Over) -> Any:
    return over(args[0].shift(int(call.params[0])))


def _lead(call: Call, args: list[Any], over: Over) -> Any:
    return over(args[0].shift(-int(call.params[0])))


def _log_return(call: Call, args: list[Any], over: Over) -> Any:
    before = _lag(call, args, over)
    positive = ((args[0] > 0) & (before > 0)).cast(_float(before))
    return (args[0] / before * (positive / positive)).log()


def _ema(call: Call, args: list[Any], over: Over) -> Any:
    span = int(call.params[0])
    return over(args[0].ewm_mean(span=span, adjust=False, ignore_nulls=True))


def _log(_call: Call, args: list[Any], _over: Over) -> Any:
    return args[0].log()


TRANSLATIONS: dict[str, Translation] = {
    "add": lambda _c, a, _o: a[0] + a[1],
    "sub": lambda _c, a, _o: a[0] - a[1],
    "mul": lambda _c, a, _o: a[0] * a[1],
    "div": lambda _c, a, _o: a[0] / a[1],
    "neg": lambda _c, a, _o: -a[0],
    "abs": lambda _c, a, _o: a[0].abs(),
    "clip": lambda c, a, _o: a[0].clip(*c.params),
    "square": lambda _c, a, _o: a[0] * a[0],
    "cube": lambda _c, a, _o: a[0] * a[0] * a[0],
    "sqrt": lambda _c, a, _o: a[0].sqrt(),
    "log": _log,
    "exp": lambda _c, a, _o: a[0].exp(),
    "exp2": lambda _c, a, _o: 2.0 ** a[0],
    "sin": lambda _c, a, _o: a[0].sin(),
    "cos": lambda _c, a, _o: a[0].cos(),
    "lag": _lag,
    "lead": _lead,
    "diff": lambda c, a, o: a[0] - _lag(c, a, o),
    "pct_change": lambda c, a, o: a[0] / _lag(c, a, o) - 1.0,
    "log_return": _log_return,
    "rolling_sum": _rolling_sum,
    "rolling_mean": _rolling_mean,
    "rolling_min": _rolling("rolling_min"),
    "rolling_max": _rolling("rolling_max"),
    "rolling_std": _rolling_std,
    "rolling_zscore": _rolling_zscore,
    "ema": _ema,
    **dict.fromkeys(
        ("year", "month", "day", "day_of_week", "day_of_year", "hour", "minute"),
        lambda c, _a, _o: c,
    ),
}
"""One translation per primitive: the table of what Polars can do."""


def select_polars(
    frame: pl.LazyFrame,
    features: Mapping[str, Expr],
    *,
    keys: Sequence[str],
    group: str | None,
    time: str | None,
) -> pl.LazyFrame:
    """A lazy frame of ``keys`` and ``features``, in the row order of ``frame``."""
    names = frame.collect_schema().names()
    inside = {name: f"c{k}" for k, name in enumerate(names)}
    renamed = frame.select(_exactly(name).alias(inside[name]) for name in names)
    made = [_exactly(inside[key]).alias(key) for key in keys]
    made += [
        polars_expr(expr, columns=inside, group=group, time=time).alias(name)
        for name, expr in features.items()
    ]
    return renamed.select(made)


def _exactly(name: str) -> Any:
    import polars.selectors as cs

    return cs.by_name(name).as_expr()


def ema_runs(
    values: Array, *, span: int, starts: NDArray[np.int64], carry: float | None
) -> tuple[Array, Array]:
    """Exponential averages of consecutive runs, and the state after each row.

    Parameters
    ----------
    values
        Shape (n,), NaN for null.
    starts
        First row of each run, ascending; the first is 0.
    carry
        State before the first row, if the first run goes on from earlier; None or NaN: it begins.

    Returns
    -------
    tuple of ndarray
        The average, NaN where the value is null, and the state, NaN before a run's first value;
        bit for bit the same however a run is cut into pieces.
    """
    if len(values) == 0:
        return values.copy(), values.copy()
    head = np.array([np.nan if carry is None else carry])
    series = pl.Series(np.concatenate((head, values)), nan_to_null=True)
    first = np.concatenate(([0], np.asarray(starts[1:], dtype=np.int64) + 1))
    lengths = np.diff(np.concatenate((first, [len(series)])))
    if len(values) >= _LONG_RUN_ROWS * len(first):
        pairs = zip(first, lengths, strict=True)
        out = pl.concat([_run(series.slice(int(s), int(n)), span) for s, n in pairs])
        state = pl.concat(
            [out.slice(int(s), int(n)).forward_fill() for s, n in zip(first, lengths, strict=True)]
        )
    else:
        frame = pl.DataFrame({"x": series, "g": np.repeat(np.arange(len(first)), lengths)})
        smooth = pl.col("x").ewm_mean(span=span, adjust=False, ignore_nulls=True).over("g")
        frame = frame.with_columns(smooth.alias("y"))
        out = frame["y"]
        state = frame.select(pl.col("y").forward_fill().over("g"))["y"]
    return _floats(out), _floats(state)


def _run(series: pl.Series, span: int) -> pl.Series:
    return series.ewm_mean(span=span, adjust=False, ignore_nulls=True)


def _floats(series: pl.Series) -> Array:
    return np.array(series.slice(1).fill_null(float("nan")).to_numpy(), dtype=np.float64)
