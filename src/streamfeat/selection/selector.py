"""The choice: which finalists survive, from fold Grams alone, and how well they do.

This module covers, in order:
1. near-duplicates give way to the simplest formula (``_representatives``);
2. a policy's sets of columns, one taken by cross-validation inside the training blocks, the
   sparsest within one standard error of the best (``chosen_set``);
3. the honest test: the same procedure on training blocks, its models and each feature's gain tested
   on blocks that took no part, by one-sided t-tests over blocks (``_tested``);
4. where the model passes, the procedure once more on all blocks (``_Choice.run``).
This module does *not* cover: screening (screen), accumulating (gram), or the policies.

A block is a long run of time, so dependence between neighbouring rows stays inside it; the evidence
is the number of blocks, never the number of rows. Rows in time are tested walk-forward: the model
of a block never saw a later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamfeat.selection.folds import CONFIRM, FINAL, N_SEARCH, SEARCH
from streamfeat.selection.gram import FoldGrams
from streamfeat.selection.linear import Model, Standardised, constant, fit
from streamfeat.selection.moments import Array
from streamfeat.selection.policies import POLICIES, Problem
from streamfeat.selection.policies.forward import ranked
from streamfeat.selection.student import t_quantile, t_tail

DUPLICATE_CORRELATION = 0.995
LIKE_CORRELATION = 0.9
"""Finalists so close stand for one another where evidence is counted."""
_RIDGE_PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
_LEAST_BLOCKS = 5
"""Fewer blocks with rows than this are no evidence."""


@dataclass(frozen=True)
class SelectedFeature:
    """A finalist that was chosen; ``index`` is its place among the finalists.

    Attributes
    ----------
    gain
        What it explains beyond those before it, on blocks that did not choose it, as a share of the
        outputs' variance.
    interval
        90 % interval of the gain.
    block_gains
        The gain on each such block; where the part that is tested on a block chose a feature much
        like it instead, that one's; 0 where it chose neither.
    stability
        Share of training sets in which the policy picks it.
    """

    name: str
    index: int
    gain: float
    interval: tuple[float, float]
    t_statistic: float
    p_value: float
    stability: float
    marginal_r2: float
    significant: bool
    block_gains: tuple[float, ...]


@dataclass(frozen=True)
class RejectedFeature:
    """A finalist that was not chosen, and why."""

    name: str
    index: int
    reason: str
    gain: float


@dataclass(frozen=True)
class Selection:
    """What was chosen; ``score`` is that of the honest models, None where there are no features.

    ``correlation`` is that of the chosen, ``policy`` the one that chose them.
    """

    selected: tuple[SelectedFeature, ...]
    rejected: tuple[RejectedFeature, ...]
    score: float | None
    score_interval: tuple[float, float] | None
    baseline_score: float | None
    model_p_value: float
    policy: str
    correlation: tuple[tuple[float, ...], ...]
    n_rows_search: int
    n_rows_confirm: int
    n_rows_final: int


def select(
    grams: FoldGrams,
    *,
    names: Sequence[str],
    costs: Sequence[float],
    baseline: Sequence[int],
    ordered: bool,
    max_features: int,
    min_features: int,
    level: float,
    policy: str = "auto",
    control: str = "model",
) -> Selection:
    """Choose among the finalists.

    Parameters
    ----------
    grams
        Over [1, finalists, outputs], one per block of ``selection.folds``.
    names, costs
        Text and complexity of each finalist; of near-duplicates the cheapest stays.
    baseline
        Finalists that are raw columns, for comparison.
    ordered
        Whether blocks follow one another in time.
    level
        Probability that anything is chosen where nothing can be predicted, and false-discovery
        level of the features marked as significant.
    policy
        A name in ``policies.POLICIES``.
    control
        "model": every feature of a model that passes stays. "features": only significant ones.

    Returns
    -------
    Selection
        With no feature where the model does not pass, unless ``min_features`` asks for the best all
        the same; those are marked as not significant.
    """
    return _Choice(
        grams, list(names), list(costs), list(baseline), ordered, max_features, min_features,
        level, policy, control,
    ).run()  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """A set of columns, the most useful first, with the ridge penalty for it.

    ``error`` is the cross-validated squared error per row, ``spread`` its standard error,
    ``picked`` the share of training sets whose set at the same place has each finalist.
    """

    columns: tuple[int, ...]
    penalty: float
    error: float
    spread: float
    policy: str
    picked: Array


def chosen_set(problem: Problem, policy: str, *, ordered: bool) -> Chosen:
    """The set that the policy suggests for the training blocks."""
    splits = _splits(problem, ordered=ordered)
    made = [_by_cross_validation(problem, splits, k, policy) for k in range(len(POLICIES[policy]))]
    return min(made, key=lambda chosen: chosen.error)


def search_problem(grams: FoldGrams, *, n_outputs: int, most: int) -> Problem:
    """The search blocks, every finalist that varies on them."""
    blocks = tuple(b for b in SEARCH if grams.rows[b] > 0)
    width = grams.products.shape[1] - 1 - n_outputs
    whole = Problem(grams, blocks, tuple(range(width)), n_outputs, most)
    pool = tuple(map(int, np.flatnonzero(whole.part.scale > 0)))
    return replace(whole, pool=pool)


def _splits(problem: Problem, *, ordered: bool) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Training and test blocks inside the training blocks."""
    blocks = [b for b in problem.blocks if problem.grams.rows[b] > 0]
    if ordered:
        parts: list[tuple[int, ...]] = [(b,) for b in blocks if b in SEARCH]
        parts += [p for part in (CONFIRM, FINAL) if (p := tuple(b for b in blocks if b in part))]
        return [(sum(parts[:k], ()), parts[k]) for k in range(1, len(parts))]
    tests = [tuple(blocks[k::N_SEARCH]) for k in range(min(N_SEARCH, len(blocks)))]
    made = [(tuple(b for b in blocks if b not in test), test) for test in tests]
    return [(train, test) for train, test in made if train]


