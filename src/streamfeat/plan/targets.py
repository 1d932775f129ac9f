"""What is to be predicted: labels made from the data itself.

This module covers: forward returns and their text form.
This module does *not* cover: checking a target column's values (search.target).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamfeat.errors import TargetError
from streamfeat.plan.expr import Call, Column, Constant, Expr
from streamfeat.plan.primitives import LEAD, call

_TEXT = re.compile(r"\s*forward_return\(\s*(?P<column>.+?)\s*,\s*(?P<horizon>\d+)\s*\)\s*\Z")


@dataclass(frozen=True, slots=True)
class ForwardReturn:
    """The return from this row to ``horizon`` rows later in the same group."""

    column: str
    horizon: int

    @property
    def expr(self) -> Expr:
        """``lead(column, horizon) / column - 1``; null where either is missing or 0."""
        price = Column(self.column)
        later = Call(LEAD, (price,), (self.horizon,))
        return call("sub", call("div", later, price), Constant(1))

    def __str__(self) -> str:
        return f"forward_return({self.column}, {self.horizon})"


def forward_return(column: str, horizon: int = 1) -> ForwardReturn:
    """The label "return over the next ``horizon`` rows of the same group".

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
    if isinstance(horizon, bool) or int(horizon) != horizon or horizon < 1:
        raise TargetError(
            f"forward_return: horizon must be a whole number of rows, at least 1; got {horizon!r}"
        )
    return ForwardReturn(column, int(horizon))


def parse_target(text: str) -> ForwardReturn | None:
    """The label that ``text`` describes, or None if it is no label's text.

    >>> parse_target("forward_return(close, 5)")
    ForwardReturn(column='close', horizon=5)
    """
    match = _TEXT.match(text)
    return forward_return(match["column"], int(match["horizon"])) if match else None
