"""The vocabulary: every primitive, declared in a line or two.

This module covers: names, arity, kind, window rule, cost and the source of the definition.
This module does *not* cover: how a backend computes one (evaluate.*_backend, evaluate.kernels).

A domain violation, an overflow or a missing input gives null; inf and NaN never leave a primitive.
A window that holds fewer rows of its group than its length, or any null, gives null.
"""

from __future__ import annotations

from streamfeat.errors import ExpressionError
from streamfeat.plan.expr import Call, Column, Constant, Expr, Number, Primitive

ADD = Primitive("add", 2, symbol="+", precedence=1, commutative=True)
SUB = Primitive("sub", 2, symbol="-", precedence=1)
MUL = Primitive("mul", 2, symbol="*", precedence=2, commutative=True)
DIV = Primitive("div", 2, symbol="/", precedence=2, domain="{1} != 0")

ROW_PRIMITIVES = (
    Primitive("neg", 1),
    Primitive("abs", 1),
    Primitive("square", 1),
    Primitive("cube", 1, cost=2.0),
    Primitive("sqrt", 1, cost=2.0, domain="{0} >= 0"),
    Primitive("log", 1, cost=8.0, domain="{0} > 0", source="natural logarithm"),
    Primitive("exp", 1, cost=8.0, domain="{0} < 709.78"),
    Primitive("exp2", 1, cost=8.0, domain="{0} < 1024", source="2 ** x"),
    Primitive("sin", 1, cost=12.0, source="radians"),
    Primitive("cos", 1, cost=12.0, source="radians"),
    Primitive(
        "clip", 1, 2, whole_params=False, source="low where x < low, high where x > high, else x"
    ),
)

CALENDAR_PRIMITIVES = tuple(
    Primitive(name, 1, takes="timestamp", cost=6.0, source=source)
    for name, source in {
        "year": "proleptic Gregorian year",
        "month": "1 to 12",
        "day": "day of the month, 1 to 31",
        "day_of_week": "Monday is 1, Sunday is 7 (ISO 8601)",
        "day_of_year": "1 to 366",
        "hour": "0 to 23",
        "minute": "0 to 59",
    }.items()
)

WINDOW_PRIMITIVES = (
    Primitive("lag", 1, 1, "window", "lag"),
    Primitive("diff", 1, 1, "window", "lag", cost=2.0, source="x - lag(x, k)"),
    Primitive("pct_change", 1, 1, "window", "lag", cost=3.0, source="x / lag(x, k) - 1"),
    Primitive(
        "log_return",
        1,
        1,
        "window",
        "lag",
        cost=10.0,
        source="log(x / lag(x, k)); null unless both are positive",
    ),
    Primitive("rolling_sum", 1, 1, "window", "length", cost=6.0),
    Primitive("rolling_mean", 1, 1, "window", "length", cost=6.0),
    Primitive(
        "rolling_std",
        1,
        1,
        "window",
        "length",
        cost=15.0,
        least_param=2,
        source="sample standard deviation (n - 1); 0 where all values are equal",
    ),
    Primitive("rolling_min", 1, 1, "window", "length", cost=6.0),
    Primitive("rolling_max", 1, 1, "window", "length", cost=6.0),
    Primitive(
        "rolling_zscore",
        1,
        1,
        "window",
        "length",
        cost=18.0,
        least_param=2,
        source="(x - rolling_mean) / rolling_std; null where all values are equal",
    ),
    Primitive(
        "ema",
        1,
        1,
        "recursive",
        cost=20.0,
        source="alpha = 2 / (span + 1); first value is the first observation; "
        "y = (1 - alpha) * y_before + alpha * x; a null row is null and leaves the state alone",
    ),
)

LEAD = Primitive("lead", 1, 1, "window", "lag", looks_ahead=True, source="labels only")

INFIX = {p.symbol: p for p in (ADD, SUB, MUL, DIV)}
PRIMITIVES: dict[str, Primitive] = {
    p.name: p
    for p in (
        ADD,
        SUB,
        MUL,
        DIV,
        *ROW_PRIMITIVES,
        *CALENDAR_PRIMITIVES,
        *WINDOW_PRIMITIVES,
        LEAD,
    )
}


def call(name: str, *args: Expr | str, params: tuple[Number, ...] = ()) -> Call:
    """A checked call of the primitive ``name``; a text argument names a column.

    Raises
    ------
    ExpressionError
        If the primitive is unknown, or the arguments do not fit it.

    Examples
    --------
    >>> str(call("div", "close", call("rolling_mean", "close", params=(20,))))
    'close / rolling_mean(close, 20)'
    """
    primitive = PRIMITIVES.get(name)
    if primitive is None:
        raise ExpressionError(f"no primitive is named {name!r}", hint=_known())
    if len(args) != primitive.arity or len(params) != primitive.n_params:
        raise ExpressionError(
            f"{name} takes {primitive.arity} expression(s) and {primitive.n_params} number(s); "
            f"got {len(args)} and {len(params)}"
        )
    if not primitive.whole_params:
        return Call(primitive, _nodes(args), tuple(map(float, params)))
    for value in params:
        if value != int(value) or value < primitive.least_param:
            raise ExpressionError(
                f"{name} takes a whole number of rows, at least {primitive.least_param}; "
                f"got {value}"
            )
    return Call(primitive, _nodes(args), tuple(int(p) for p in params))


def _nodes(args: tuple[Expr | str, ...]) -> tuple[Expr, ...]:
    return tuple(Column(a) if isinstance(a, str) else a for a in args)


def reciprocal(x: Expr) -> Call:
    """1 / x, as division.

    >>> str(reciprocal(Column("x")))
    '1 / x'
    """
    return call("div", Constant(1.0), x)


def _known() -> str:
    return "known primitives: " + ", ".join(sorted(PRIMITIVES))