def _by_cross_validation(
    problem: Problem,
    splits: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    which: int,
    name: str,
) -> Chosen:
    policy = POLICIES[name][which]
    sets = policy(problem)
    label = f"{policy.__module__.rpartition('.')[2]}"
    if not splits or not sets:
        return Chosen(
            (), _RIDGE_PENALTIES[0], np.inf, 0.0, label, np.zeros(len(problem.part.scale))
        )
    parts = [problem.on(train) for train, _ in splits]
    own = [policy(part) for part in parts]
    n_places = min(len(s) for s in (sets, *own))
    errors = np.array(
        [
            _errors(part, s[:n_places], test)
            for part, s, (_, test) in zip(parts, own, splits, strict=True)
        ]
    )
    mean = errors.mean(axis=0)
    place, penalty = np.unravel_index(int(np.argmin(mean)), mean.shape)
    gap = errors[:, :, penalty] - errors[:, [place], penalty]
    reach = gap.std(axis=0, ddof=1) / np.sqrt(len(splits)) if len(splits) > 1 else 0.0 * gap[0]
    sizes = np.array([len(columns) for columns in sets[:n_places]])
    within = np.flatnonzero(gap.mean(axis=0) <= reach)
    best = int(within[np.argmin(sizes[within])])
    picked = np.zeros(len(problem.part.scale))
    for s in own:
        picked[list(s[best])] += 1.0 / len(own)
    at = errors[:, best, penalty]
    return Chosen(
        _by_gain(problem, sets[best]),
        _RIDGE_PENALTIES[penalty],
        float(at.mean()),
        float(at.std(ddof=1) / np.sqrt(len(at))) if len(at) > 1 else 0.0,
        label,
        picked,
    )


def _errors(problem: Problem, sets: Sequence[tuple[int, ...]], test: tuple[int, ...]) -> Array:
    """Squared error per test row, by set and by ridge penalty."""
    gram = problem.grams.total(test)
    made: dict[tuple[int, ...], list[float]] = {}
    for columns in sets:
        if columns not in made:
            made[columns] = [
                fit(problem.part, columns, penalty).squared_error(gram) / gram.n
                for penalty in _RIDGE_PENALTIES
            ]
    return np.array([made[columns] for columns in sets])


