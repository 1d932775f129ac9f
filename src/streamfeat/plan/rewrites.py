"""Canonical form: one formula for each meaning that simple algebra can see.

This module covers: an ordered list of rules, applied from the leaves up until nothing changes.
This module does *not* cover: parsing, or the choice among equivalent candidates by value.

A rule never changes a value that was defined; it may define one that was null (1 / (1 / x) at 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from streamfeat.plan.expr import Call, Constant, Expr
from streamfeat.plan.primitives import call, reciprocal

Rule = Callable[[Call], Expr | None]

_ONE, _ZERO = Constant(1), Constant(0)
_EVEN = {"abs", "square", "cos"}


@lru_cache(maxsize=100_000)
def canonical(expr: Expr) -> Expr:
    """The canonical form of ``expr``.

    Examples
    --------
    >>> from streamfeat.plan.parse import parse
    >>> str(canonical(parse("y * (1 / x) * y")))
    'square(y) / x'
    """
    if not isinstance(expr, Call):
        return expr
    made: Expr = Call(expr.primitive, tuple(canonical(a) for a in expr.args), expr.params)
    for rule in RULES:
        assert isinstance(made, Call)
        changed = rule(made)
        if changed is not None and changed != made:
            return canonical(changed)
    return made


def _is(expr: Expr, name: str) -> bool:
    return isinstance(expr, Call) and expr.primitive.name == name


def _args(expr: Expr) -> tuple[Expr, ...]:
    return expr.children


def _denominator(expr: Expr) -> Expr | None:
    """x of 1 / x."""
    return _args(expr)[1] if _is(expr, "div") and _args(expr)[0] == _ONE else None


def fold_constants(node: Call) -> Expr | None:
    """2 * 3 -> 6"""
    name = node.primitive.name
    if name not in {"add", "sub", "mul", "div"}:
        return None
    left, right = node.args
    if not (isinstance(left, Constant) and isinstance(right, Constant)):
        return None
    if name == "div" and right.value == 0:
        return None
    operations = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
    }
    value = operations[name](left.value, right.value)
    return Constant(value) if math.isfinite(value) else None


def drop_neutral(node: Call) -> Expr | None:
    """x + 0, x - 0, x * 1, x / 1 -> x"""
    name = node.primitive.name
    if name in {"add", "mul"}:
        neutral = _ZERO if name == "add" else _ONE
        left, right = node.args
        return right if left == neutral else left if right == neutral else None
    if name in {"sub", "div"}:
        neutral = _ZERO if name == "sub" else _ONE
        return node.args[0] if node.args[1] == neutral else None
    return None


def undo_pairs(node: Call) -> Expr | None:
    """neg(neg(x)), 1 / (1 / x), log(exp(x)) -> x; sqrt(square(x)) -> abs(x)"""
    inner = node.args[0]
    if node.primitive.name == "neg" and _is(inner, "neg"):
        return _args(inner)[0]
    if node.primitive.name == "log" and _is(inner, "exp"):
        return _args(inner)[0]
    if node.primitive.name == "sqrt" and _is(inner, "square"):
        return call("abs", _args(inner)[0])
    below = _denominator(node)
    return _denominator(below) if below is not None else None


def even_functions(node: Call) -> Expr | None:
    """abs, square and cos of abs(x) or neg(x) -> of x; abs of what is never negative -> it"""
    if node.primitive.name not in _EVEN:
        return None
    inner = node.args[0]
    if _is(inner, "abs") or _is(inner, "neg"):
        return call(node.primitive.name, _args(inner)[0])
    if node.primitive.name == "abs" and any(
        _is(inner, name) for name in ("square", "sqrt", "exp", "exp2", "rolling_std")
    ):
        return inner
    return None


def products_to_quotients(node: Call) -> Expr | None:
    """x * (1 / y) -> x / y; (1 / x) * (1 / y) -> 1 / (x * y)"""
    if node.primitive.name != "mul":
        return None
    left, right = node.args
    below_left, below_right = _denominator(left), _denominator(right)
    if below_left is not None and below_right is not None:
        return reciprocal(call("mul", below_left, below_right))
    if below_right is not None:
        return call("div", left, below_right)
    if below_left is not None:
        return call("div", right, below_left)
    return None


def quotients_of_quotients(node: Call) -> Expr | None:
    """x / (1 / y) -> x * y"""
    if node.primitive.name != "div":
        return None
    below = _denominator(node.args[1])
    return call("mul", node.args[0], below) if below is not None else None


def products_with_quotients(node: Call) -> Expr | None:
    """(x / y) * z -> (x * z) / y"""
    if node.primitive.name != "mul":
        return None
    left, right = node.args
    if _is(left, "div") and not _is(right, "div"):
        return call("div", call("mul", _args(left)[0], right), _args(left)[1])
    if _is(right, "div") and not _is(left, "div"):
        return call("div", call("mul", left, _args(right)[0]), _args(right)[1])
    return None


def powers(node: Call) -> Expr | None:
    """x * x -> square(x); x * square(x) -> cube(x)"""
    if node.primitive.name != "mul":
        return None
    left, right = node.args
    if left == right:
        return call("square", left)
    if _is(right, "square") and _args(right)[0] == left:
        return call("cube", left)
    if _is(left, "square") and _args(left)[0] == right:
        return call("cube", right)
    return None


def signs(node: Call) -> Expr | None:
    """x + neg(y) -> x - y; x - neg(y) -> x + y; neg(x - y) -> y - x"""
    name = node.primitive.name
    if name == "add" and _is(node.args[1], "neg"):
        return call("sub", node.args[0], _args(node.args[1])[0])
    if name == "add" and _is(node.args[0], "neg"):
        return call("sub", node.args[1], _args(node.args[0])[0])
    if name == "sub" and _is(node.args[1], "neg"):
        return call("add", node.args[0], _args(node.args[1])[0])
    if name == "neg" and _is(node.args[0], "sub"):
        left, right = _args(node.args[0])
        return call("sub", right, left)
    return None


def lags_of_lags(node: Call) -> Expr | None:
    """lag(lag(x, a), b) -> lag(x, a + b)"""
    inner = node.args[0]
    if node.primitive.name != "lag" or not isinstance(inner, Call) or not _is(inner, "lag"):
        return None
    return call("lag", inner.args[0], params=(node.params[0] + inner.params[0],))


def order_arguments(node: Call) -> Expr | None:
    """y + x -> x + y, by text; constants first"""
    if not node.primitive.commutative:
        return None
    ordered = tuple(sorted(node.args, key=lambda a: (not isinstance(a, Constant), str(a))))
    return Call(node.primitive, ordered, node.params)


RULES: tuple[Rule, ...] = (
    fold_constants,
    drop_neutral,
    undo_pairs,
    even_functions,
    products_to_quotients,
    quotients_of_quotients,
    powers,
    products_with_quotients,
    signs,
    lags_of_lags,
    order_arguments,
)
