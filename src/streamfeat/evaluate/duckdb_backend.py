"""Expressions as DuckDB SQL.

This module covers: one translation per primitive, evaluation of a table, a whole SELECT statement.
This module does *not* cover: sorting (sources.order), choosing what to compute.

Every primitive is guarded: DuckDB raises where others give NaN (log of -1), and its sums of windows
are partial at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from streamfeat.evaluate.backend import check_supported
from streamfeat.plan.expr import Call, Column, Constant, Expr, Primitive

Window = Callable[[str, int], str]
Translation = Callable[[Call, list[str], "_Frames"], str]

_ROW = "row__"


class DuckDBBackend:
    """DuckDB, in memory.

    Examples
    --------
    >>> from streamfeat.plan.parse import parse
    >>> table = pa.table({"x": [1.0, 4.0, -1.0]})
    >>> DuckDBBackend().evaluate(table, [parse("sqrt(x)")])["f0"].to_pylist()
    [1.0, 2.0, None]
    """

    name = "duckdb"

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
        import duckdb

        check_supported(self, exprs)
        inside = {name: f"c{k}" for k, name in enumerate(table.column_names)}
        numbered = table.rename_columns(list(inside.values())).append_column(
            _ROW, pa.array(range(table.num_rows), pa.int64())
        )
        order = inside[time] if time is not None else _ROW
        made = ", ".join(
            f"{sql_expr(e, columns=inside, group=group, order=order)} AS f{k}"
            for k, e in enumerate(exprs)
        )
        with duckdb.connect(config={"python_enable_replacements": False}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("rows__", numbered)
            query = f"SELECT {made} FROM rows__ ORDER BY {_ROW}"
            return connection.sql(query).to_arrow_table()


class _Frames:
    """Window clauses of one relation."""

    def __init__(self, group: str | None, order: str | None) -> None:
        parts = [f"PARTITION BY {group}"] if group else []
        parts += [f"ORDER BY {order}"] if order else []
        self._over = " ".join(parts)

    def rolling(self, function: str, x: str, rows: int) -> str:
        """An aggregate of a full window without nulls."""
        frame = f"({self._over} ROWS BETWEEN {rows - 1} PRECEDING AND CURRENT ROW)"
        full = f"count({x}) OVER {frame} = {rows}"
        return f"CASE WHEN {full} THEN {function}({x}) OVER {frame} END"

    def shifted(self, x: str, rows: int) -> str:
        function = "lag" if rows >= 0 else "lead"
        return f"{function}({x}, {abs(rows)}) OVER ({self._over})"

    def history(self, x: str) -> str:
        """All non-null values of the group up to the row, as a list."""
        frame = f"({self._over} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        return f"list({x}) FILTER (WHERE {x} IS NOT NULL) OVER {frame}"


def quote(name: str) -> str:
    """An identifier, whatever is in it.

    >>> print(quote('a "b"'))
    "a \\"\\"b\\"\\""
    """
    return '"' + name.replace('"', '""') + '"'


def sql_expr(
    expr: Expr,
    *,
    columns: Mapping[str, str] | None = None,
    group: str | None = None,
    order: str | None = None,
) -> str:
    """``expr`` as SQL, DOUBLE, NULL for every violation.

    Parameters
    ----------
    columns
        The relation's name of each column; None: its own.
    order
        The column windows follow, by the relation's name.
    """
    rename = columns or {}

    def name(column: str) -> str:
        return quote(rename.get(column, column))

    frames = _Frames(name(group) if group is not None else None, quote(order) if order else None)

    def build(node: Expr) -> str:
        if isinstance(node, Constant):
            return f"CAST({node.value!r} AS DOUBLE)"
        if isinstance(node, Column):
            return finite(f"CAST({name(node.name)} AS DOUBLE)")
        assert isinstance(node, Call)
        if node.primitive.takes == "timestamp":
            (argument,) = node.args
            assert isinstance(argument, Column)
            return TRANSLATIONS[node.primitive.name](node, [name(argument.name)], frames)
        args = [f"({build(child)})" for child in node.args]
        return finite(TRANSLATIONS[node.primitive.name](node, args, frames))

    return build(expr)


def finite(sql: str) -> str:
    """``sql`` where it is finite, else NULL."""
    return f"CASE WHEN isfinite({sql}) THEN {sql} END"


def _guarded(condition: str, value: str) -> Translation:
    return lambda _c, a, _f: f"CASE WHEN {condition.format(*a)} THEN {value.format(*a)} END"


def _rolling(function: str) -> Translation:
    return lambda c, a, f: f.rolling(function, a[0], int(c.params[0]))


def _rolling_std(call: Call, args: list[str], frames: _Frames) -> str:
    """0 where all values are equal, whatever the engine's rounding leaves."""
    x, rows = args[0], int(call.params[0])
    low, high = frames.rolling("min", x, rows), frames.rolling("max", x, rows)
    spread = frames.rolling("stddev_samp", x, rows)
    return f"CASE WHEN ({low}) = ({high}) THEN 0.0 ELSE ({spread}) END"


