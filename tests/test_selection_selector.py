"""The choice on time-ordered rows, several outputs, few rows; noise stays noise."""

from __future__ import annotations

import numpy as np
import pytest

from screening import best_pairs, moments_of, products
from streamfeat.selection.folds import (
    CONFIRM,
    FINAL,
    N_BLOCKS,
    NULL_TIME,
    SEARCH,
    Blocks,
    HashFolds,
    TimeHistogram,
    time_folds,
)
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.linear import fit, standardise
from streamfeat.selection.moments import Array
from streamfeat.selection.policies import POLICIES
from streamfeat.selection.selector import Selection, chosen_set, search_problem, select


def in_time(n: int, *, horizon: int = 1) -> Blocks:
    times = np.arange(n, dtype=np.int64) * 10
    ends = np.full(n, NULL_TIME)
    ends[: max(n - horizon, 0)] = times[horizon:]
    return time_folds(TimeHistogram.empty(0, int(times[-1])).update(times)).assign(times, ends)


def hashed(n: int, *, seed: int = 0) -> Blocks:
    return HashFolds(seed).assign(np.arange(n))


def screened(U: Array, Y: Array, blocks: Blocks) -> tuple[Array, list[str]]:
    """The terms and the 30 best products of the search blocks."""
    rows = (blocks >= 0) & (blocks < len(SEARCH))
    pairs = best_pairs(products(moments_of(U[:, rows], Y[:, rows])), count=30, per_term=6)
    names = [f"u{i}" for i in range(len(U))] + [f"u{i} * u{j}" for i, j, _ in pairs]
    return np.vstack([U, *[U[i] * U[j] for i, j, _ in pairs]]), names


def choose(
    U: Array,
    y: Array,
    blocks: Blocks,
    *,
    ordered: bool = False,
    level: float = 0.1,
    max_features: int = 20,
    min_features: int = 0,
    control: str = "features",
    policy: str = "auto",
) -> Selection:
    Y = np.atleast_2d(y)
    Z, names = screened(U, Y, blocks)
    return select(
        FoldGrams.empty(len(Z) + len(Y), N_BLOCKS).update(np.vstack([Z, Y]), blocks),
        names=names,
        costs=[1.0 + 2.0 * ("*" in name) for name in names],
        baseline=range(len(U)),
        ordered=ordered,
        max_features=max_features,
        min_features=min_features,
        level=level,
        control=control,
        policy=policy,
    )


def autoregressive(rng: np.random.Generator, m: int, n: int, phi: float) -> Array:
    noise = rng.normal(size=(m, n))
    for k in range(1, n):
        noise[:, k] = phi * noise[:, k - 1] + np.sqrt(1 - phi**2) * noise[:, k]
    return noise


@pytest.mark.parametrize("kind", ["rows", "trending", "overlapping labels"])
def test_law_noise_gives_no_features(kind: str) -> None:
    """Honesty: the share of noise tables with any feature is at most the level, in time too."""
    level, n_tables, n, hits = 0.2, 70, 700, 0
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        if kind == "rows":
            U, y, blocks = rng.normal(size=(10, n)), rng.normal(size=n), hashed(n, seed=seed)
        elif kind == "trending":
            U, blocks = autoregressive(rng, 10, n, 0.98), in_time(n)
            y = autoregressive(rng, 1, n, 0.8)[0]
        else:
            U, blocks = autoregressive(rng, 10, n, 0.98), in_time(n, horizon=5)
            y = np.convolve(rng.normal(size=n + 4), np.ones(5), "valid")
        hits += bool(choose(U, y, blocks, ordered=kind != "rows", level=level).selected)
    assert hits <= level * n_tables + 3 * np.sqrt(n_tables * level * (1 - level))


