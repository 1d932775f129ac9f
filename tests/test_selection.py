"""Screening, the path, the tests and the choice, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening import best_pairs, moments_of, products
from streamfeat.selection.folds import CONFIRM, N_BLOCKS, HashFolds, borders
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.policies.lasso import lasso_path
from streamfeat.selection.selector import Selection, benjamini_hochberg, select
from streamfeat.selection.student import t_quantile, t_tail


@given(st.integers(0, 10_000), st.integers(2, 12))
def test_the_path_satisfies_its_optimality_conditions(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, width)) @ rng.normal(size=(width, width))
    X = (X - X.mean(0)) / X.std(0)
    y = X[:, 0] - X[:, -1] + rng.normal(size=60)
    R, c = X.T @ X / 60, X.T @ (y - y.mean()) / 60
    path = lasso_path(R, c, most_active=width)
    for penalty in np.geomspace(path.penalties[0] * 0.99, path.penalties[-1] * 1.01, 9):
        beta = path.at(float(penalty))
        gradient = c - R @ beta
        assert np.abs(gradient).max() <= penalty + 1e-8
        active = beta != 0
        np.testing.assert_allclose(gradient[active], penalty * np.sign(beta[active]), atol=1e-8)


def test_students_t_at_known_points() -> None:
    assert t_tail(0.0, 5) == pytest.approx(0.5)
    assert t_tail(2.228138852, 10) == pytest.approx(0.025, abs=1e-9)
    assert t_tail(-1.0, 1) == pytest.approx(0.75)
    assert t_quantile(0.05, 4) == pytest.approx(2.131846786, abs=1e-8)


def test_the_step_up_takes_all_below_the_last_crossing() -> None:
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5], 0.06) == [True, True, True, False]
    assert benjamini_hochberg([], 0.05) == []


def test_hashed_blocks_have_their_shares() -> None:
    blocks = HashFolds(7).assign(np.arange(200_000))
    shares = np.bincount(blocks, minlength=N_BLOCKS) / 200_000
    limits = [0.0, *map(float, borders()), 1.0]
    np.testing.assert_allclose(shares, np.diff(limits), atol=0.003)


def choose(
    U: np.ndarray, y: np.ndarray, *, level: float = 0.05, min_features: int = 0, seed: int = 0
) -> Selection:
    blocks = HashFolds(seed).assign(np.arange(U.shape[1]))
    searching = blocks < 5
    gains = products(moments_of(U[:, searching], y[None, searching]))
    pairs = best_pairs(gains, count=30, per_term=6)
    Z = np.vstack([U, *[U[i] * U[j] for i, j, _ in pairs], y])
    names = [f"u{i}" for i in range(len(U))] + [f"u{i} * u{j}" for i, j, _ in pairs]
    return select(
        FoldGrams.empty(len(Z), N_BLOCKS).update(Z, blocks),
        names=names,
        costs=[1.0] * len(U) + [3.0] * len(pairs),
        baseline=range(len(U)),
        ordered=False,
        max_features=20,
        min_features=min_features,
        level=level,
    )


def test_law_noise_gives_no_features() -> None:
    """Honesty: the share of noise tables with any feature is at most the stated level."""
    level, n_tables = 0.2, 80
    rng = np.random.default_rng(11)
    hits = sum(
        bool(choose(rng.normal(size=(12, 300)), rng.normal(size=300), level=level).selected)
        for _ in range(n_tables)
    )
    assert hits <= level * n_tables + 3 * np.sqrt(n_tables * level * (1 - level))


def test_planted_interactions_are_found_and_scored() -> None:
    rng = np.random.default_rng(2)
    U = rng.normal(size=(10, 4000))
    y = U[0] * U[1] + 0.6 * U[2] + rng.normal(size=4000)
    made = choose(U, y)
    assert {f.name for f in made.selected} == {"u0 * u1", "u2"}
    assert made.score == pytest.approx(1.36 / 2.36, abs=0.06)
    assert made.score_interval is not None and made.score is not None
    assert made.score_interval[0] < made.score < made.score_interval[1]


def test_law_confirmation_rows_take_no_part_in_the_search() -> None:
    """Honesty: without signal in the untouched blocks nothing is chosen."""
    rng = np.random.default_rng(5)
    U = rng.normal(size=(8, 3000))
    y = U[0] * U[1] + rng.normal(size=3000)
    blocks = HashFolds(0).assign(np.arange(3000))
    hidden = blocks >= CONFIRM.start
    y[hidden] = rng.normal(size=int(hidden.sum()))
    made = choose(U, y)
    assert made.selected == () and made.score is None and made.model_p_value > 0.05
    assert any("did not pass" in r.reason for r in made.rejected)
    asked = choose(U, y, min_features=2)
    assert len(asked.selected) == 2 and not any(f.significant for f in asked.selected)


def test_law_the_score_is_of_rows_that_trained_nothing() -> None:
    """Honesty: on noise, where a fit explains much, the score is no better than chance."""
    rng = np.random.default_rng(9)
    scores = []
    for _ in range(20):
        made = choose(rng.normal(size=(12, 260)), rng.normal(size=260), min_features=12)
        assert len(made.selected) == 12 and made.score is not None
        scores.append(made.score)
    assert np.mean(scores) <= 0.0


def test_duplicates_and_constants_step_back() -> None:
    rng = np.random.default_rng(1)
    U = rng.normal(size=(4, 2000))
    U[1] = 3 * U[0] + 1e-9 * U[2]
    U[3] = 0.0
    made = choose(U, U[0] + 0.1 * rng.normal(size=2000))
    reasons = {r.name: r.reason for r in made.rejected}
    assert [f.name for f in made.selected] == ["u0"]
    assert reasons["u1"] == "near-duplicate of u0"
    assert reasons["u3"].startswith("constant")


@pytest.mark.parametrize("n", [1, 2, 3, 10, 30])
def test_a_handful_of_rows_chooses_nothing(n: int) -> None:
    rng = np.random.default_rng(0)
    assert choose(rng.normal(size=(3, n)), rng.normal(size=n)).selected == ()
