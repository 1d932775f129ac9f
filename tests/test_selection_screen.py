"""Scores of pairs where a covariance is singular, a pilot is wrong, or memory is counted."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.moments import Array, Moments, ResidualMoments
from streamfeat.selection.screen import product_scores, sum_scores, term_scores, top_pairs


def r2(columns: list[Array], y: Array) -> float:
    X = np.column_stack([np.ones(len(y)), *[(c - c.mean()) / c.std() for c in columns]])
    left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    return float(1 - (left @ left) / ((y - y.mean()) @ (y - y.mean())))


def moments_of(U: Array, Y: Array) -> Moments:
    total = Moments.empty(len(U), len(Y))
    for k in range(0, U.shape[1], 50):
        total.update(U[:, k : k + 50], Y[:, k : k + 50])
    return total


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, -7.0, 30.0]))
def test_a_pilot_that_missed_the_mean_changes_nothing(seed: int, shift: float) -> None:
    """Rounding grows with the fourth power of the miss, counted in standard deviations."""
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(4, 300))
    y = U[0] * U[1] + rng.normal(size=300)
    found = product_scores(moments_of(U + shift, y[None]))
    for i in range(4):
        for j in range(i, 4):
            own = [U[i], U[j]] if i != j else [U[i]]
            gain = r2([*own, (U[i] + shift) * (U[j] + shift)], y) - r2(own, y)
            assert found[i, j] == pytest.approx(gain, abs=1e-9 * max(1.0, abs(shift) / 10) ** 4)


def test_a_residual_takes_the_place_of_the_target() -> None:
    rng = np.random.default_rng(4)
    U = rng.normal(0.3, 1.2, (5, 400))
    Y = rng.normal(size=(2, 400)) + U[0]
    left = Y - 0.9 * U[0]
    whole, residual = moments_of(U, Y), ResidualMoments.empty(5, 2).update(U, left)
    direct, scales = moments_of(U, left), np.linspace(0.5, 2.0, 5)
    np.testing.assert_allclose(term_scores(whole, residual), term_scores(direct), atol=1e-12)
    np.testing.assert_allclose(product_scores(whole, residual), product_scores(direct), atol=1e-12)
    for one, two in zip(
        sum_scores(whole, scales, residual), sum_scores(direct, scales), strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_a_constant_output_is_explained_by_nothing() -> None:
    U = np.random.default_rng(0).normal(size=(4, 500))
    U[1], U[2] = 0.3, 1000.001
    found = moments_of(U, np.full((1, 500), 0.1))
    assert term_scores(found).max() == product_scores(found).max() == 0.0
    assert max(scores.max() for scores in sum_scores(found, np.ones(4))) == 0.0


def test_a_constant_times_a_term_adds_nothing_to_the_term() -> None:
    rng = np.random.default_rng(0)
    U = rng.normal(size=(4, 500))
    U[1], U[2] = 0.3, 1000.001
    found = product_scores(moments_of(U, (U[3] + rng.normal(size=500))[None]))
    assert found[1:3].max() < 1e-12 and found[0, 1:3].max() < 1e-12


def test_a_hopeless_pilot_makes_no_winner_out_of_rounding() -> None:
    rng = np.random.default_rng(1)
    U, y = rng.normal(size=(6, 2000)), rng.normal(size=2000)
    far = product_scores(moments_of(U + 1e6, y[None]))
    assert far.max() <= product_scores(moments_of(U, y[None])).max() + 1e-6


def test_no_rows_score_nothing() -> None:
    empty = Moments.empty(3, 2)
    assert term_scores(empty).max() == product_scores(empty).max() == 0.0
    assert max(scores.max() for scores in sum_scores(empty, np.ones(3))) == 0.0


@pytest.mark.parametrize("m", [127, 128, 129])
def test_blocks_of_rows_meet(m: int) -> None:
    rng = np.random.default_rng(m)
    U = rng.normal(size=(m, 60))
    y = U[m - 2] * U[m - 1] + U[0] - U[m - 1]
    found = moments_of(U, y[None])
    products, (plus, minus) = product_scores(found), sum_scores(found, np.ones(m))
    assert np.array_equal(products, np.triu(products))
    assert np.array_equal(plus, np.triu(plus, 1)) and np.array_equal(minus, np.triu(minus, 1))
    i, j = m - 2, m - 1
    gain = r2([U[i], U[j], U[i] * U[j]], y) - r2([U[i], U[j]], y)
    assert products[i, j] == pytest.approx(gain, abs=1e-9)
    gain = r2([U[0] - U[j]], y) - max(r2([U[0]], y), r2([U[j]], y))
    assert minus[0, j] == pytest.approx(gain, abs=1e-9)


def test_scoring_holds_few_matrices() -> None:
    """The allocation plan leases eight matrices of terms x terms for all scores together."""
    m = 700
    found = moments_of(np.random.default_rng(0).normal(size=(m, 50)), np.ones((1, 50)))
    tracemalloc.start()
    products = product_scores(found)
    top_pairs(products, allowed=np.triu(np.ones((m, m), bool)), count=10, per_term=5)
    sum_scores(found, np.ones(m))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * products.nbytes


@given(st.integers(0, 500), st.integers(1, 30), st.integers(1, 4))
def test_top_pairs_are_those_of_a_plain_loop(seed: int, count: int, per_term: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.triu(rng.integers(0, 5, (7, 7)) / 4.0)
    scores[rng.random((7, 7)) < 0.1] = np.nan
    allowed = rng.random((7, 7)) < 0.8
    used, wanted = [0] * 7, []
    for score in (1.0, 0.75, 0.5, 0.25):
        for i in range(7):
            for j in range(7):
                free = used[i] < per_term and used[j] < per_term
                if scores[i, j] == score and allowed[i, j] and free and len(wanted) < count:
                    wanted.append((i, j, score))
                    for k in {i, j}:
                        used[k] += 1
    assert top_pairs(scores, allowed=allowed, count=count, per_term=per_term) == wanted


def test_law_updating_by_tile_equals_merging_tiles_bit_for_bit() -> None:
    rng = np.random.default_rng(9)
    U, Y = rng.normal(size=(5, 400)), rng.normal(size=(2, 400))
    blocks = rng.integers(-1, 3, 400).astype(np.int16)
    one, two = Moments.empty(5, 2), Moments.empty(5, 2)
    left, right = FoldGrams.empty(7, 3), FoldGrams.empty(7, 3)
    for k in range(0, 400, 64):
        u, y, b = U[:, k : k + 64], Y[:, k : k + 64], blocks[k : k + 64]
        one.update(u, y)
        two.merge(Moments.empty(5, 2).update(u, y))
        left.update(np.vstack((u, y)), b)
        right.merge(FoldGrams.empty(7, 3).update(np.vstack((u, y)), b))
    for name in ("sums", "a", "s", "c"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    for name in ("p", "b", "sums", "squares"):
        assert np.array_equal(getattr(one.target, name), getattr(two.target, name))
    assert np.array_equal(left.products, right.products)
