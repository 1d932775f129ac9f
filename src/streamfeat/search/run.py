"""The search from start to end: labels, pilot, two rounds of screening, the final choice.

This module covers: the order of the passes and what goes from one to the next (``search``).
This module does *not* cover: a single pass (rounds), or the statistics (selection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from streamfeat.errors import NoUsableColumnsError, OptionError
from streamfeat.evaluate.kernels import Array
from streamfeat.evaluate.scan import Scanner
from streamfeat.plan.candidates import Term, count_pairs, terms
from streamfeat.plan.expr import Column, Expr
from streamfeat.search.beam import allowed_pairs, beam
from streamfeat.search.labels import Labels, label_rows
from streamfeat.search.rounds import Model, Ranges, Screen, gram_pass
from streamfeat.search.standard import Standard, statistics_pass
from streamfeat.search.target import Target, Task
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.linear import fit
from streamfeat.selection.moments import Bands
from streamfeat.selection.selector import Selection, chosen_set, search_problem, select
from streamfeat.sources.roles import Roles

LEAST_KNOWN_SHARE = 0.5
"""A term that is null in more than half of the search rows is dropped."""
_ONE_ROW_SHARE, _ONE_ROW_REACH = 0.06, 5.0
"""A finalist is dropped when one row makes this share of its variance, so many deviations from the
mean: a model on it explodes on the next such row. A term may go further, its products and
logarithms may be tame."""
_ALONE = 0.999
"""A term is dropped whose variance is one row's."""
_HEAVY = 100.0
"""A term that goes so many deviations from its mean is kept in float64."""
_TWIN_ROWS, _TWIN_DIGITS = 64, 9
"""Terms are the same if they agree so far, standardised, on so many rows of the sample."""
_MOST_COLUMNS = 100
"""Raw columns that always go to the final, for comparison."""
_ROUNDS = 2


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
    allowance_bytes: int = 1 << 30
    policy: str = "auto"
    control: str = "model"
    task: Task | None = None
    max_candidates: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    ``finalists`` are the expressions whose Grams were formed; ``selection`` refers to them.
    ``ranges`` are their least and largest values on the rows that chose.
    """

    target: Target
    finalists: tuple[Expr, ...]
    selection: Selection
    ranges: tuple[tuple[float, float], ...]
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
    standard, usable, outputs = _usable_terms(scanner, made, labels)
    screen = _screen(scanner, standard, usable, labels, outputs, settings)
    pool = _Pool(scanner, labels, tuple(t.expr for t in usable if t.is_column)[:_MOST_COLUMNS])
    model: Model | None = None
    for number in range(1, _ROUNDS + 1):
        name = "screen all pairs" if model is None else f"screen what round {number - 1} leaves"
        scores = screen.scores(name, model)
        pool.add(
            beam(usable, standard, scores, width=settings.beam // _ROUNDS,
                 with_pairs=settings.steps > 1),
            number,
        )  # fmt: skip
        model = pool.model(settings)
    return Found(
        target=labels.target,
        finalists=pool.standard.exprs,
        selection=pool.choose(settings),
        ranges=pool.guards(),
        n_terms=len(usable),
        n_candidates=count_candidates(len(usable), settings.steps),
        n_dropped_terms=len(made) - len(usable),
    )


def _usable_terms(
    scanner: Scanner, made: tuple[Term, ...], labels: Labels
) -> tuple[Standard, tuple[Term, ...], Array]:
    """Terms that vary and are mostly known, heavy-tailed ones last; location and scale of the
    outputs."""
    standard, outputs = statistics_pass(
        scanner, "look at the terms", [t.expr for t in made], labels
    )
    usable = (standard.known_share >= LEAST_KNOWN_SHARE) & (standard.row_share < _ALONE)
    kept = np.flatnonzero(usable)
    if len(kept) == 0:
        raise NoUsableColumnsError(
            f"all {len(made)} terms are null in most rows, constant or overflow",
            hint="check the columns for nulls and extreme values",
        )
    kept = kept[_first_of_twins(standard.subset(kept), [made[k].expr.n_nodes for k in kept])]
    order = kept[np.argsort(_heavy(standard)[kept], kind="stable")]
    return standard.subset(order), tuple(made[k] for k in order), outputs


def _first_of_twins(standard: Standard, costs: Sequence[int]) -> NDArray[np.intp]:
    """Places of terms without those that are a simpler one up to location and scale, such as
    abs(x) where x is never negative."""
    known = np.where(np.isnan(standard.sample), standard.location[:, None], standard.sample)
    unit = (known - standard.location[:, None]) / standard.scale[:, None]
    unit *= np.where(unit[:, :1] < 0, -1.0, 1.0)
    keys = np.column_stack((standard.pattern, np.round(unit[:, :_TWIN_ROWS], _TWIN_DIGITS) + 0.0))
    first: dict[bytes, int] = {}
    for k in sorted(range(len(costs)), key=lambda k: (costs[k], k)):
        first.setdefault(keys[k].tobytes(), k)
    return np.array(sorted(first.values()), dtype=np.intp)


def _heavy(standard: Standard) -> NDArray[np.bool_]:
    return standard.reach > _HEAVY


def _screen(
    scanner: Scanner,
    standard: Standard,
    usable: Sequence[Term],
    labels: Labels,
    outputs: Array,
    settings: Settings,
) -> Screen:
    return Screen(
        scanner,
        standard,
        Bands.cut(_heavy(standard), standard.pattern),
        labels,
        outputs,
        allowed_pairs(usable),
        with_pairs=settings.steps > 1,
        allowance_bytes=settings.allowance_bytes,
        n_best=16 * settings.beam,
    )


class _Pool:
    """Finalists of all rounds, their Grams and their ranges."""

    def __init__(self, scanner: Scanner, labels: Labels, columns: tuple[Expr, ...]) -> None:
        self._scanner = scanner
        self._labels = labels
        self._exprs = dict.fromkeys(columns)
        self.standard: Standard
        self.grams: FoldGrams
        self.ranges: Ranges

    def add(self, exprs: Sequence[Expr], number: int) -> None:
        """Add candidates, drop those that one row rules, and form the Grams of all."""
        self._exprs.update(dict.fromkeys(exprs))
        standard, _ = statistics_pass(
            self._scanner, f"look at the finalists of round {number}", list(self._exprs),
            self._labels,
        )  # fmt: skip
        tame = (standard.row_share < _ONE_ROW_SHARE) | (standard.reach < _ONE_ROW_REACH)
        kept = np.flatnonzero(tame & (standard.known_share > 0))
        self.standard = standard.subset(kept if len(kept) else np.arange(len(self._exprs)))
        self.grams, self.ranges = gram_pass(
            self._scanner, f"Grams of the finalists of round {number}", self.standard, self._labels
        )

    def model(self, settings: Settings) -> Model:
        """What the policy makes of the finalists on the search blocks."""
        problem = search_problem(
            self.grams, n_outputs=self._labels.target.n_outputs, most=settings.max_features
        )
        ordered = self._labels.time is not None
        chosen = chosen_set(problem, settings.policy, ordered=ordered)
        model = fit(problem.part, chosen.columns, chosen.penalty)
        return Model(self.standard, model.coefficients(), model.intercepts)

    def guards(self) -> tuple[tuple[float, float], ...]:
        """The range of each finalist over all blocks."""
        return tuple(zip(self.ranges.low.tolist(), self.ranges.high.tolist(), strict=True))

    def choose(self, settings: Settings) -> Selection:
        exprs = self.standard.exprs
        return select(
            self.grams,
            names=[str(expr) for expr in exprs],
            costs=[float(expr.n_nodes) for expr in exprs],
            baseline=[k for k, expr in enumerate(exprs) if isinstance(expr, Column)],
            ordered=self._labels.time is not None,
            max_features=settings.max_features,
            min_features=settings.min_features,
            level=settings.level,
            policy=settings.policy,
            control=settings.control,
        )
