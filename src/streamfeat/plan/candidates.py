"""The grammar: which terms are tried, and which pairs of them.

This module covers:
1. terms of level 0 and 1: columns, unary transforms, windows, calendar parts (``terms``);
2. reciprocals, so that a ratio is a product of two terms;
3. how many pairs that makes (``count_pairs``) and the formula of a pair (``pair``).
This module does *not* cover: scoring (selection.screen), or the vocabulary (plan.primitives).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from streamfeat.plan.expr import Call, Column, Constant, Expr
from streamfeat.plan.primitives import call, reciprocal
from streamfeat.plan.rewrites import canonical
from streamfeat.sources.roles import Roles

Operation = Literal["mul", "add", "sub"]

_ONE = Constant(1)
TRANSFORMATIONS: dict[str, Callable[[Expr], Expr]] = {
    "1/": reciprocal,
    "exp": lambda x: call("exp", x),
    "log": lambda x: call("log", x),
    "abs": lambda x: call("abs", x),
    "sqrt": lambda x: call("sqrt", x),
    "^2": lambda x: call("square", x),
    "^3": lambda x: call("cube", x),
    "1+": lambda x: call("add", _ONE, x),
    "1-": lambda x: call("sub", _ONE, x),
    "sin": lambda x: call("sin", x),
    "cos": lambda x: call("cos", x),
    "exp-": lambda x: call("exp", call("neg", x)),
    "2^": lambda x: call("exp2", x),
}
"""AutoFeat's names of its unary transforms, and what they build."""

CALENDAR_PARTS = ("month", "day", "day_of_week", "hour", "minute")


@dataclass(frozen=True, slots=True)
class Term:
    """An expression of level 0 or 1; ``divides`` names the term it is the reciprocal of."""

    expr: Expr
    divides: Expr | None = None

    @property
    def is_column(self) -> bool:
        return isinstance(self.expr, Column)


def terms(
    roles: Roles, *, transformations: Sequence[str], windows: Sequence[int]
) -> tuple[Term, ...]:
    """Every term of level 0 and 1, without repeats, in a fixed order.

    Examples
    --------
    >>> made = terms(Roles(numeric=("x",)), transformations=("log", "^2"), windows=())
    >>> [str(t.expr) for t in made]
    ['x', 'log(x)', 'square(x)', '1 / x']
    """
    columns = [Column(name) for name in roles.numeric]
    made: list[Expr] = [*columns]
    made += [TRANSFORMATIONS[t](c) for c in columns for t in transformations if t != "1/"]
    made += _calendar(roles.timestamps)
    levels: list[Expr] = list(columns)
    if roles.ordered:
        windowed = list(_windows(roles, sorted(windows)))
        made += windowed
        levels += [e for e in windowed if _is_level(e)]
    unique = dict.fromkeys(canonical(e) for e in made)
    ratios = {canonical(reciprocal(e)): canonical(e) for e in levels}
    return (
        *(Term(e) for e in unique if e not in ratios),
        *(Term(e, divides=of) for e, of in ratios.items()),
    )


def _calendar(timestamps: Iterable[str]) -> list[Expr]:
    return [call(part, name) for name in timestamps for part in CALENDAR_PARTS]


def _is_level(expr: Expr) -> bool:
    """Whether a window has the units of its column, so that a ratio to it makes sense."""
    return isinstance(expr, Call) and expr.primitive.name in {
        "rolling_mean", "rolling_std", "rolling_min", "rolling_max", "ema",
    }  # fmt: skip


def _windows(roles: Roles, windows: Sequence[int]) -> Iterator[Expr]:
    bars = {roles.open, roles.high, roles.low, roles.close, roles.volume} - {None}
    plain = [name for name in roles.numeric if name not in bars]
    for name in plain:
        yield from _column_windows(name, windows, changes=(1,))
    if roles.close in roles.numeric and roles.close:
        yield from _column_windows(roles.close, windows, changes=(1, *windows))
        yield from (
            call("rolling_std", call("pct_change", roles.close, params=(1,)), params=(w,))
            for w in windows
        )
    if roles.volume in roles.numeric and roles.volume:
        yield from _column_windows(roles.volume, windows, changes=(1,))
    if roles.high in roles.numeric and roles.high:
        yield from (call("rolling_max", roles.high, params=(w,)) for w in windows)
    if roles.low in roles.numeric and roles.low:
        yield from (call("rolling_min", roles.low, params=(w,)) for w in windows)


def _column_windows(name: str, windows: Sequence[int], *, changes: Sequence[int]) -> Iterator[Expr]:
    yield call("lag", name, params=(1,))
    yield call("diff", name, params=(1,))
    yield call("log_return", name, params=(1,))
    yield from (call("pct_change", name, params=(k,)) for k in changes)
    for statistic in ("rolling_mean", "rolling_std", "rolling_min", "rolling_max"):
        yield from (call(statistic, name, params=(w,)) for w in windows)
    yield from (call("rolling_zscore", name, params=(w,)) for w in windows)
    if len(changes) > 1:
        yield from (call("ema", name, params=(w,)) for w in windows)


def pair(operation: Operation, left: Term, right: Term) -> Expr:
    """The canonical formula of a pair.

    >>> x, y = Term(Column("x")), Term(reciprocal(Column("y")), divides=Column("y"))
    >>> str(pair("mul", x, y))
    'x / y'
    """
    return canonical(call(operation, left.expr, right.expr))


def is_trivial(left: Term, right: Term) -> bool:
    """Whether the product says nothing new: x * (1 / x)."""
    return left.divides == right.expr or right.divides == left.expr


def count_pairs(n_terms: int) -> int:
    """Products (squares included), sums and differences of ``n_terms`` terms.

    >>> count_pairs(3)
    12
    """
    return n_terms * (n_terms + 1) // 2 + n_terms * (n_terms - 1)
