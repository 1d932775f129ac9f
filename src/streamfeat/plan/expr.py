"""The expression tree: frozen nodes that answer planning questions without touching rows.

This module covers: columns, constants, calls of primitives; their text, inputs, lookback and cost.
This module does *not* cover: the vocabulary (plan.primitives), reading text (plan.parse),
canonical form (plan.rewrites), or values (evaluate).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Number = int | float
Kind = Literal["row", "window", "recursive"]
Dtype = Literal["number", "timestamp"]

_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Primitive:
    """One word of the vocabulary.

    Parameters
    ----------
    name
        How the call is spelled in text; an infix primitive also has a ``symbol``.
    arity
        Number of expression arguments; they come before the parameters.
    kind
        ``row``: the value of a row depends on that row alone. ``window``: on a fixed number of
        rows of its group that end with it. ``recursive``: on all earlier rows of its group.
    window_rows
        For window primitives: "lag" means the parameter counts rows back, so ``k`` rows of
        history; "length" means the window includes the current row, so ``k - 1``.
    takes
        The type of the arguments.
    symbol, precedence
        Infix spelling, and how tightly it binds.
    cost
        Rough nanoseconds for one value.
    domain
        Where a value is defined, about the arguments {0}, {1}; empty: everywhere.
    whole_params
        Whether the parameters count rows; else they are any finite numbers.
    looks_ahead
        True only for label primitives; they never occur in a feature.
    """

    name: str
    arity: int
    n_params: int = 0
    kind: Kind = "row"
    window_rows: Literal["none", "lag", "length"] = "none"
    takes: Dtype = "number"
    symbol: str = ""
    precedence: int = 0
    commutative: bool = False
    cost: float = 1.0
    looks_ahead: bool = False
    least_param: int = 1
    whole_params: bool = True
    domain: str = ""
    source: str = field(default="", compare=False)


class Expr:
    """Base of all nodes: immutable, hashable, its ``str`` is the canonical formula text."""

    __slots__ = ()

    @property
    def children(self) -> tuple[Expr, ...]:
        return ()

    @property
    def lookback(self) -> int:
        """Rows of history of the same group that a value depends on (recursive ones aside)."""
        return max((child.lookback for child in self.children), default=0)

    @property
    def lookahead(self) -> int:
        """Rows of the future that a value depends on; 0 for every feature."""
        return max((child.lookahead for child in self.children), default=0)

    @property
    def cost(self) -> float:
        """Rough nanoseconds for one value, shared parts counted each time."""
        return sum(child.cost for child in self.children)

    @property
    def depth(self) -> int:
        return 1 + max((child.depth for child in self.children), default=-1)

    @property
    def n_nodes(self) -> int:
        return 1 + sum(child.n_nodes for child in self.children)

    def walk(self) -> Iterator[Expr]:
        """Every node below and including this one, children first."""
        for child in self.children:
            yield from child.walk()
        yield self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns read, sorted."""
        return tuple(sorted({node.name for node in self.walk() if isinstance(node, Column)}))

    @property
    def domain(self) -> tuple[str, ...]:
        """Conditions outside which a value is null, inner ones first."""
        told: dict[str, None] = {}
        for node in self.walk():
            if isinstance(node, Call) and node.primitive.domain:
                told[node.primitive.domain.format(*(_wrapped(a, 3) for a in node.args))] = None
        return tuple(told)

    @property
    def kind(self) -> Kind:
        kinds = {node.primitive.kind for node in self.walk() if isinstance(node, Call)}
        return "recursive" if "recursive" in kinds else "window" if "window" in kinds else "row"


@dataclass(frozen=True)
class Column(Expr):
    """A column of the source.

    >>> str(Column("close")), str(Column("odd name"))
    ('close', '`odd name`')
    """

    name: str

    def __str__(self) -> str:
        if _BARE_NAME.match(self.name):
            return self.name
        return "`" + self.name.replace("`", "``") + "`"


@dataclass(frozen=True)
class Constant(Expr):
    """A finite number.

    >>> str(Constant(2.0))
    '2'
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))

    def __str__(self) -> str:
        return number_text(self.value)


@dataclass(frozen=True)
class Call(Expr):
    """A primitive applied to expressions and numbers.

    >>> from streamfeat.plan.primitives import PRIMITIVES
    >>> lag = Call(PRIMITIVES["lag"], (Column("close"),), (3,))
    >>> str(lag), lag.lookback
    ('lag(close, 3)', 3)
    """

    primitive: Primitive
    args: tuple[Expr, ...]
    params: tuple[Number, ...] = ()

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args

    @cached_property
    def _hash(self) -> int:
        return hash((self.primitive.name, self.args, self.params))

    def __hash__(self) -> int:
        return self._hash

    @property
    def lookback(self) -> int:
        rows = {"none": 0, "lag": 0, "length": -1}[self.primitive.window_rows]
        own = 0 if self.primitive.window_rows == "none" else int(self.params[0]) + rows
        return max(a.lookback for a in self.args) + (0 if self.primitive.looks_ahead else own)

    @property
    def lookahead(self) -> int:
        own = int(self.params[0]) if self.primitive.looks_ahead else 0
        return max(a.lookahead for a in self.args) + own

    @property
    def cost(self) -> float:
        return sum(a.cost for a in self.args) + self.primitive.cost

    @cached_property
    def _text(self) -> str:
        p = self.primitive
        if not p.symbol:
            return f"{p.name}({', '.join([*map(str, self.args), *map(number_text, self.params)])})"
        left, right = self.args
        return f"{_wrapped(left, p.precedence)} {p.symbol} {_wrapped(right, p.precedence + 1)}"

    def __str__(self) -> str:
        return self._text


def _wrapped(child: Expr, at_least: int) -> str:
    loose = (
        isinstance(child, Call)
        and child.primitive.symbol
        and (child.primitive.precedence < at_least)
    )
    negative = isinstance(child, Constant) and math.copysign(1.0, child.value) < 0
    return f"({child})" if loose or negative else str(child)


def number_text(value: Number) -> str:
    """The shortest text that reads back as the same number.

    >>> number_text(2.0), number_text(0.1)
    ('2', '0.1')
    """
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
