"""The search loop: screen all pairs without forming one, keep a beam, screen again.

This module covers:
1. a pilot on a few tiles: location and scale of every term (``pilot``);
2. the moments of all terms on the search blocks, one pass (``screen_pass``);
3. the beam: the best terms and pairs (``beam``);
4. a model of the beam from its Gram, and what it leaves of the target (``residual_pass``);
5. a second beam against that, and the fold Grams of both beams (``gram_pass``).
This module does *not* cover: scores (selection.screen) or the choice (selection.selector).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfeat.evaluate.kernels import Array
from streamfeat.evaluate.program import Program
from streamfeat.evaluate.scan import Scanner, Tile
from streamfeat.plan.candidates import Term, is_trivial, pair
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.plan.expr import Expr
from streamfeat.search.labels import Blocks, Labels
from streamfeat.selection.folds import N_SEARCH
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.moments import Moments, ResidualMoments
from streamfeat.selection.screen import product_scores, sum_scores, term_scores, top_pairs

PILOT_TILES = 8
LEAST_KNOWN_SHARE = 0.5
"""A term that is null in more than half of the pilot's rows is dropped."""
_MOST_SCALE = 1e100
_FEW_ROWS = 20
ONE_ROW_SHARE = 0.25
"""A finalist is dropped when one of the pilot's rows makes this share of its variance: a model on
it explodes on the next such row. A term may go further, its products and logarithms may be tame."""


