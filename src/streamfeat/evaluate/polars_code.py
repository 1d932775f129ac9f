"""Polars expressions as text: code that runs where only Polars is.

This module covers: a stand-in for the ``polars`` module that writes down what is asked of it.
This module does *not* cover: the translation, which is polars_backend's, run on the stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamfeat.evaluate.polars_backend import polars_expr
from streamfeat.plan.expr import Expr

_HEAD = '''"""Features chosen by streamfeat; ``features(frame)`` of a polars LazyFrame."""

import polars as pl


def finite(values: pl.Expr) -> pl.Expr:
    return pl.when(values.is_finite()).then(values)


def features(frame: pl.LazyFrame) -> pl.LazyFrame:
'''


class Code:
    """A Python expression under construction: operators and calls are written down.

    >>> Code("pl").col("x").shift(2) + 1
    (pl.col('x').shift(2) + 1)
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __getattr__(self, name: str) -> Code:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "library":
            return Code("pl")
        return Code(f"{self._text}.{name}")

    def __call__(self, *args: Any, **named: Any) -> Code:
        parts = [*map(_text, args), *(f"{k}={_text(v)}" for k, v in named.items())]
        return Code(f"{self._text}({', '.join(parts)})")

    def _binary(self, mark: str, other: Any) -> Code:
        return Code(f"({self._text} {mark} {_text(other)})")

    def __add__(self, other: Any) -> Code:
        return self._binary("+", other)

    def __sub__(self, other: Any) -> Code:
        return self._binary("-", other)

    def __mul__(self, other: Any) -> Code:
        return self._binary("*", other)

    def __truediv__(self, other: Any) -> Code:
        return self._binary("/", other)

    def __and__(self, other: Any) -> Code:
        return self._binary("&", other)

    def __gt__(self, other: Any) -> Code:
        return self._binary(">", other)

    def __eq__(self, other: object) -> Code:  # type: ignore[override]
        return self._binary("==", other)

    __hash__ = None  # type: ignore[assignment]

    def __rpow__(self, other: Any) -> Code:
        return Code(f"({_text(other)} ** {self._text})")

    def __neg__(self) -> Code:
        return Code(f"(-{self._text})")

    def __invert__(self) -> Code:
        return Code(f"(~{self._text})")


def _text(value: Any) -> str:
    return repr(value)


class _Library(Code):
    """The stand-in for the module; columns are named exactly, never as a pattern."""

    def col(self, name: str) -> Code:
        plain = not (name.startswith("^") and name.endswith("$")) and name != "*"
        return Code(f"pl.col({name!r})" if plain else f"pl.selectors.by_name({name!r}).as_expr()")


class _Lines:
    """One assignment per step, so that no step is written twice."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self.lines: list[str] = []

    def finite(self, values: Code) -> Code:
        text = repr(values)
        if text not in self._names:
            self._names[text] = f"x{len(self._names) + 1}"
            self.lines.append(f"    {self._names[text]} = finite({text})")
        return Code(self._names[text])


def select_code(
    features: Mapping[str, Expr], *, keys: Sequence[str], group: str | None, time: str | None
) -> str:
    """A Python module with one function, ``features(frame)``."""
    library, steps = _Library("pl"), _Lines()
    chosen = [f"        {library.col(key)!r}," for key in keys]
    for name, expr in features.items():
        made = polars_expr(expr, group=group, time=time, library=library, finite=steps.finite)
        chosen.append(f"        {made.alias(name)!r},")
    return _HEAD + "\n".join([*steps.lines, "    return frame.select(", *chosen, "    )"]) + "\n"
