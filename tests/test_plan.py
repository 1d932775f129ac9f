"""Expressions, their text, canonical form, the grammar and labels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import evaluate
from strategies import expressions, panels
from streamfeat.errors import ExpressionError, TargetError
from streamfeat.plan.candidates import Term, count_pairs, is_trivial, pair, terms
from streamfeat.plan.expr import Column, Constant, Expr
from streamfeat.plan.parse import parse
from streamfeat.plan.primitives import call, reciprocal
from streamfeat.plan.rewrites import canonical
from streamfeat.plan.targets import forward, forward_return, parse_target
from streamfeat.sources.roles import Roles

GOLDEN = Path(__file__).parent / "golden" / "rewrites.txt"


@given(expressions())
def test_text_reads_back(expr: Expr) -> None:
    assert parse(str(expr)) == expr


@given(st.text(max_size=30))
def test_any_name_reads_back(name: str) -> None:
    expr = call("log", Column(name))
    assert parse(str(expr)) == expr


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_reads_back(value: float) -> None:
    expr = call("mul", Constant(value), "x")
    assert parse(str(expr)) == expr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("close +", r"expected a column(.|\n)*close \+\n"),
        ("logg(x)", r"no primitive is called 'logg'(.|\n)*did you mean 'log'"),
        ("lag(x)", "takes 1 expression"),
        ("lag(x, 0)", "whole number of rows, at least 1"),
        ("lag(x, 1.5)", "whole number of rows"),
        ("x $ y", r"cannot be read\n  x \$ y\n    \^"),
        ("(x", r"expected '\)'"),
        ("x y", "expected the formula to end"),
        ("", "expected a column"),
        ("(" * 3000 + "x", "levels deep"),
        ("x" * 100_001, "more than 100,000 characters"),
    ],
)
def test_what_is_no_formula_is_pointed_at(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        parse(text)


def test_precedence_and_grouping() -> None:
    for text in ("a - (b - c)", "a / (b * c)", "(a + b) * c", "a - b - c", "a / b / c"):
        assert str(parse(text)) == text
    assert str(parse("((a))*(b+(-2))")) == "a * (b + (-2))"


def test_questions_are_answered_without_rows() -> None:
    expr = parse("rolling_mean(lag(close, 3), 5) / ema(volume, 9) + hour(ts)")
    assert expr.lookback == 7 and expr.lookahead == 0
    assert expr.inputs == ("close", "ts", "volume")
    assert expr.kind == "recursive" and parse("x + y").kind == "row"
    assert forward_return("close", 4).expr.lookahead == 4
    assert parse("log(x / (y - 1)) * sqrt(x)").domain == (
        "(y - 1) != 0",
        "(x / (y - 1)) > 0",
        "x >= 0",
    )


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines())
def test_rewrites_by_golden_pairs(line: str) -> None:
    before, after = line.split("  ->  ")
    assert str(canonical(parse(before))) == after


@given(expressions())
def test_canonical_form_is_final(expr: Expr) -> None:
    once = canonical(expr)
    assert canonical(once) == once
    assert parse(str(once)) == once


@given(panels(), expressions(windows=False))
def test_canonical_form_keeps_every_defined_value(table: object, expr: Expr) -> None:
    columns = {n: table.column(n).to_pylist() for n in table.column_names}  # type: ignore[attr-defined]
    before = evaluate(expr, columns, columns["group"])
    after = evaluate(canonical(expr), columns, columns["group"])
    for a, b in zip(before, after, strict=True):
        if a is not None and 1e-100 < abs(a) < 1e100:
            assert b is not None and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def test_the_grammar_of_bars_and_of_plain_columns() -> None:
    plain = terms(Roles(numeric=("x", "y")), transformations=("log", "1/"), windows=())
    assert {str(t.expr) for t in plain} == {"x", "y", "log(x)", "log(y)", "1 / x", "1 / y"}
    bars = Roles(
        time="t", group="s", open="o", high="h", low="l", close="c", volume="v",
        numeric=("o", "h", "l", "c", "v"), timestamps=("t",), ordered=True,
    )  # fmt: skip
    made = {str(t.expr) for t in terms(bars, transformations=(), windows=(5, 20))}
    assert made >= {
        "pct_change(c, 20)", "rolling_zscore(v, 5)", "rolling_max(h, 20)", "month(t)",
        "1 / rolling_mean(c, 5)", "ema(c, 20)", "rolling_std(pct_change(c, 1), 5)",
    }  # fmt: skip
    assert all(parse(text).lookahead == 0 for text in made)
    assert len(made) == len(terms(bars, transformations=(), windows=(20, 5, 5)))


def test_pairs_are_canonical_and_counted() -> None:
    x, y = Column("x"), Column("y")
    inverse = Term(reciprocal(y), divides=y)
    assert str(pair("mul", Term(x), inverse)) == "x / y"
    assert is_trivial(Term(y), inverse) and not is_trivial(Term(x), inverse)
    assert count_pairs(4) == 10 + 6 + 6


def test_labels_read_and_refuse() -> None:
    assert parse_target("forward_return( close , 5)") == forward_return("close", 5)
    assert parse_target("forward((high - low) / close, 2)") == forward("(high - low) / close", 2)
    assert parse_target("close") is None
    with pytest.raises(TargetError, match="at least 1; got 0"):
        forward_return("close", 0)
    with pytest.raises(TargetError, match="takes a column"):
        parse_target("forward_return(high - low, 1)")
