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
        order = quote(inside[time] if time is not None else _ROW)
        query = _query(
            {f"f{k}": expr for k, expr in enumerate(exprs)},
            relation="rows__",
            columns=inside,
            frames=_Frames(quote(inside[group]) if group is not None else None, order),
            keys=(),
        )
        with duckdb.connect(config={"python_enable_replacements": False}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("rows__", numbered)
            return connection.sql(f"{query}\nORDER BY {_ROW}").to_arrow_table()


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

    >>> len(quote('a "b"'))
    9
    """
    return '"' + name.replace('"', '""') + '"'


class _Stages:
    """Each node a column of the stage after its arguments': windows never nest, no text repeats."""

    def __init__(self, columns: Mapping[str, str], frames: _Frames) -> None:
        self._columns = columns
        self._frames = frames
        self._names: dict[Expr, str] = {}
        self.levels: list[list[str]] = []

    def add(self, node: Expr) -> str:
        """The SQL that stands for ``node`` after its stage."""
        if isinstance(node, Constant):
            return f"CAST({node.value!r} AS DOUBLE)"
        if node not in self._names:
            self._names[node] = f"sf__{len(self._names) + 1}"
            sql = self._sql(node)
            level = self._level(node)
            self.levels += [[] for _ in range(level + 1 - len(self.levels))]
            self.levels[level].append(f"{sql} AS {self._names[node]}")
        return self._names[node]

    def _level(self, node: Expr) -> int:
        """0 for columns and calendar parts, else one more than the arguments'."""
        if isinstance(node, Call) and node.primitive.takes == "timestamp":
            return 0
        inner = [self._level(c) for c in node.children if not isinstance(c, Constant)]
        return 1 + max(inner, default=-1)

    def _sql(self, node: Expr) -> str:
        if isinstance(node, Column):
            return finite(f"CAST({self._column(node.name)} AS DOUBLE)")
        assert isinstance(node, Call)
        translate = TRANSLATIONS[node.primitive.name]
        if node.primitive.takes == "timestamp":
            (argument,) = node.args
            assert isinstance(argument, Column)
            return translate(node, [self._column(argument.name)], self._frames)
        return finite(translate(node, [self.add(child) for child in node.args], self._frames))

    def _column(self, name: str) -> str:
        return quote(self._columns.get(name, name))


def _query(
    features: Mapping[str, Expr],
    *,
    relation: str,
    columns: Mapping[str, str],
    frames: _Frames,
    keys: Sequence[str],
) -> str:
    stages = _Stages(columns, frames)
    made = [quote(key) for key in keys]
    made += [f"{stages.add(expr)} AS {quote(name)}" for name, expr in features.items()]
    parts, before = [], relation
    for number, level in enumerate(stages.levels, 1):
        inner = ",\n    ".join(["*", *level])
        parts.append(f"stage__{number} AS (\n  SELECT\n    {inner}\n  FROM {before}\n)")
        before = f"stage__{number}"
    head = f"WITH {', '.join(parts)}\n" if parts else ""
    select = ",\n  ".join(made) or "1"
    return f"{head}SELECT\n  {select}\nFROM {before}"


def finite(sql: str) -> str:
    """``sql`` where it is finite, else NULL."""
    return f"CASE WHEN isfinite({sql}) THEN {sql} END"


def _number(value: float) -> str:
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def _clipped(x: str, low: str, high: str) -> str:
    return f"CASE WHEN {x} < {low} THEN {low} WHEN {x} > {high} THEN {high} ELSE {x} END"


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
    "clip": lambda c, a, _f: _clipped(a[0], *map(_number, c.params)),
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
    frames = _Frames(quote(group) if group is not None else None, quote(time) if time else None)
    return _query(features, relation=relation, columns={}, frames=frames, keys=keys)
