"""Expressions compiled to steps, run over frames of rows.

This module covers:
1. sharing: equal sub-expressions are one step (``Program.__init__``);
2. order: children before parents, in the order given (``_schedule``);
3. release: an array is dropped when its last consumer has run (``Program.run``).
This module does *not* cover: the arithmetic (kernels), or reading (sources.chunks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfeat.errors import UnsupportedPrimitiveError
from streamfeat.evaluate.kernels import KERNELS, Array, Context, Windows, calendar
from streamfeat.plan.expr import Call, Column, Constant, Expr


@dataclass(slots=True)
class Frame:
    """Rows of a chunk or tile with their halo.

    ``columns`` are float64 (NaN is null) or, for timestamps, int64 microseconds; all arrays have
    ``n_before + n_rows`` rows and any number behind. ``recursive`` holds finished columns of
    recursive primitives.
    """

    columns: Mapping[str, NDArray[Any]]
    row_in_group: NDArray[np.int64]
    n_before: int
    n_rows: int
    recursive: dict[Expr, Array] = field(default_factory=dict)

    @property
    def own(self) -> slice:
        """The rows that belong to the frame."""
        return slice(self.n_before, self.n_before + self.n_rows)

    def part(self, start: int, stop: int, *, lookback: int, lookahead: int = 0) -> Frame:
        """Views of the own rows ``start`` to ``stop``, with as much halo as there is."""
        first = max(self.n_before + start - lookback, 0)
        last = self.n_before + stop + lookahead
        return Frame(
            {name: values[first:last] for name, values in self.columns.items()},
            self.row_in_group[first:last],
            self.n_before + start - first,
            stop - start,
            {expr: values[first:last] for expr, values in self.recursive.items()},
        )


class Program:
    """Several expressions to be evaluated together.

    Parameters
    ----------
    exprs
        What to compute; the order is the order of the output rows.

    Raises
    ------
    UnsupportedPrimitiveError
        If a primitive has no kernel.

    Examples
    --------
    >>> from streamfeat.plan.primitives import call
    >>> frame = Frame({"x": np.array([1.0, 2.0, 0.0])}, np.arange(3), 0, 3)
    >>> Program([call("div", Constant(1), Column("x"))]).run(frame)
    array([[1. , 0.5, nan]])
    """

    def __init__(self, exprs: Sequence[Expr]) -> None:
        self.exprs = tuple(exprs)
        self.lookback = max((e.lookback for e in exprs), default=0)
        self.lookahead = max((e.lookahead for e in exprs), default=0)
        self.inputs = tuple(sorted({name for e in exprs for name in e.inputs}))
        self.recursive = _recursive_nodes(exprs)
        self._steps = _schedule(exprs)
        self._uses = Counter(child for step in self._steps for child in _arguments(step))
        self._uses.update(self.exprs)

    def __len__(self) -> int:
        return len(self.exprs)

    def run(self, frame: Frame, *, out: Array | None = None) -> Array:
        """Values of the frame's own rows, shape (len(exprs), n_rows), float64, NaN for null."""
        if out is None:
            out = np.empty((len(self.exprs), frame.n_rows))
        run = _Run(frame, Counter(self._uses))
        positions: dict[Expr, list[int]] = {}
        for position, expr in enumerate(self.exprs):
            positions.setdefault(expr, []).append(position)
        with np.errstate(all="ignore"):
            for step in self._steps:
                run.compute(step)
                for position in positions.get(step, ()):
                    out[position] = run.values[step][frame.own]
                    run.release(step)
        return out


def whole(program: Program, frame: Frame) -> Array:
    """Values of every row of the frame, its halo included."""
    n_rows = frame.n_before + frame.n_rows
    return program.run(Frame(frame.columns, frame.row_in_group, 0, n_rows, frame.recursive))


class _Run:
    """One evaluation of a program: the live arrays and who still needs them."""

    def __init__(self, frame: Frame, uses: Counter[Expr]) -> None:
        self.frame = frame
        self.uses = uses
        self.values: dict[Expr, Array] = {}
        self._windows: dict[Expr, Windows] = {}
        self._short: dict[int, NDArray[np.bool_]] = {}

    def compute(self, step: Expr) -> None:
        self.values[step] = self._value(step)
        for child in _arguments(step):
            self.release(child)

    def release(self, node: Expr) -> None:
        self.uses[node] -= 1
        if self.uses[node] == 0:
            self.values.pop(node, None)
            self._windows.pop(node, None)

    def _value(self, step: Expr) -> Array:
        if isinstance(step, Column):
            return self.frame.columns[step.name]
        if isinstance(step, Constant):
            return np.full(len(self.frame.row_in_group), step.value)
        assert isinstance(step, Call)
        if step.primitive.kind == "recursive":
            return self.frame.recursive[step]
        if step.primitive.takes == "timestamp":
            return calendar(step.primitive.name, self.frame.columns[_timestamp(step)])
        context = Context(
            self.frame.row_in_group, lambda k: self._levels(step.args[k]), self._short_rows
        )
        args = [self.values[child] for child in step.args]
        return KERNELS[step.primitive.name](step, args, context)

    def _levels(self, node: Expr) -> Windows:
        if node not in self._windows:
            self._windows[node] = Windows(self.values[node])
        return self._windows[node]

    def _short_rows(self, rows: int) -> NDArray[np.bool_]:
        if rows not in self._short:
            self._short[rows] = self.frame.row_in_group < rows
        return self._short[rows]


def _timestamp(step: Call) -> str:
    (argument,) = step.args
    assert isinstance(argument, Column)
    return argument.name


def _arguments(step: Expr) -> tuple[Expr, ...]:
    """Children whose arrays the step reads."""
    if isinstance(step, Call) and (
        step.primitive.kind == "recursive" or step.primitive.takes == "timestamp"
    ):
        return ()
    return step.children


def _schedule(exprs: Sequence[Expr]) -> tuple[Expr, ...]:
    seen: dict[Expr, None] = {}

    def visit(node: Expr) -> None:
        if node in seen:
            return
        for child in _arguments(node):
            visit(child)
        if isinstance(node, Call) and not _has_kernel(node):
            raise UnsupportedPrimitiveError(f"no kernel for primitive {node.primitive.name!r}")
        seen[node] = None

    for expr in exprs:
        visit(expr)
    return tuple(seen)


def _has_kernel(node: Call) -> bool:
    primitive = node.primitive
    return (
        primitive.name in KERNELS or primitive.kind == "recursive" or primitive.takes == "timestamp"
    )


def _recursive_nodes(exprs: Sequence[Expr]) -> tuple[Call, ...]:
    """Every recursive call, inner ones first."""
    found: dict[Call, None] = {}
    for expr in exprs:
        for node in expr.walk():
            if isinstance(node, Call) and node.primitive.kind == "recursive":
                found[node] = None
    return tuple(found)