def _by_gain(problem: Problem, columns: tuple[int, ...]) -> tuple[int, ...]:
    """``columns`` by what each adds to those before it, largest first; those that add nothing of
    their own fall."""
    inner = replace(problem, pool=columns)
    return inner.named(ranked(inner.pooled, len(columns)))


@dataclass(frozen=True)
class _Test:
    """A one-sided t-test that a gain per row is above 0."""

    gain: float
    t: float
    p: float
    interval: tuple[float, float]


def _t_test(gains: Array) -> _Test:
    """``gains`` are means per block; too few blocks or no spread prove nothing."""
    n = len(gains)
    mean = float(gains.mean()) if n else 0.0
    error = float(gains.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if n < _LEAST_BLOCKS or error == 0.0:
        return _Test(mean, 0.0, 1.0, (mean, mean))
    reach = t_quantile(0.05, n - 1) * error
    return _Test(mean, mean / error, t_tail(mean / error, n - 1), (mean - reach, mean + reach))


def benjamini_hochberg(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses fall at false-discovery ``level`` (Benjamini and Hochberg 1995).

    >>> benjamini_hochberg([0.01, 0.5, 0.02], 0.05)
    [True, False, True]
    """
    order = np.argsort(p_values, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    below = np.asarray(p_values)[order] <= level * ranks / max(len(order), 1)
    n_passed = int(ranks[below].max(initial=0))
    passed = np.zeros(len(order), dtype=bool)
    passed[order[:n_passed]] = True
    return passed.tolist()


@dataclass(frozen=True, eq=False)
class _Honest:
    """What a model, chosen and fitted on other blocks, does on some blocks.

    Errors are sums over rows by block, of all outputs; ``gains[k]`` is what finalist k explains per
    row beyond those before it, as a share of the outputs' variance.
    """

    chosen: Chosen
    rows: Array
    own: Array
    none: Array
    raw: Array
    gains: dict[int, Array]


@dataclass
class _Choice:
    grams: FoldGrams
    names: list[str]
    costs: list[float]
    baseline: list[int]
    ordered: bool
    max_features: int
    min_features: int
    level: float
    policy: str
    control: str

    def run(self) -> Selection:
        self.n_outputs = self.grams.products.shape[1] - 1 - len(self.names)
        self.rejected: dict[int, RejectedFeature] = {}
        search = search_problem(self.grams, n_outputs=self.n_outputs, most=self.max_features)
        if not search.blocks or search.gram.n < 2:
            for k in range(len(self.names)):
                self._reject(k, "no rows to search on")
            return self._selection((), 1.0, None, "none")
        self.problem = replace(search, pool=self._representatives(search.part))
        self.variance = float((search.part.output_scale**2).sum()) or 1.0
        honest = [self._tested(train, test) for train, test in self._parts()]
        whole = self._whole(honest)
        last = self._again() if whole.p <= self.level else None
        features = self._features(last, honest, whole)
        score = self._score(honest) if features and self._tested_all(honest) else None
        return self._selection(features, whole.p, score, last.policy if last else "none")

    def _parts(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Training and untouched blocks; by time, what trains comes first."""
        search, confirm, final = (
            tuple(b for b in part if self.grams.rows[b] > 0) for part in (SEARCH, CONFIRM, FINAL)
        )
        first = search if self.ordered else search + final
        return [(first, confirm), (search + confirm, final)]

    def _tested(self, train: tuple[int, ...], test: tuple[int, ...]) -> _Honest:
        problem = self.problem.on(train)
        chosen = chosen_set(problem, self.policy, ordered=self.ordered)
        nested = [
            self._block_errors(fit(problem.part, chosen.columns[:k], chosen.penalty), test)
            for k in range(len(chosen.columns) + 1)
        ]
        rows = np.array([self.grams.rows[b] for b in test])
        gains = {
            k: (nested[n] - nested[n + 1]) / rows / self.variance
            for n, k in enumerate(chosen.columns)
        }
        raw = fit(problem.part, self.baseline, chosen.penalty)
        none = self._block_errors(constant(problem.part), test)
        return _Honest(chosen, rows, nested[-1], none, self._block_errors(raw, test), gains)

    def _block_errors(self, model: Model, test: tuple[int, ...]) -> Array:
        return np.array([model.squared_error(self.grams.block(b)) for b in test])

    def _whole(self, honest: Sequence[_Honest]) -> _Test:
        """Whether the models beat the mean; both untouched parts must have rows."""
        gains = [(h.none - h.own) / h.rows / self.variance for h in honest]
        test = _t_test(np.concatenate(gains))
        return test if self._tested_all(honest) else replace(test, t=0.0, p=1.0)

    def _tested_all(self, honest: Sequence[_Honest]) -> bool:
        return all(len(h.rows) for h in honest)

    def _again(self) -> Chosen:
        """The procedure on all blocks."""
        blocks = tuple(int(b) for b in np.flatnonzero(self.grams.rows > 0))
        return chosen_set(self.problem.on(blocks), self.policy, ordered=self.ordered)

    def _features(
        self, last: Chosen | None, honest: Sequence[_Honest], whole: _Test
    ) -> tuple[SelectedFeature, ...]:
        named = list(dict.fromkeys(k for h in honest for k in h.chosen.columns))
        if last is None:
            for k in named:
                self._reject(
                    k, f"the model did not pass (p = {whole.p:.2g})", self._gain(k, honest)
                )
            return self._described(self._top_up([], named), honest, None)
        kept = list(last.columns)
        significant = self._significant(kept, honest)
        if self.control == "features":
            for k in kept:
                if k not in significant:
                    test = self._test(k, honest)
                    self._reject(k, f"its own gain did not pass (p = {test.p:.2g})", test.gain)
            kept = [k for k in kept if k in significant]
        for k in named:
            if k not in kept and k not in self.rejected:
                self._reject(k, "all blocks together did not choose it", self._gain(k, honest))
        return self._described(self._top_up(kept, named), honest, last, significant)

    def _significant(self, kept: Sequence[int], honest: Sequence[_Honest]) -> set[int]:
        passed = benjamini_hochberg([self._test(k, honest).p for k in kept], self.level)
        return {k for k, ok in zip(kept, passed, strict=True) if ok}

    def _block_gains(self, k: int, honest: Sequence[_Honest]) -> Array:
        """Gains of the finalist, or of its like, on the untouched blocks; 0 where neither was
        chosen."""
        return np.concatenate([self._gains_of_like(k, h) for h in honest])

    def _gains_of_like(self, k: int, honest: _Honest) -> Array:
        if k not in honest.gains and honest.gains:
            others = list(honest.gains)
            close = np.abs(self.problem.part.correlation[k, others])
            if close.max() >= LIKE_CORRELATION:
                k = others[int(np.argmax(close))]
        return honest.gains.get(k, np.zeros(len(honest.rows)))

    def _test(self, k: int, honest: Sequence[_Honest]) -> _Test:
        return _t_test(self._block_gains(k, honest))

    def _gain(self, k: int, honest: Sequence[_Honest]) -> float:
        return self._test(k, honest).gain

    def _top_up(self, kept: list[int], named: Sequence[int]) -> list[int]:
        """``kept``, and where fewer than ``min_features`` are, the best of the others."""
        if len(kept) >= self.min_features:
            return kept
        marginal = self._marginal_r2()
        alone = sorted(self.problem.pool, key=lambda k: (-marginal[k], k))
        wanted = list(dict.fromkeys((*kept, *named, *alone)))[: self.min_features]
        for k in wanted:
            self.rejected.pop(k, None)
        return wanted

    def _described(
        self,
        chosen: Sequence[int],
        honest: Sequence[_Honest],
        last: Chosen | None,
        significant: set[int] | None = None,
    ) -> tuple[SelectedFeature, ...]:
        marginal = self._marginal_r2()
        picked = [h.chosen.picked for h in honest] + ([last.picked] if last else [])
        stability = np.mean(picked, axis=0)
        made = []
        for k in chosen:
            test = self._test(k, honest)
            made.append(
                SelectedFeature(
                    name=self.names[k],
                    index=k,
                    gain=test.gain,
                    interval=test.interval,
                    t_statistic=test.t,
                    p_value=test.p,
                    stability=float(stability[k]),
                    marginal_r2=float(marginal[k]),
                    significant=k in (significant or ()),
                    block_gains=tuple(map(float, self._block_gains(k, honest))),
                )
            )
        return tuple(sorted(made, key=lambda f: (-f.gain, f.index)))

    def _marginal_r2(self) -> Array:
        return (self.problem.part.with_outputs**2).mean(axis=0)

    def _score(self, honest: Sequence[_Honest]) -> tuple[float, tuple[float, float], float]:
        own, none, raw = (
            np.concatenate([getattr(h, name) for h in honest]) for name in ("own", "none", "raw")
        )
        score, interval = _r2(own, none)
        return score, interval, _r2(raw, none)[0]

    def _representatives(self, part: Standardised) -> tuple[int, ...]:
        """Finalists, simplest first, without constants and near-duplicates."""
        kept: list[int] = []
        for k in sorted(range(len(self.names)), key=lambda k: (self.costs[k], k)):
            if part.scale[k] == 0:
                self._reject(k, "constant or overflowing on the search blocks")
                continue
            close = np.abs(part.correlation[k, kept]) > DUPLICATE_CORRELATION
            if close.any():
                self._reject(k, f"near-duplicate of {self.names[kept[int(np.argmax(close))]]}")
                continue
            kept.append(k)
        return tuple(sorted(kept))

    def _reject(self, k: int, reason: str, gain: float = 0.0) -> None:
        self.rejected[k] = RejectedFeature(self.names[k], k, reason, gain)

    def _selection(
        self,
        selected: tuple[SelectedFeature, ...],
        p_value: float,
        score: tuple[float, tuple[float, float], float] | None,
        policy: str,
    ) -> Selection:
        rows = self.grams.rows
        places = [feature.index for feature in selected]
        return Selection(
            selected=selected,
            rejected=self._all_rejected({*places, *self.rejected}),
            score=score[0] if score else None,
            score_interval=score[1] if score else None,
            baseline_score=score[2] if score else None,
            model_p_value=p_value,
            policy=policy,
            correlation=self._correlation(places),
            n_rows_search=int(rows[:N_SEARCH].sum()),
            n_rows_confirm=int(rows[CONFIRM.start : CONFIRM.stop].sum()),
            n_rows_final=int(rows[FINAL.start : FINAL.stop].sum()),
        )

    def _correlation(self, places: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        if not places:
            return ()
        inside = self.problem.part.correlation[np.ix_(places, places)]
        return tuple(tuple(map(float, row)) for row in inside)

    def _all_rejected(self, taken: set[int]) -> tuple[RejectedFeature, ...]:
        """Those that were tested first, by gain; near-duplicates and the like last."""
        rest = [
            RejectedFeature(name, k, "the policy did not take it", 0.0)
            for k, name in enumerate(self.names)
            if k not in taken
        ]
        early = ("near-duplicate", "constant", "no rows")
        tested = [r for r in self.rejected.values() if not r.reason.startswith(early)]
        others = [r for r in self.rejected.values() if r.reason.startswith(early)]
        return (
            *sorted(tested, key=lambda r: (-r.gain, r.index)),
            *rest,
            *sorted(others, key=lambda r: r.index),
        )


def _r2(own: Array, none: Array) -> tuple[float, tuple[float, float]]:
    """R² against the training mean, with a 90 % jackknife interval over blocks."""
    score = 1.0 - own.sum() / none.sum() if none.sum() > 0 else 0.0
    n = len(own)
    if n < 2 or (none.sum() - none <= 0).any():
        return float(score), (-np.inf, 1.0)
    left_out = 1.0 - (own.sum() - own) / (none.sum() - none)
    error = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    reach = t_quantile(0.05, n - 1) * error
    return float(score), (float(score - reach), float(score + reach))