def test_law_false_discoveries_stay_below_the_level() -> None:
    level, n_tables, shares, strong, weak = 0.1, 60, [], 0, 0
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        U = rng.normal(size=(12, 2500))
        y = U[0] * U[1] + 0.5 * U[2] + 0.1 * U[3] + 1.5 * rng.normal(size=2500)
        chosen = {f.name for f in choose(U, y, hashed(2500, seed=seed), level=level).selected}
        shares.append(len(chosen - {"u0 * u1", "u2", "u3"}) / max(len(chosen), 1))
        strong += "u0 * u1" in chosen
        weak += "u2" in chosen
    assert np.mean(shares) <= level
    assert strong == n_tables and weak > 0.8 * n_tables


def test_the_interval_covers_what_a_model_can_reach() -> None:
    covered, n_tables = 0, 60
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        U = rng.normal(size=(6, 3000))
        made = choose(U, U[0] * U[1] + rng.normal(size=3000), hashed(3000, seed=seed))
        assert made.score_interval is not None
        covered += made.score_interval[0] <= 0.5 <= made.score_interval[1]
    assert 0.75 * n_tables <= covered < n_tables


def test_signal_in_time_is_found_and_its_score_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(6)
    U = autoregressive(rng, 8, 6000, 0.5)
    y = 1.5 * U[0] * U[1] - 0.7 * U[4] + rng.normal(size=6000)
    blocks = in_time(6000)
    made = choose(U, y, blocks, ordered=True)
    assert [f.name for f in made.selected] == ["u0 * u1", "u4"]
    assert all(f.significant and f.stability == 1.0 for f in made.selected)
    kept, own, flat = np.stack([U[0] * U[1], U[4]]), 0.0, 0.0
    X = np.vstack([np.ones(6000), kept])
    for part in (CONFIRM, FINAL):  # the model of a block never saw a later one
        train = (blocks >= 0) & (blocks < part.start)
        test = (blocks >= part.start) & (blocks < part.stop)
        weights = np.linalg.lstsq(X[:, train].T, y[train], rcond=None)[0]
        own += ((y[test] - weights @ X[:, test]) ** 2).sum()
        flat += ((y[test] - y[train].mean()) ** 2).sum()
    assert made.score == pytest.approx(1 - own / flat, abs=3e-3)
    assert made.baseline_score is not None and made.baseline_score < 0.4
    counts = [blocks < 5, (blocks >= 5) & (blocks < 25), blocks >= 25]
    rows = (made.n_rows_search, made.n_rows_confirm, made.n_rows_final)
    assert rows == tuple(int((c & (blocks >= 0)).sum()) for c in counts)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("part", [CONFIRM, FINAL])
def test_law_scored_rows_train_nothing(ordered: bool, part: range) -> None:
    """Honesty: an absurd target in one part turns the score, as no model saw it coming."""
    rng = np.random.default_rng(21)
    U = rng.normal(size=(6, 3000))
    y = U[0] * U[1] + 0.5 * rng.normal(size=3000)
    blocks = in_time(3000) if ordered else hashed(3000)
    test = (blocks >= part.start) & (blocks < part.stop)
    y[test] = -y[test]
    made = choose(U, y, blocks, ordered=ordered, min_features=1)
    assert made.score is not None and made.score < 0.25


def test_law_what_is_tested_on_a_block_never_saw_a_later_one() -> None:
    """No look-ahead: the final blocks' target changes no gain on the confirmation blocks."""
    rng = np.random.default_rng(5)
    U, blocks = rng.normal(size=(8, 3000)), in_time(3000)
    y = U[0] * U[1] + 0.5 * U[3] + rng.normal(size=3000)
    other = y.copy()
    other[blocks >= FINAL.start] = rng.normal(size=int((blocks >= FINAL.start).sum()))
    one, two = (choose(U, v, blocks, ordered=True, control="model") for v in (y, other))
    gains = [{f.name: f.block_gains[: len(CONFIRM)] for f in made.selected} for made in (one, two)]
    both = gains[0].keys() & gains[1].keys()
    assert {"u0 * u1", "u3"} <= both
    assert all(gains[0][name] == gains[1][name] for name in both)


