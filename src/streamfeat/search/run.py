"""The search from start to end: labels, pilot, two rounds of screening, the final choice.

This module covers: the order of the passes and what goes from one to the next (``search``).
This module does *not* cover: a single pass (rounds), or the statistics (selection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from streamfeat.errors import NoUsableColumnsError, OptionError
from streamfeat.evaluate.scan import Scanner
from streamfeat.plan.candidates import Term, count_pairs, terms
from streamfeat.plan.expr import Column, Expr
from streamfeat.search.labels import Labels, label_rows
from streamfeat.search.rounds import (
    LEAST_KNOWN_SHARE,
    ONE_ROW_SHARE,
    Model,
    Standard,
    beam,
    gram_pass,
    pilot,
    residual_pass,
    screen_pass,
)
from streamfeat.search.target import Target, Task
from streamfeat.selection.folds import N_BLOCKS, N_SEARCH
from streamfeat.selection.selector import Selection, fit_model, select
from streamfeat.sources.roles import Roles

_ALONE = 0.999
"""A term is dropped whose variance is one row's."""


@dataclass(frozen=True)
class Settings:
    """The options of a search."""

    transformations: Sequence[str]
    windows: Sequence[int]
    steps: int
    beam: int
    max_features: int
    min_features: int
    level: float
    seed: int
    task: Task | None = None
    max_candidates: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    ``finalists`` are the expressions whose Grams were formed; ``selection`` refers to them.
    """

    target: Target
    finalists: tuple[Expr, ...]
    selection: Selection
    n_terms: int
    n_candidates: int
    n_dropped_terms: int


def grammar(roles: Roles, settings: Settings) -> tuple[Term, ...]:
    """The terms of the search, before any row is read.

    Raises
    ------
    NoUsableColumnsError
        If there is no column to build from.
    OptionError
        If they make more candidates than ``max_candidates``.
    """
    made = terms(roles, transformations=settings.transformations, windows=settings.windows)
    if not made:
        raise NoUsableColumnsError(
            "no numeric column is left to build features from",
            hint="check `include`, `exclude`, and which columns are text",
        )
    n_candidates = count_candidates(len(made), settings.steps)
    if settings.max_candidates is not None and n_candidates > settings.max_candidates:
        raise OptionError(
            f"{len(made):,} terms make {n_candidates:,} candidates; max_candidates is "
            f"{settings.max_candidates:,}",
            hint="give fewer `transformations` or `windows`, use `include`, or raise it",
        )
    return made


def count_candidates(n_terms: int, steps: int) -> int:
    """Formulas that a search scores."""
    return n_terms + (count_pairs(n_terms) if steps > 1 else 0)


def search(
    scanner: Scanner, roles: Roles, target: Target, made: tuple[Term, ...], settings: Settings
) -> Found:
    """Screen, keep a beam, screen what it leaves, choose from both.

    Raises
    ------
    TargetError
        If the target's values cannot be predicted.
    NoUsableColumnsError
        If every term is constant or mostly null.
    """
    with threadpool_limits(1, "blas"):  # the last bits of a solution depend on BLAS's threads
        return _search(scanner, roles, target, made, settings)


def _search(
    scanner: Scanner, roles: Roles, target: Target, made: tuple[Term, ...], settings: Settings
) -> Found:
    labels = label_rows(scanner, target, time=roles.time, task=settings.task, seed=settings.seed)
    standard, usable = _usable_terms(scanner, made)
    moments = screen_pass(scanner, standard, labels)
    first = beam(usable, moments, standard.scale, width=settings.beam // 2, steps=settings.steps)
    finalists = _with_columns(usable, first)
    model = _first_model(scanner, finalists, labels)
    left = residual_pass(scanner, standard, labels, model)
    second = beam(
        usable, moments, standard.scale, width=settings.beam // 2, steps=settings.steps,
        residual=left,
    )  # fmt: skip
    finalists = tuple(dict.fromkeys((*finalists, *second)))
    selection, finalists = _choose(scanner, finalists, labels, settings)
    return Found(
        target=labels.target,
        finalists=finalists,
        selection=selection,
        n_terms=len(usable),
        n_candidates=count_candidates(len(usable), settings.steps),
        n_dropped_terms=len(made) - len(usable),
    )


def _usable_terms(scanner: Scanner, made: tuple[Term, ...]) -> tuple[Standard, tuple[Term, ...]]:
    standard = pilot(scanner, [term.expr for term in made])
    usable = (standard.known_share >= LEAST_KNOWN_SHARE) & (standard.row_share < _ALONE)
    kept = np.flatnonzero(usable)
    if len(kept) == 0:
        raise NoUsableColumnsError(
            f"all {len(made)} terms are null in most rows or overflow",
            hint="check the columns for nulls and extreme values",
        )
    return standard.subset(kept), tuple(made[k] for k in kept)


def _with_columns(usable: Sequence[Term], chosen: Sequence[Expr]) -> tuple[Expr, ...]:
    """The beam, after the raw columns, which it is compared with."""
    columns = [term.expr for term in usable if term.is_column][:100]
    return tuple(dict.fromkeys((*columns, *chosen)))


def _first_model(scanner: Scanner, finalists: Sequence[Expr], labels: Labels) -> Model:
    standard = _tame(scanner, finalists)
    grams = gram_pass(scanner, "fit the first beam", standard, labels, n_blocks=N_SEARCH)
    intercepts, coefficients = fit_model(grams.total(range(N_SEARCH)), labels.target.n_outputs)
    return Model(standard, coefficients, intercepts)


def _choose(
    scanner: Scanner, finalists: Sequence[Expr], labels: Labels, settings: Settings
) -> tuple[Selection, tuple[Expr, ...]]:
    standard = _tame(scanner, finalists)
    finalists = standard.exprs
    grams = gram_pass(scanner, "Grams of the finalists", standard, labels, n_blocks=N_BLOCKS)
    chosen = select(
        grams,
        names=[str(expr) for expr in finalists],
        costs=[float(expr.n_nodes) for expr in finalists],
        baseline=[k for k, expr in enumerate(finalists) if isinstance(expr, Column)],
        ordered=labels.time is not None,
        max_features=settings.max_features,
        min_features=settings.min_features,
        level=settings.level,
    )
    return chosen, finalists


def _tame(scanner: Scanner, finalists: Sequence[Expr]) -> Standard:
    """Finalists of whose variance no single row makes too much."""
    standard = pilot(scanner, finalists)
    kept = np.flatnonzero(standard.row_share < ONE_ROW_SHARE)
    return standard.subset(kept if len(kept) else np.arange(len(finalists)))
