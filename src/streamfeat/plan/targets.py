"""What is to be predicted: labels made from the data itself.

This module covers: later values and forward returns, and their text form.
This module does *not* cover: checking a target's values (search.target).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamfeat.errors import TargetError
from streamfeat.plan.expr import Call, Column, Constant, Expr
from streamfeat.plan.parse import parse
from streamfeat.plan.primitives import LEAD, call

_TEXT = re.compile(r"\s*(?P<kind>forward|forward_return)\((?P<what>.+),\s*(?P<rows>\d+)\s*\)\s*\Z")


@dataclass(frozen=True, slots=True)
class Label:
    """A number that lies ``horizon`` rows ahead in the same group."""

    text: str
    expr: Expr
    horizon: int

    def __str__(self) -> str:
        return self.text


def forward_return(column: str, horizon: int = 1) -> Label:
    """The label "return over the next ``horizon`` rows of the same group".

    ``lead(column, horizon) / column - 1``; null where either is missing or 0.

    Parameters
    ----------
    column
        A price column.
    horizon
        Rows ahead, at least 1. The last ``horizon`` rows of a group have no label.

    Raises
    ------
    TargetError
        If ``horizon`` is not a whole number of at least 1.

    Examples
    --------
    >>> str(forward_return("close", 5))
    'forward_return(close, 5)'
    """
    price = Column(column)
    later = _later(price, horizon, "forward_return")
    made = call("sub", call("div", later, price), Constant(1))
    return Label(f"forward_return({price}, {horizon})", made, horizon)


def forward(formula: str, horizon: int = 1) -> Label:
    """The label "value of a formula ``horizon`` rows later in the same group".

    Parameters
    ----------
    formula
        Text of an expression, such as ``"(high - low) / close"`` for the range of a bar.
    horizon
        Rows ahead, at least 1.

    Raises
    ------
    TargetError
        If ``horizon`` is not a whole number of at least 1.
    ExpressionError
        If the formula cannot be read.

    Examples
    --------
    >>> str(forward("(high - low) / close"))
    'forward((high - low) / close, 1)'
    """
    value = parse(formula)
    return Label(f"forward({value}, {horizon})", _later(value, horizon, "forward"), horizon)


def _later(value: Expr, horizon: int, name: str) -> Call:
    if isinstance(horizon, bool) or horizon != int(horizon) or horizon < 1:
        raise TargetError(
            f"{name}: horizon must be a whole number of rows, at least 1; got {horizon!r}"
        )
    return Call(LEAD, (value,), (int(horizon),))


def parse_target(text: str) -> Label | None:
    """The label that ``text`` describes, or None if it is no label's text.

    >>> parse_target("forward_return(close, 5)").horizon
    5
    """
    match = _TEXT.match(text)
    if match is None:
        return None
    if match["kind"] == "forward":
        return forward(match["what"], int(match["rows"]))
    column = parse(match["what"])
    if not isinstance(column, Column):
        raise TargetError(
            f"forward_return takes a column; {match['what']!r} is a formula",
            hint="use forward(formula, rows)",
        )
    return forward_return(column.name, int(match["rows"]))