@pytest.mark.parametrize("ordered", [False, True])
def test_law_later_blocks_take_no_part_in_the_search(ordered: bool) -> None:
    """Honesty: which finalists reach the tests is settled by the search blocks alone."""
    rng = np.random.default_rng(12)
    U = rng.normal(size=(8, 3000))
    y = U[0] * U[1] + 0.5 * U[3] + rng.normal(size=3000)
    blocks = in_time(3000) if ordered else hashed(3000)
    hidden = y.copy()
    later = blocks >= len(SEARCH)
    hidden[later] = rng.permutation(y[later])
    one = choose(U, y, blocks, ordered=ordered)
    two = choose(U, hidden, blocks, ordered=ordered)
    tested = {f.name for f in one.selected} | {r.name for r in one.rejected if "pass" in r.reason}
    again = {f.name for f in two.selected} | {r.name for r in two.rejected if "pass" in r.reason}
    assert tested == again and {"u0 * u1", "u3"} <= tested
    assert two.selected == ()


def test_law_no_training_set_sees_later_blocks() -> None:
    """No look-ahead: what works from the last search block on is in no training set of a walk."""
    rng = np.random.default_rng(14)
    U, blocks = rng.normal(size=(6, 6000)), in_time(6000)
    late = blocks >= len(SEARCH) - 1
    y = U[0] + 4.0 * late * U[1] + rng.normal(size=6000)
    grams = FoldGrams.empty(7, N_BLOCKS).update(np.vstack([U, y]), blocks)
    problem = search_problem(grams, n_outputs=1, most=6)
    walk, any_order = (chosen_set(problem, "lasso", ordered=ordered) for ordered in (True, False))
    assert walk.picked[0] == 1.0 and walk.picked[1] == 0.0 < any_order.picked[1]


def classes(n: int) -> tuple[Array, Array]:
    """Three classes: one of a product, one of a weak product, one of a strong single term."""
    rng = np.random.default_rng(1)
    U = rng.normal(size=(8, n))
    votes = np.stack([1.5 * U[0] * U[1] + U[5], U[2] * U[3], 2.0 * U[4]])
    label = np.argmax(votes + 0.5 * rng.normal(size=(3, n)), axis=0)
    return U, (label == np.arange(3)[:, None]).astype(float)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_outputs_compete_for_places_by_what_they_explain(most: int) -> None:
    U, Y = classes(5000)
    blocks = hashed(5000)
    made = choose(U, Y, blocks, max_features=most)
    turned = choose(U, Y[[2, 0, 1]], blocks, max_features=most)
    assert {f.name for f in made.selected} == {f.name for f in turned.selected}
    assert made.selected[0].name == "u4" and len(made.selected) == most


def test_the_refit_of_all_outputs_is_scored_together() -> None:
    U, Y = classes(5000)
    blocks = hashed(5000)
    made = choose(U, Y, blocks)
    Z, names = screened(U, Y, blocks)
    grams = FoldGrams.empty(len(Z) + 3, N_BLOCKS).update(np.vstack([Z, Y]), blocks)
    chosen = [names.index(f.name) for f in made.selected]
    model = fit(standardise(grams.total(range(FINAL.start)), 3), chosen, 1e-3)
    test = blocks >= FINAL.start
    left = Y[:, test] - model.intercepts[:, None] - model.coefficients() @ Z[:, test]
    flat = Y[:, test] - Y[:, ~test].mean(axis=1, keepdims=True)
    assert made.score == pytest.approx(1 - (left**2).sum() / (flat**2).sum(), abs=0.02)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 30, 60])
