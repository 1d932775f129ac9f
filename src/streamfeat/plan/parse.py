"""Text to expressions: the inverse of ``str``.

This module covers: tokens, precedence, and errors that point at the place.
This module does *not* cover: canonical form (rewrites).

    sum     = product (("+" | "-") product)*
    product = atom (("*" | "/") atom)*
    atom    = number | "-" number | name | `quoted name` | primitive "(" arguments ")" | "(" sum ")"
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from streamfeat.errors import ExpressionError
from streamfeat.plan.expr import Column, Constant, Expr
from streamfeat.plan.primitives import INFIX, PRIMITIVES, call

MOST_CHARACTERS = 100_000
MOST_DEPTH = 100

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<quoted>`(?:[^`]|``)*`)"
    r"|(?P<mark>[-+*/(),]))"
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def parse(text: str) -> Expr:
    """The expression that ``text`` spells.

    Raises
    ------
    ExpressionError
        If it is no formula; the message points at the place.

    Examples
    --------
    >>> str(parse("log( close/lag(close,1) )"))
    'log(close / lag(close, 1))'
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"the formula has more than {MOST_CHARACTERS:,} characters")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def _split(self) -> list[_Token]:
        tokens, place = [], 0
        end = len(self._text.rstrip())
        while place < end:
            match = _TOKEN.match(self._text, place)
            if match is None or match.lastgroup is None:
                at = place + len(self._text[place:]) - len(self._text[place:].lstrip())
                raise self._error("this cannot be read", at)
            tokens.append(
                _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
            )
            place = match.end()
        tokens.append(_Token("end", "", end))
        return tokens

    def _error(self, problem: str, place: int, hint: str = "") -> ExpressionError:
        start = max(place - 40, 0)
        line = self._text[start : place + 40].replace("\n", " ")
        return ExpressionError(f"{problem}\n  {line}\n  {' ' * (place - start)}^", hint=hint)

    def _look(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._look()
        self._next += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._take()
        if token.text != mark or token.kind != "mark":
            raise self._error(f"expected {mark!r} here", token.place)

    def whole(self) -> Expr:
        made = self._sum()
        if self._look().kind != "end":
            raise self._error("expected the formula to end here", self._look().place)
        return made

    def _sum(self) -> Expr:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._error(f"more than {MOST_DEPTH} levels deep", self._look().place)
        made = self._chain("+-", lambda: self._chain("*/", self._atom))
        self._depth -= 1
        return made

    def _chain(self, marks: str, part) -> Expr:  # type: ignore[no-untyped-def]
        made: Expr = part()
        while self._look().kind == "mark" and self._look().text in marks:
            made = call(INFIX[self._take().text].name, made, part())
        return made

    def _atom(self) -> Expr:
        token = self._take()
        if token.kind == "number":
            return Constant(float(token.text))
        if token.text == "-" and self._look().kind == "number":
            return Constant(-float(self._take().text))
        if token.text == "(":
            made = self._sum()
            self._expect(")")
            return made
        if token.kind == "quoted":
            return Column(token.text[1:-1].replace("``", "`"))
        if token.kind == "name":
            return self._call(token) if self._look().text == "(" else Column(token.text)
        raise self._error("expected a column, a number or a primitive here", token.place)

    def _call(self, name: _Token) -> Expr:
        primitive = PRIMITIVES.get(name.text)
        if primitive is None:
            close = difflib.get_close_matches(name.text, PRIMITIVES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            raise self._error(f"no primitive is called {name.text!r}", name.place, hint)
        self._expect("(")
        parts = [self._sum()]
        while self._look().text == ",":
            self._take()
            parts.append(self._sum())
        self._expect(")")
        n = primitive.arity
        params = [p.value for p in parts[n:] if isinstance(p, Constant)]
        if len(parts) != n + primitive.n_params or len(params) != primitive.n_params:
            raise self._error(
                f"{name.text} takes {n} expression(s) and then {primitive.n_params} number(s)",
                name.place,
            )
        return call(name.text, *parts[:n], params=tuple(params))