def _rolling_zscore(call: Call, args: list[str], frames: _Frames) -> str:
    mean = frames.rolling("avg", args[0], int(call.params[0]))
    spread = f"NULLIF({_rolling_std(call, args, frames)}, 0)"
    return f"({args[0]} - ({mean})) / {spread}"


def _lag(call: Call, args: list[str], frames: _Frames) -> str:
    return frames.shifted(args[0], int(call.params[0]))


def _pct_change(call: Call, args: list[str], frames: _Frames) -> str:
    return f"{args[0]} / NULLIF({_lag(call, args, frames)}, 0) - 1"


def _log_return(call: Call, args: list[str], frames: _Frames) -> str:
    before = _lag(call, args, frames)
    ratio = f"{args[0]} / ({before})"
    guard = f"{args[0]} > 0 AND ({before}) > 0"
    return f"CASE WHEN {guard} THEN CASE WHEN {ratio} > 0 THEN ln({ratio}) END END"


def _ema(call: Call, args: list[str], frames: _Frames) -> str:
    alpha = 2.0 / (int(call.params[0]) + 1)
    step = f"lambda a, b: a * {1 - alpha!r}::DOUBLE + b * {alpha!r}::DOUBLE"
    folded = f"list_reduce({frames.history(args[0])}, {step})"
    return f"CASE WHEN {args[0]} IS NOT NULL THEN {folded} END"


def _calendar(sql: str) -> Translation:
    return lambda _c, a, _f: f"CAST({sql.format(a[0])} AS DOUBLE)"


TRANSLATIONS: dict[str, Translation] = {
    "add": lambda _c, a, _f: f"{a[0]} + {a[1]}",
    "sub": lambda _c, a, _f: f"{a[0]} - {a[1]}",
    "mul": lambda _c, a, _f: f"{a[0]} * {a[1]}",
    "div": lambda _c, a, _f: f"{a[0]} / NULLIF({a[1]}, 0)",
    "neg": lambda _c, a, _f: f"-{a[0]}",
    "abs": lambda _c, a, _f: f"abs({a[0]})",
    "square": lambda _c, a, _f: f"{a[0]} * {a[0]}",
    "cube": lambda _c, a, _f: f"{a[0]} * {a[0]} * {a[0]}",
    "sqrt": _guarded("{0} >= 0", "sqrt({0})"),
    "log": _guarded("{0} > 0", "ln({0})"),
    "exp": _guarded("{0} < 709.78271289338397", "exp({0})"),
    "exp2": _guarded("{0} < 1024", "pow(2.0::DOUBLE, {0})"),
    "sin": lambda _c, a, _f: f"sin({a[0]})",
    "cos": lambda _c, a, _f: f"cos({a[0]})",
    "lag": _lag,
    "lead": lambda c, a, f: f.shifted(a[0], -int(c.params[0])),
    "diff": lambda c, a, f: f"{a[0]} - ({_lag(c, a, f)})",
    "pct_change": _pct_change,
    "log_return": _log_return,
    "rolling_sum": _rolling("sum"),
    "rolling_mean": _rolling("avg"),
    "rolling_min": _rolling("min"),
    "rolling_max": _rolling("max"),
    "rolling_std": _rolling_std,
    "rolling_zscore": _rolling_zscore,
    "ema": _ema,
    "year": _calendar("year({})"),
    "month": _calendar("month({})"),
    "day": _calendar("day({})"),
    "day_of_week": _calendar("isodow({})"),
    "day_of_year": _calendar("dayofyear({})"),
    "hour": _calendar("hour({}::TIMESTAMP)"),
    "minute": _calendar("minute({}::TIMESTAMP)"),
}
"""One translation per primitive: the table of what DuckDB can do."""


def select_sql(
    features: Mapping[str, Expr],
    *,
    relation: str,
    keys: Sequence[str],
    group: str | None,
    time: str | None,
) -> str:
    """A SELECT statement of ``keys`` and ``features`` from ``relation``, which is put as it is."""
    made = [quote(key) for key in keys]
    made += [
        f"{sql_expr(expr, group=group, order=time)} AS {quote(name)}"
        for name, expr in features.items()
    ]
    columns = ",\n  ".join(made)
    return f"SELECT\n  {columns}\nFROM {relation}"