def test_few_rows_choose_nothing_and_say_why(n: int, ordered: bool) -> None:
    rng = np.random.default_rng(n)
    U, y = rng.normal(size=(4, n)), rng.normal(size=n)
    blocks = in_time(n) if ordered else hashed(n)
    made = choose(U, y, blocks, ordered=ordered)
    assert made.selected == () and made.score is None
    assert made.model_p_value == 1.0 or made.n_rows_confirm > 5
    assert {r.index for r in made.rejected} == set(range(len(made.rejected)))
    assert len(made.rejected) >= 4 and all(r.reason for r in made.rejected)


def test_the_best_come_back_when_asked_even_where_nothing_can_be_confirmed() -> None:
    rng = np.random.default_rng(0)
    U = rng.normal(size=(4, 30))
    made = choose(U, 3.0 * U[2] + rng.normal(size=30), in_time(30), ordered=True, min_features=2)
    assert [f.significant for f in made.selected] == [False, False]
    assert "u2" in {f.name for f in made.selected}
    assert made.n_rows_final == 0 and made.score is None


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_as_many_as_asked_for_come_back(n_outputs: int) -> None:
    rng = np.random.default_rng(2)
    U = rng.normal(size=(6, 800))
    made = choose(U, rng.normal(size=(n_outputs, 800)), hashed(800), min_features=15)
    assert len(made.selected) == 15 == len({f.index for f in made.selected})
    assert not {f.index for f in made.selected} & {r.index for r in made.rejected}
    gains = [f.gain for f in made.selected]
    assert gains == sorted(gains, reverse=True)


def test_every_finalist_is_chosen_or_rejected_once_and_twice_the_same() -> None:
    U, Y = classes(2000)
    one, two = (choose(U, Y, hashed(2000)) for _ in range(2))
    assert one == two
    places = [f.index for f in one.selected] + [r.index for r in one.rejected]
    assert sorted(places) == list(range(len(places)))


def test_a_column_that_moves_only_later_is_left_out() -> None:
    rng = np.random.default_rng(3)
    U, blocks = rng.normal(size=(3, 4000)), in_time(4000)
    U[1] = np.where(blocks >= len(SEARCH), U[1], 0.25)
    made = choose(U, U[0] + 0.5 * rng.normal(size=4000), blocks, ordered=True)
    assert [f.name for f in made.selected] == ["u0"]
    assert {r.name: r.reason for r in made.rejected}["u1"].startswith("constant")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_finds_what_is_there(policy: str) -> None:
    rng = np.random.default_rng(4)
    U = rng.normal(size=(10, 3000))
    y = U[0] * U[1] + 0.7 * U[2] - 0.5 * U[3] + rng.normal(size=3000)
    made = choose(U, y, hashed(3000), policy=policy, control="features")
    assert {"u0 * u1", "u2", "u3"} <= {f.name for f in made.selected}
    assert made.policy in ({"lasso", "forward"} if policy == "auto" else {policy})
    assert made.score == pytest.approx(1.74 / 2.74, abs=0.05)


@pytest.mark.parametrize("policy", POLICIES)
def test_law_no_policy_makes_features_of_noise(policy: str) -> None:
    """Honesty: whatever proposes the features, the share of noise tables with any is the level."""
    level, n_tables, hits = 0.2, 25, 0
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        made = choose(rng.normal(size=(10, 500)), rng.normal(size=500), hashed(500, seed=seed),
                      level=level, policy=policy, control="model")  # fmt: skip
        hits += bool(made.selected)
    assert hits <= level * n_tables + 3 * np.sqrt(n_tables * level * (1 - level))


def test_collinear_columns_are_not_taken_together() -> None:
    rng = np.random.default_rng(8)
    U = rng.normal(size=(4, 4000))
    U[1] = U[0] + 0.08 * rng.normal(size=4000)
    y = 5 * (U[0] - U[1]) + U[2] + 0.2 * rng.normal(size=4000)
    for policy in POLICIES:
        names = {
            f.name for f in choose(U, y, hashed(4000), policy=policy, control="model").selected
        }
        assert not {"u0", "u1"} <= names and "u2" in names