@dataclass(frozen=True)
class Standard:
    """Location and scale that make expressions comparable; null becomes the location."""

    exprs: tuple[Expr, ...]
    location: Array
    scale: Array
    known_share: Array
    row_share: Array
    """The share of the variance that one row of the pilot makes."""

    def subset(self, kept: NDArray[np.intp]) -> Standard:
        return Standard(
            tuple(self.exprs[k] for k in kept),
            self.location[kept],
            self.scale[kept],
            self.known_share[kept],
            self.row_share[kept],
        )

    def joined(self, other: Standard) -> Standard:
        """The expressions of both."""
        return Standard(
            self.exprs + other.exprs,
            np.concatenate((self.location, other.location)),
            np.concatenate((self.scale, other.scale)),
            np.concatenate((self.known_share, other.known_share)),
            np.concatenate((self.row_share, other.row_share)),
        )

    def apply(self, values: Array) -> Array:
        """Standardise rows of ``values`` in place."""
        values -= self.location[:, None]
        values /= self.scale[:, None]
        return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def pilot(scanner: Scanner, exprs: Sequence[Expr]) -> Standard:
    """Location and scale of each expression on at most 8 tiles spread evenly over the data."""
    program = Program(exprs)
    n_tiles = -(-scanner.source.n_rows // TILE_ROWS)
    numbers = sorted({k * n_tiles // PILOT_TILES for k in range(PILOT_TILES)} & set(range(n_tiles)))
    n_rows, parts = 0, []

    def work(tile: Tile) -> None:
        nonlocal n_rows
        n_rows += tile.frame.n_rows
        parts.append(_sums(program.run(tile.frame)))

    for number in numbers:  # one at a time, so that the parts come in tile order
        scanner.tiles(program, [number], work)
    return _standard(program.exprs, parts, n_rows)


def _sums(values: Array) -> tuple[Array, Array, Array, Array]:
    """Known rows, mean, squared deviations and the largest value of each row of ``values``."""
    known = ~np.isnan(values)
    n = known.sum(axis=1).astype(np.float64)
    filled = np.where(known, values, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = filled.sum(axis=1) / np.maximum(n, 1.0)
        gap = np.where(known, values - mean[:, None], 0.0)
        return n, mean, (gap * gap).sum(axis=1), np.abs(filled).max(axis=1, initial=0.0)


def _standard(
    exprs: tuple[Expr, ...], parts: list[tuple[Array, Array, Array, Array]], n_rows: int
) -> Standard:
    n, mean, spread, largest = (a.copy() for a in parts[0])
    with np.errstate(over="ignore", invalid="ignore"):
        for n_part, mean_part, spread_part, largest_part in parts[1:]:
            total = np.maximum(n + n_part, 1.0)
            gap = mean_part - mean
            mean += gap * (n_part / total)
            spread += spread_part + gap * gap * (n * n_part / total)
            largest = np.maximum(largest, largest_part)
            n += n_part
        scale = np.sqrt(spread / np.maximum(n, 1.0))
        row_share = (largest - np.abs(mean)) ** 2 / np.where(spread > 0, spread, 1.0)
    usable = (scale < _MOST_SCALE) & (np.abs(mean) < _MOST_SCALE)
    share = np.where(usable, n / max(n_rows, 1), 0.0)
    flat = ~usable | (scale <= 1e-300)
    return Standard(
        exprs,
        np.where(usable, mean, 0.0),
        np.where(flat, 1.0, scale),
        share,
        np.where(n > _FEW_ROWS, row_share, 0.0),
    )


@dataclass(frozen=True)
class Prepared:
    """A tile's part in the search: standardised values, numbers to predict, blocks."""

    values: Array
    outputs: Array
    blocks: Blocks


def prepare(
    tile: Tile, program: Program, standard: Standard, labels: Labels, *, last_block: int
) -> Prepared:
    """The rows of the tile in blocks 0 to ``last_block``; the label is the program's last row."""
    values = program.run(tile.frame)
    outputs, blocks = labels.of(tile, values[-1])
    kept = np.flatnonzero((blocks >= 0) & (blocks <= last_block))
    chosen = np.take(values[:-1], kept, axis=1)
    return Prepared(standard.apply(chosen), np.take(outputs, kept, axis=1), blocks[kept])


def _run(
    scanner: Scanner, name: str, program: Program, labels: Labels, work: object, absorb: object
) -> None:
    scanner.run(
        name, program, work, absorb,  # type: ignore[arg-type]
        columns=labels.columns, passthrough=labels.target.passthrough, derive=labels.target.derive,
    )  # fmt: skip


def screen_pass(scanner: Scanner, standard: Standard, labels: Labels) -> Moments:
    """All second-order moments of the terms on the search blocks."""
    program = Program([*standard.exprs, labels.target.expr])
    n_terms, n_outputs = len(standard.exprs), labels.target.n_outputs
    total = Moments.empty(n_terms, n_outputs)

    def work(tile: Tile) -> Moments:
        part = prepare(tile, program, standard, labels, last_block=N_SEARCH - 1)
        return Moments.empty(n_terms, n_outputs).update(part.values, part.outputs)

    _run(scanner, "screen all pairs", program, labels, work, total.merge)
    return total


@dataclass(frozen=True)
class Model:
    """A linear model of standardised features, one row of coefficients per output."""

    standard: Standard
    coefficients: Array
    intercepts: Array

    def residual(self, values: Array, outputs: Array) -> Array:
        return outputs - self.intercepts[:, None] - self.coefficients @ values


def residual_pass(
    scanner: Scanner, standard: Standard, labels: Labels, model: Model
) -> ResidualMoments:
    """Moments of the terms with what ``model`` leaves of the target."""
    n_terms = len(standard.exprs)
    both = standard.joined(model.standard)
    program = Program([*both.exprs, labels.target.expr])
    total = ResidualMoments.empty(n_terms, labels.target.n_outputs)

    def work(tile: Tile) -> ResidualMoments:
        part = prepare(tile, program, both, labels, last_block=N_SEARCH - 1)
        left = model.residual(part.values[n_terms:], part.outputs)
        return ResidualMoments.empty(n_terms, len(left)).update(part.values[:n_terms], left)

    _run(scanner, "screen the residual", program, labels, work, total.merge)
    return total


def gram_pass(
    scanner: Scanner, name: str, standard: Standard, labels: Labels, *, n_blocks: int
) -> FoldGrams:
    """Gram matrices of the features and the outputs, one per block."""
    program = Program([*standard.exprs, labels.target.expr])
    n_columns = len(standard.exprs) + labels.target.n_outputs
    total = FoldGrams.empty(n_columns, n_blocks)

    def work(tile: Tile) -> FoldGrams:
        part = prepare(tile, program, standard, labels, last_block=n_blocks - 1)
        columns = np.concatenate((part.values, part.outputs))
        return FoldGrams.empty(n_columns, n_blocks).update(columns, part.blocks)

    _run(scanner, name, program, labels, work, total.merge)
    return total


def beam(
    terms: Sequence[Term],
    moments: Moments,
    scales: Array,
    *,
    width: int,
    steps: int,
    residual: ResidualMoments | None = None,
) -> tuple[Expr, ...]:
    """The best ``width`` expressions: a quarter single terms, half products, a quarter sums."""
    single = term_scores(moments, residual)
    order = np.lexsort((np.arange(len(terms)), -single))
    made: dict[Expr, None] = dict.fromkeys(
        terms[k].expr for k in order[: width if steps < 2 else width // 4] if single[k] > 0
    )
    if steps < 2:
        return tuple(made)
    per_term = max(4, width // 8)
    products = product_scores(moments, residual)
    chosen = top_pairs(
        products, allowed=_products_allowed(terms), count=width // 2, per_term=per_term
    )
    made.update(dict.fromkeys(pair("mul", terms[i], terms[j]) for i, j, _ in chosen))
    plus, minus = sum_scores(moments, scales, residual)
    upper = _sums_allowed(terms)
    for operation, scores in (("add", plus), ("sub", minus)):
        best = top_pairs(scores, allowed=upper, count=width // 8, per_term=per_term)
        made.update(dict.fromkeys(pair(operation, terms[i], terms[j]) for i, j, _ in best))  # type: ignore[arg-type]
    return tuple(made)


def _products_allowed(terms: Sequence[Term]) -> NDArray[np.bool_]:
    allowed = np.triu(np.ones((len(terms), len(terms)), dtype=bool))
    place = {term.expr: k for k, term in enumerate(terms)}
    for k, term in enumerate(terms):
        other = place.get(term.divides) if term.divides is not None else None
        if other is not None and is_trivial(term, terms[other]):
            allowed[min(k, other), max(k, other)] = False
    return allowed


def _sums_allowed(terms: Sequence[Term]) -> NDArray[np.bool_]:
    """Sums of two terms that are no reciprocals."""
    plain = np.array([term.divides is None for term in terms])
    return np.triu(np.outer(plain, plain), k=1)
