"""The search: which rows it may look at, and what it makes of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from streamfeat.errors import OptionError
from streamfeat.evaluate.scan import Scanner
from streamfeat.events import Event, Events, PassFinished
from streamfeat.plan.execution import TILE_ROWS
from streamfeat.search.run import Found, Settings, count_candidates, grammar, search
from streamfeat.search.target import resolve_target
from streamfeat.selection.folds import N_SEARCH, HashFolds
from streamfeat.sources.frames import TableSource
from streamfeat.sources.roles import infer_roles

SETTINGS = Settings(
    transformations=("log", "1/", "^2"),
    windows=(),
    steps=2,
    beam=24,
    max_features=10,
    min_features=0,
    level=0.05,
    seed=0,
)


def found(columns: dict[str, np.ndarray], settings: Settings = SETTINGS) -> Found:
    source = TableSource(pa.table(columns), "<test>")
    roles = infer_roles(source, target_column="y")
    scanner = Scanner(source, None, lambda: TILE_ROWS, 2, Events())
    target = resolve_target(source, roles, "y")
    return search(scanner, roles, target, grammar(roles, settings), settings)


def data(n: int = 20_000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    columns = {name: rng.lognormal(0, 0.5, n) for name in "abcd"}
    columns["y"] = columns["a"] / columns["b"] + 0.5 * columns["c"] ** 2 + rng.normal(size=n)
    return columns


def test_law_the_screen_never_sees_the_rows_that_score_it() -> None:
    """Honesty: scrambling the target outside the search blocks changes no finalist."""
    columns = data()
    blocks = HashFolds(0).assign(np.arange(len(columns["y"])))
    other = dict(columns)
    other["y"] = np.where(
        blocks < N_SEARCH, columns["y"], np.random.default_rng(1).normal(size=len(blocks))
    )
    assert found(columns).finalists == found(other).finalists


def test_ratios_and_squares_are_found() -> None:
    made = found(data())
    assert {f.name for f in made.selection.selected} >= {"a / b"}
    assert made.n_candidates == count_candidates(made.n_terms, 2) > made.n_terms**2
    assert {str(e) for e in made.finalists} >= {"a", "b", "c", "d", "a / b"}


def test_one_step_makes_no_pairs() -> None:
    single = Settings(**{**SETTINGS.__dict__, "steps": 1})
    made = found(data(), single)
    assert all(expr.depth <= 1 for expr in made.finalists)
    assert made.n_candidates == made.n_terms


def test_too_many_candidates_are_refused_before_work() -> None:
    few = Settings(**{**SETTINGS.__dict__, "max_candidates": 5})
    with pytest.raises(OptionError, match="max_candidates is 5"):
        found(data(100), few)


def test_passes_are_told() -> None:
    told: list[str] = []
    columns = data(5000)
    source = TableSource(pa.table(columns), "<test>")
    roles = infer_roles(source, target_column="y")
    events = Events()

    def hear(event: Event) -> None:
        if isinstance(event, PassFinished):
            told.append(event.name)

    events.subscribe(hear)
    scanner = Scanner(source, None, lambda: TILE_ROWS, 1, events)
    target = resolve_target(source, roles, "y")
    search(scanner, roles, target, grammar(roles, SETTINGS), SETTINGS)
    assert told == [
        "look at the target",
        "look at the terms",
        "screen all pairs",
        "look at the finalists of round 1",
        "Grams of the finalists of round 1",
        "screen what round 1 leaves",
        "look at the finalists of round 2",
        "Grams of the finalists of round 2",
    ]
