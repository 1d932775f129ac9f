"""The target as numbers: resolved from what the user said, checked, and split into classes.

This module covers: columns, forward returns, class labels, and the errors of unusable targets.
This module does *not* cover: which rows count for what (search.rounds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamfeat.errors import TargetError
from streamfeat.evaluate.kernels import Array
from streamfeat.plan.expr import Column, Expr
from streamfeat.plan.targets import Label, forward_return, parse_target
from streamfeat.sources.arrays import to_numpy
from streamfeat.sources.chunks import Chunk
from streamfeat.sources.roles import Roles
from streamfeat.sources.source import Source

Task = Literal["regression", "classification"]
MOST_CLASSES = 50
_CODES = "\0target codes"


@dataclass(frozen=True)
class Target:
    """What is predicted.

    ``expr`` gives one number a row: the value, or the class's number for text. ``classes`` are the
    values of ``expr`` that are told apart (empty for regression), ``labels`` what to call them.
    """

    text: str
    expr: Expr
    task: Task | None = None
    column: str | None = None
    horizon: int = 0
    is_text: bool = False
    classes: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def n_outputs(self) -> int:
        """Numbers to predict: one, or one per class where there are more than two."""
        return len(self.classes) if len(self.classes) > 2 else 1

    def outputs(self, values: Array) -> Array:
        """``values`` as rows of numbers to predict, shape (n_outputs, n); NaN stays NaN."""
        if not self.classes:
            return values[None, :]
        chosen = self.classes[1:] if len(self.classes) == 2 else self.classes
        out = (values[None, :] == np.array(chosen)[:, None]).astype(np.float64)
        out[:, np.isnan(values)] = np.nan
        return out

    def derive(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """The class numbers of a text target, as a column of the chunk."""
        if not self.is_text:
            return {}
        codes = np.full(len(chunk.row_in_group), np.nan)
        found = [
            pc.index_in(_text(b.column(self.column)), pa.array(self.labels)) for b in chunk.keys
        ]
        own = [to_numpy(part.cast(pa.float64()), null=np.nan) for part in found]
        codes[chunk.n_before : chunk.n_before + chunk.n_rows] = np.concatenate(own)
        return {_CODES: codes}

    @property
    def passthrough(self) -> tuple[str, ...]:
        return (self.column,) if self.is_text and self.column else ()


def _text(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def target_column(source: Source, target: str | Label | None) -> str | None:
    """The source column that is the target itself, if one is."""
    names = {column.name for column in source.columns}
    return target if isinstance(target, str) and target in names else None


def resolve_target(source: Source, roles: Roles, target: str | Label | None) -> Target:
    """What to predict, without looking at a row.

    Raises
    ------
    TargetError
        If there is nothing to predict, or the column is of no kind that can be.
    ColumnNotFoundError
        If the target names no column.
    """
    if target is None:
        if roles.close is None or not roles.ordered:
            raise TargetError(
                f"no target was given, and {source.name} has no close price in time order to make "
                "one from",
                hint="pass `target=` a column name, or `sf.forward_return(column, horizon)`",
            )
        target = forward_return(roles.close)
    if isinstance(target, str):
        if target_column(source, target) is None and (label := parse_target(target)):
            target = label
        else:
            return _column_target(source, target)
    return _label_target(source, roles, target)


def _label_target(source: Source, roles: Roles, label: Label) -> Target:
    for name in label.expr.inputs:
        column = source.column(name)
        if column.role_type == "text":
            raise TargetError(
                f"{label}: column {name!r} is {column.arrow_type}, not a number",
                hint="name a column of numbers",
            )
    if not roles.ordered:
        raise TargetError(
            f"{label} needs rows in time order, and {source.name} has no time column",
            hint="pass `time=` and, for several series, `group=`",
        )
    return Target(str(label), label.expr, task="regression", horizon=label.horizon)


def _column_target(source: Source, name: str) -> Target:
    column = source.column(name)
    if column.role_type == "text":
        return Target(name, Column(_CODES), "classification", column=name, is_text=True)
    if column.role_type != "number":
        raise TargetError(
            f"target {name!r} is {column.arrow_type}; it cannot be predicted",
            hint="choose a column of numbers, booleans or text classes",
        )
    return Target(name, Column(name), column=name)


@dataclass
class TargetValues:
    """What the values of a target are like: how many, how far apart, how many different."""

    n: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    distinct: tuple[float, ...] = ()

    def update(self, values: Array) -> TargetValues:
        values = values[~np.isnan(values)]
        if len(values):
            self.n += len(values)
            self.minimum = min(self.minimum, float(values.min()))
            self.maximum = max(self.maximum, float(values.max()))
        if len(self.distinct) <= MOST_CLASSES:
            merged = np.unique(np.concatenate((self.distinct, values)))
            self.distinct = tuple(map(float, merged[: MOST_CLASSES + 1]))
        return self


def text_classes(source: Source, target: Target) -> Target:
    """``target`` with the classes of its text column, sorted.

    Raises
    ------
    TargetError
        If there are more than 50 classes.
    """
    if not target.is_text or target.column is None:
        return target
    seen: set[str] = set()
    for batch in source.read(0, source.n_rows, [target.column]):
        seen.update(v for v in pc.unique(_text(batch.column(0))).to_pylist() if v is not None)
        if len(seen) > MOST_CLASSES:
            raise _too_many_classes(target.column, seen)
    labels = tuple(sorted(seen))
    return replace(target, labels=labels, classes=tuple(map(float, range(len(labels)))))


def _too_many_classes(column: str, seen: set[str]) -> TargetError:
    return TargetError(
        f"target {column!r} is text with more than {MOST_CLASSES} different values "
        f"(such as {sorted(seen)[0]!r})",
        hint="choose a target with fewer classes, or a column of numbers",
    )


def settle(target: Target, values: TargetValues, task: Task | None) -> Target:
    """``target`` with its task and classes, now that its values are known.

    Raises
    ------
    TargetError
        If all values are null or equal, or a class target has too many.
    """
    if values.n == 0:
        raise TargetError(
            f"target {target.text!r} is null in every row", hint="choose another target"
        )
    if values.minimum == values.maximum:
        raise TargetError(
            f"target {target.text!r} is constant: every value is {values.minimum:g}",
            hint="choose a target that varies",
        )
    task = task or target.task or ("classification" if len(values.distinct) == 2 else "regression")
    if task == "regression":
        if target.is_text:
            raise TargetError(
                f"target {target.text!r} is text; a regression needs numbers",
                hint="leave `task` out, or choose a column of numbers",
            )
        return replace(target, task=task, classes=())
    return replace(target, task=task, classes=_classes(target, values.distinct))


def _classes(target: Target, distinct: Sequence[float]) -> tuple[float, ...]:
    if len(distinct) > MOST_CLASSES:
        raise TargetError(
            f"target {target.text!r} has more than {MOST_CLASSES} different values; "
            "that is no classification",
            hint='pass `task="regression"`, or a target with fewer classes',
        )
    return tuple(distinct)
