"""Which candidates go on: the best of each kind that are not the same thing twice.

This module covers: pairs that may be formed (``allowed_pairs``), and a diverse beam (``beam``).
This module does *not* cover: scores (selection.screen), or the grammar (plan.candidates).

Candidates are told apart on a sample of the search rows, where a pair's values are made from those
of its terms: one whose correlation with a better one is near 1 is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamfeat.evaluate.kernels import Array
from streamfeat.plan.candidates import Operation, Term, pair
from streamfeat.plan.expr import Expr
from streamfeat.search.rounds import Allowed, Scores
from streamfeat.search.standard import Standard
from streamfeat.selection.screen import spread_out

TWIN_CORRELATION = 0.99
_PER_KIND = 6
"""Candidates looked at for each that is taken."""
_SHARES: tuple[tuple[Operation, float], ...] = (("mul", 0.65), ("add", 0.05), ("sub", 0.05))
_VALUES: dict[str, Callable[[Array, Array], Array]] = {
    "mul": np.multiply,
    "add": np.add,
    "sub": np.subtract,
}


def allowed_pairs(terms: Sequence[Term]) -> Allowed:
    """Which pairs of terms say something: no x * (1 / x), no sums of reciprocals."""
    place = {term.expr: k for k, term in enumerate(terms)}
    divides = np.array([place.get(t.divides, -1) if t.divides else -1 for t in terms])
    plain = np.array([term.divides is None for term in terms])
    index = np.arange(len(terms))

    def allowed(operation: str, rows: slice, columns: slice) -> NDArray[np.bool_]:
        if operation == "mul":
            undone = divides[rows, None] == index[None, columns]
            return ~(undone | (index[rows, None] == divides[None, columns]))
        return np.outer(plain[rows], plain[columns])

    return allowed


def beam(
    terms: Sequence[Term],
    standard: Standard,
    scores: Scores,
    *,
    width: int,
    with_pairs: bool,
) -> tuple[Expr, ...]:
    """The best ``width`` expressions: a quarter single terms, mostly products, few sums.

    A linear model has the sums of its terms already.
    """
    chosen = _Distinct(standard.sample.shape[1])
    made: dict[Expr, None] = {}
    order = np.lexsort((np.arange(len(terms)), -scores.terms))
    n_terms = width // 4 if with_pairs else width
    for k in order[: _PER_KIND * n_terms]:
        if len(made) == n_terms or scores.terms[k] <= 0:
            break
        if chosen.add(standard.sample[k]):
            made[terms[k].expr] = None
    for operation, share in _SHARES if with_pairs else ():
        made.update(
            dict.fromkeys(_pairs(terms, standard, scores, operation, int(width * share), chosen))
        )
    return tuple(made)


def _pairs(
    terms: Sequence[Term],
    standard: Standard,
    scores: Scores,
    operation: Operation,
    count: int,
    chosen: _Distinct,
) -> list[Expr]:
    made: list[Expr] = []
    values = _VALUES[operation]
    ranked = spread_out(
        scores.pairs[operation],
        count=_PER_KIND * count,
        per_term=max(8, _PER_KIND * count // 4),
        wanted=lambda i, j: True,
    )
    for i, j, _ in ranked:
        if len(made) == count:
            break
        with np.errstate(all="ignore"):
            if chosen.add(values(standard.sample[i], standard.sample[j])):
                made.append(pair(operation, terms[i], terms[j]))
    return made


class _Distinct:
    """Rows that differ: standardised, null as the mean."""

    def __init__(self, n: int) -> None:
        self._rows = np.empty((0, n))

    def add(self, values: Array) -> bool:
        """Take ``values`` unless they are constant or the same as some row taken."""
        known = np.isfinite(values)
        centred = np.where(known, values - values[known].mean() if known.any() else 0.0, 0.0)
        length = float(np.sqrt(centred @ centred))
        if not np.isfinite(length) or length == 0.0:
            return False
        row = centred / length
        if np.abs(self._rows @ row).max(initial=0.0) > TWIN_CORRELATION:
            return False
        self._rows = np.concatenate((self._rows, row[None]))
        return True
