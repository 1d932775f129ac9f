"""Which rows count for what: the label of each row and the block of the data it belongs to.

This module covers: the first passes, which look at the target and at time (``label_rows``).
This module does *not* cover: the geometry of blocks (selection.folds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamfeat.evaluate.kernels import NULL_TIME, Array
from streamfeat.evaluate.program import Frame, Program
from streamfeat.evaluate.scan import Scanner, Tile
from streamfeat.plan.expr import Expr
from streamfeat.search.target import Target, TargetValues, Task, settle, text_classes
from streamfeat.selection.folds import HashFolds, TimeFolds, TimeHistogram, time_folds

Blocks = NDArray[np.int16]
T = TypeVar("T")
_NO_TIMES = np.empty(0, dtype=np.int64)
_LABELS_PER_BLOCK = 2
"""A block is at least this many labels long, or purging its border would leave too little of it."""


@dataclass(frozen=True)
class Labels:
    """The labels of a run: target, blocks, and the time column that orders them."""

    target: Target
    folds: HashFolds | TimeFolds
    time: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time,) if self.time else ()

    def of(self, tile: Tile, values: Array) -> tuple[Array, Blocks]:
        """Numbers to predict, shape (n_outputs, n), and block of each row; -1: takes no part."""
        blocks = self._blocks(tile)
        blocks[np.isnan(values)] = -1
        return self.target.outputs(values), blocks

    def run(
        self,
        scanner: Scanner,
        name: str,
        exprs: Sequence[Expr],
        work: Callable[[Tile], T],
        absorb: Callable[[T], object],
    ) -> None:
        """A pass over tiles that hold what ``exprs`` and the labels need."""
        scanner.run(
            name, Program([*exprs, self.target.expr]), work, absorb,
            columns=self.columns, passthrough=self.target.passthrough, derive=self.target.derive,
        )  # fmt: skip

    def _blocks(self, tile: Tile) -> Blocks:
        frame = tile.frame
        if isinstance(self.folds, HashFolds):
            return self.folds.assign(tile.start_row + np.arange(frame.n_rows, dtype=np.int64))
        assert self.time is not None
        time, end = _label_span(frame, self.time, self.target.horizon)
        return self.folds.assign(time, end)


def _label_span(
    frame: Frame, name: str, horizon: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each row's label begins and ends, int64."""
    time = whole_times(frame.columns[name])
    end = np.full_like(time, NULL_TIME)
    end[: max(len(time) - horizon, 0)] = time[horizon:]
    return time[frame.own], end[frame.own]


def whole_times(values: NDArray[Any]) -> NDArray[np.int64]:
    """A time column as int64: microseconds, or whole numbers of a numeric time column."""
    if values.dtype == np.int64:
        return values
    known = np.isfinite(values)
    out = np.full(len(values), NULL_TIME)
    out[known] = np.floor(values[known]).astype(np.int64)
    return out


def label_rows(
    scanner: Scanner, target: Target, *, time: str | None, task: Task | None, seed: int
) -> Labels:
    """Look at the target and at time once each, and lay out the blocks.

    Raises
    ------
    TargetError
        If the target is all null, constant, or has too many classes.
    """
    target = text_classes(scanner.source, target)
    program = Program([target.expr])
    values, span = TargetValues(), _TimeSpan()

    def work(tile: Tile) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
        labels = program.run(tile.frame)[0]
        if time is None:
            return labels, _NO_TIMES, _NO_TIMES
        begin, end = _label_span(tile.frame, time, target.horizon)
        known = ~np.isnan(labels)
        return labels, begin, end[known] - begin[known]

    def absorb(seen: tuple[Array, NDArray[np.int64], NDArray[np.int64]]) -> None:
        values.update(seen[0])
        span.update(seen[1], seen[2])

    scanner.run(
        "look at the target", program, work, absorb,
        columns=[time] if time else [], passthrough=target.passthrough, derive=target.derive,
    )  # fmt: skip
    target = settle(target, values, task)
    if time is None or span.minimum > span.maximum:
        return Labels(target, HashFolds(seed), None)
    return Labels(target, _time_folds(scanner, time, span), time)


@dataclass
class _TimeSpan:
    minimum: int = np.iinfo(np.int64).max
    maximum: int = np.iinfo(np.int64).min
    label_total: int = 0
    n_labels: int = 0

    @property
    def label_mean(self) -> int:
        """How long a label reaches, rounded up."""
        return -(-self.label_total // max(self.n_labels, 1))

    def update(self, time: NDArray[np.int64], reach: NDArray[np.int64]) -> None:
        self.label_total += int(reach.sum())
        self.n_labels += len(reach)
        time = time[time != NULL_TIME]
        if len(time):
            self.minimum = min(self.minimum, int(time.min()))
            self.maximum = max(self.maximum, int(time.max()))


def _time_folds(scanner: Scanner, time: str, span: _TimeSpan) -> TimeFolds:
    histogram = TimeHistogram.empty(span.minimum, span.maximum)
    scanner.run(
        "lay out the time blocks",
        Program([]),
        lambda tile: whole_times(tile.frame.columns[time][tile.frame.own]),
        histogram.add,
        columns=[time],
    )
    return time_folds(histogram, least_span=_LABELS_PER_BLOCK * span.label_mean)
