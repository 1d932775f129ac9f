"""Gains of pairs against least squares: nulls, weights, float32, singular covariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screening import Both, bands_of, best_pairs, empty, moments_of, products, sums, terms
from streamfeat.selection.moments import BAND_TERMS, Array
from streamfeat.selection.screen import BestPairs


def left_over(columns: list[Array], y: Array, w: Array) -> float:
    """Weighted squares of y that the columns leave."""
    X = np.column_stack([np.ones(len(y)), *columns]) * np.sqrt(w)[:, None]
    v = y * np.sqrt(w)
    left = v - X @ np.linalg.lstsq(X, v, rcond=None)[0]
    return float(left @ left)


def gain(U: Array, Y: Array, w: Array, kind: str, i: int, j: int) -> float:
    """What a pair explains of the outputs, by least squares on the rows where both are known."""
    known = ~(np.isnan(U[i]) | np.isnan(U[j]))
    a, b, v = U[i, known], U[j, known], w[known]
    own = [a] if i == j else [a, b]
    total = 0.0
    for y in Y[:, known]:
        if kind == "mul":
            total += left_over(own, y, v) - left_over([*own, a * b], y, v)
        else:
            better = min(left_over([a], y, v), left_over([b], y, v))
            total += max(better - left_over([a + b if kind == "add" else a - b], y, v), 0.0)
    return total / w.sum() / len(Y)


def check(U: Array, Y: Array, w: Array, both: Both, *, atol: float) -> None:
    made = dict(zip(("add", "sub"), sums(both, np.ones(len(U))), strict=True))
    made["mul"] = products(both)
    for kind, found in made.items():
        for i in range(len(U)):
            for j in range(i + (kind != "mul"), len(U)):
                if len(Y) == 1 or kind == "mul":
                    want = gain(U, Y, w, kind, i, j)
                    assert found[i, j] == pytest.approx(want, abs=atol), (kind, i, j)


@given(
    st.integers(0, 10_000),
    st.floats(-2, 2),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.booleans(),
)
def test_gains_are_those_of_least_squares(
    seed: int, shift: float, n_outputs: int, with_nulls: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    U = rng.normal(shift, 1.0, (4, 150))
    Y = rng.normal(size=(n_outputs, 150)) + U[0] * U[1]
    if with_nulls:
        U[1:3, rng.random(150) < 0.2] = np.nan
        U[3, rng.random(150) < 0.1] = np.nan
    w = rng.random(150) + 0.1 if weighted else np.ones(150)
    both = moments_of(U, Y, weights=w if weighted else None)
    check(U, Y, w, both, atol=1e-8)


def test_float32_ranks_as_float64() -> None:
    """Bands in float32, summed into float64, give the same best pairs, heavy tails and all."""
    rng = np.random.default_rng(3)
    U = rng.standard_t(3, size=(60, 20_000))
    U = (U - U.mean(1, keepdims=True)) / U.std(1, keepdims=True)
    Y = (0.1 * U[3] * U[7] + 0.05 * U[8] * U[9] + rng.normal(size=20_000))[None]
    exact, fast = (products(moments_of(U, Y, heavy=heavy, tile=8192)) for heavy in (True, False))
    np.testing.assert_allclose(fast, exact, atol=2e-7)
    one, two = (best_pairs(g, count=40, per_term=99) for g in (exact, fast))
    assert [p[:2] for p in one] == [p[:2] for p in two]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, -7.0, 30.0]))
def test_a_location_that_is_off_changes_nothing(seed: int, shift: float) -> None:
    """Rounding grows with the fourth power of the miss, counted in standard deviations."""
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(4, 300))
    y = U[0] * U[1] + rng.normal(size=300)
    found, w = products(moments_of(U + shift, y[None])), np.ones(300)
    for i in range(4):
        for j in range(i, 4):
            want = gain(U + shift, y[None], w, "mul", i, j)
            assert found[i, j] == pytest.approx(want, abs=1e-8 * max(1.0, abs(shift) / 10) ** 4)


def test_a_constant_output_is_explained_by_nothing() -> None:
    U = np.random.default_rng(0).normal(size=(4, 500))
    U[1], U[2] = 0.3, 1000.001
    both = moments_of(U, np.zeros((1, 500)))
    assert terms(both).max() == products(both).max() == 0.0
    assert max(g.max() for g in sums(both, np.ones(4))) == 0.0


def test_a_constant_times_a_term_adds_nothing_to_the_term() -> None:
    rng = np.random.default_rng(0)
    U = rng.normal(size=(4, 500))
    U[1], U[2] = 0.3, 1000.001
    found = products(moments_of(U, (U[3] + rng.normal(size=500))[None]))
    assert found[1:3].max() < 1e-12 and found[0, 1:3].max() < 1e-12


def test_no_rows_score_nothing() -> None:
    bands, _ = bands_of(np.ones((3, 5)))
    both = empty(bands, 2)
    assert terms(both).max() == products(both).max() == 0.0
    assert max(g.max() for g in sums(both, np.ones(3))) == 0.0


def test_pairs_hardly_ever_known_together_score_nothing() -> None:
    rng = np.random.default_rng(5)
    U = rng.normal(size=(2, 400))
    U[0, 5:], y = np.nan, rng.normal(size=400)
    y[:5] = U[0, :5] * U[1, :5] * 100
    assert products(moments_of(U, y[None])).max() < 0.1


@pytest.mark.parametrize("m", [BAND_TERMS - 1, BAND_TERMS, BAND_TERMS + 1])
def test_bands_meet(m: int) -> None:
    rng = np.random.default_rng(m)
    U = rng.normal(size=(m, 60))
    y = (U[m - 2] * U[m - 1] + U[0] - U[m - 1])[None]
    both, w = moments_of(U, y), np.ones(60)
    found, (plus, minus) = products(both), sums(both, np.ones(m))
    assert np.array_equal(found, np.triu(found))
    assert np.array_equal(plus, np.triu(plus, 1)) and np.array_equal(minus, np.triu(minus, 1))
    i, j = m - 2, m - 1
    assert found[i, j] == pytest.approx(gain(U, y, w, "mul", i, j), abs=1e-9)
    assert minus[0, j] == pytest.approx(gain(U, y, w, "sub", 0, j), abs=1e-9)


@given(st.integers(0, 500), st.integers(1, 30), st.integers(1, 4))
def test_the_best_pairs_are_those_of_a_plain_loop(seed: int, count: int, per_term: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.triu(rng.integers(0, 5, (7, 7)) / 4.0)
    used, wanted = [0] * 7, []
    for score in (1.0, 0.75, 0.5, 0.25):
        for i in range(7):
            for j in range(7):
                free = used[i] < per_term and used[j] < per_term
                if scores[i, j] == score and free and len(wanted) < count:
                    wanted.append((i, j, score))
                    for k in {i, j}:
                        used[k] += 1
    assert best_pairs(scores, count=count, per_term=per_term) == wanted


@given(st.integers(0, 500), st.integers(1, 12))
def test_the_best_do_not_depend_on_the_order_of_blocks(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 6, (12, 12)) / 5.0
    corners = [(a, b) for a in (0, 4, 8) for b in (0, 6)]
    whole = list(BestPairs(count).update(gains, 0, 0))
    one, two = BestPairs(count), BestPairs(count)
    for k in rng.permutation(len(corners)):
        a, b = corners[k]
        (one if k % 2 else two).update(gains[a : a + 4, b : b + 6], a, b)
    assert list(one.merge(two)) == whole
