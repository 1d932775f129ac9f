"""Recursive primitives across chunks: each group's last state is carried, so values are exact.

This module covers: evaluating recursive calls over a chunk's frame and remembering their state.
This module does *not* cover: the recursion itself (polars_backend.ema_runs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from streamfeat.evaluate.kernels import Array
from streamfeat.evaluate.program import Frame, Program, whole
from streamfeat.plan.expr import Call


class Recursion:
    """The recursive calls of a program, fed chunk after chunk in row order.

    A chunk's frame begins with ``lookback`` rows of halo. The argument of a call needs its own
    history, so the call is defined from row ``argument.lookback`` of the frame on, and the state
    before that row is what the chunk before left behind.

    Parameters
    ----------
    program
        Whose recursive calls to evaluate.
    state
        ``state`` of an interrupted run, to go on from its last chunk.
    """

    def __init__(self, program: Program, *, state: Mapping[str, str] | None = None) -> None:
        self._lookback = program.lookback
        self._arguments = {node: Program(node.args) for node in program.recursive}
        self._carry = {
            node: float.fromhex(state[str(node)]) if state and str(node) in state else math.nan
            for node in program.recursive
        }

    @property
    def state(self) -> dict[str, str]:
        """What the next chunk needs, as text that survives JSON to the last bit."""
        return {str(node): value.hex() for node, value in self._carry.items()}

    def fill(self, frame: Frame, *, at_start: bool) -> None:
        """Put the columns of all recursive calls into ``frame.recursive``.

        ``at_start`` says that no row comes before the frame's first one.
        """
        for node, argument in self._arguments.items():
            frame.recursive[node] = self._column(node, argument, frame, at_start)

    def _column(self, node: Call, argument: Program, frame: Frame, at_start: bool) -> Array:
        from streamfeat.evaluate.polars_backend import ema_runs

        first = 0 if at_start else min(argument.lookback, frame.n_before)
        values = whole(argument, frame)[0][first:]
        position = frame.row_in_group[first : first + len(values)]
        starts = np.flatnonzero(position == 0)
        fresh = len(position) == 0 or position[0] == 0
        if not fresh:
            starts = np.concatenate(([0], starts))
        carry = None if fresh else self._carry[node]
        out, states = ema_runs(values, span=int(node.params[0]), starts=starts, carry=carry)
        self._remember(node, argument, frame, first, states)
        column = np.full(len(frame.row_in_group), np.nan)
        column[first : first + len(out)] = out
        return column

    def _remember(
        self, node: Call, argument: Program, frame: Frame, first: int, states: Array
    ) -> None:
        last = frame.n_before + frame.n_rows - self._lookback + argument.lookback - 1 - first
        self._carry[node] = float(states[last]) if 0 <= last < len(states) else math.nan
