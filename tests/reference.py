"""Every primitive in plain Python, row by row: slow, and obviously right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from streamfeat.plan.expr import Call, Column, Constant, Expr

Value = float | None


def evaluate(
    expr: Expr, columns: dict[str, Sequence[object]], groups: Sequence[object]
) -> list[Value]:
    """Values of ``expr``; rows are in order, ``groups`` are contiguous."""
    n = len(groups)
    if isinstance(expr, Constant):
        return [expr.value] * n
    if isinstance(expr, Column):
        return [number(v) for v in columns[expr.name]]
    assert isinstance(expr, Call)
    if expr.primitive.takes == "timestamp":
        (argument,) = expr.args
        assert isinstance(argument, Column)
        return [calendar(expr.primitive.name, v) for v in columns[argument.name]]
    args = [evaluate(child, columns, groups) for child in expr.args]
    name = expr.primitive.name
    if expr.primitive.kind == "row":
        return [row(name, [arg[i] for arg in args], expr.params) for i in range(n)]
    k = int(expr.params[0])
    out: list[Value] = []
    for i in range(n):
        first = next(j for j in range(n) if groups[j] == groups[i])
        last = max(j for j in range(n) if groups[j] == groups[i])
        out.append(clean(window(name, args[0], first, i, last, k)))
    return out


def number(value: object) -> Value:
    return clean(None if value is None else float(value))  # type: ignore[arg-type]


def clean(value: Value) -> Value:
    return value if value is not None and math.isfinite(value) else None


def row(name: str, args: list[Value], params: Sequence[float] = ()) -> Value:
    if any(a is None for a in args):
        return None
    try:
        return clean(ROW[name](*args, *params))
    except (ValueError, OverflowError, ZeroDivisionError):
        return None


ROW: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "clip": lambda x, low, high: low if x < low else high if x > high else x,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
    "square": lambda a: a * a,
    "cube": lambda a: a * a * a,
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "exp2": lambda a: 2.0**a,
    "sin": math.sin,
    "cos": math.cos,
}


def window(name: str, x: list[Value], first: int, i: int, last: int, k: int) -> Value:
    if name == "ema":
        return ema(x[first : i + 1], k)
    if name in {"lag", "diff", "pct_change", "log_return", "lead"}:
        other = i + k if name == "lead" else i - k
        before = x[other] if first <= other <= last else None
        return against(name, x[i], before)
    if i - first + 1 < k or any(v is None for v in x[i - k + 1 : i + 1]):
        return None
    return statistic(name, [v for v in x[i - k + 1 : i + 1] if v is not None])


def against(name: str, now: Value, before: Value) -> Value:
    if name in {"lag", "lead"}:
        return before
    if now is None or before is None:
        return None
    if name == "diff":
        return now - before
    if before == 0:
        return None
    if name == "pct_change":
        return now / before - 1
    return math.log(now / before) if now > 0 and before > 0 and now / before > 0 else None


def statistic(name: str, rows: list[float]) -> Value:
    if name == "rolling_sum":
        return math.fsum(rows)
    if name == "rolling_min":
        return min(rows)
    if name == "rolling_max":
        return max(rows)
    mean = math.fsum(rows) / len(rows)
    if name == "rolling_mean":
        return mean
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in rows) / (len(rows) - 1))
    if name == "rolling_std":
        return 0.0 if min(rows) == max(rows) else spread
    assert name == "rolling_zscore"
    return None if min(rows) == max(rows) or spread == 0 else (rows[-1] - mean) / spread


def ema(rows: list[Value], span: int) -> Value:
    alpha, state = 2 / (span + 1), None
    for value in rows:
        if value is not None:
            state = value if state is None else (1 - alpha) * state + alpha * value
    return state if rows[-1] is not None else None


def calendar(part: str, value: object) -> Value:
    if value is None:
        return None
    assert isinstance(value, datetime)
    parts = {
        "day_of_week": value.isoweekday(),
        "day_of_year": value.timetuple().tm_yday,
    }
    return float(parts.get(part, 0) or getattr(value, part))
