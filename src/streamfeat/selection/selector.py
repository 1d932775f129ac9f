"""The choice: which finalists survive, from fold Grams alone, and how well they do.

This module covers, in order:
1. near-duplicates give way to the simplest formula (``_representatives``);
2. the lasso path on the search blocks, its penalty by cross-validation on them, walk-forward where
   rows are ordered (``_cross_validate``), the sparsest within one standard error of the best;
3. a ridge refit of what is active (``fit``);
4. confirmation on blocks that took no part so far, by one-sided t-tests over blocks: the model as a
   whole, then what each feature adds to those before it, in the order of a forward selection on the
   search blocks, with Benjamini and Hochberg's step-up (``_confirm``);
5. a refit on both, and the score on blocks untouched until then (``_score``).
This module does *not* cover: screening (screen), or accumulating (gram).

A block is a long run of time, so dependence between neighbouring rows stays inside it; the evidence
is the number of blocks, never the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from streamfeat.selection.folds import CONFIRM, FINAL, N_SEARCH, SEARCH
from streamfeat.selection.gram import FoldGrams, Gram
from streamfeat.selection.lasso import Path, Standardised, lasso_path, ridge, standardise
from streamfeat.selection.moments import Array
from streamfeat.selection.student import t_quantile, t_tail

DUPLICATE_CORRELATION = 0.995
_N_PENALTIES = 60
_RIDGE_PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
_LEAST_BLOCKS = 5
"""Fewer blocks with rows than this are no evidence."""


@dataclass(frozen=True)
class SelectedFeature:
    """A finalist that was chosen; ``index`` is its place among the finalists."""

    name: str
    index: int
    gain: float
    t_statistic: float
    p_value: float
    stability: float
    marginal_r2: float
    significant: bool


@dataclass(frozen=True)
class RejectedFeature:
    """A finalist that was not chosen, and why."""

    name: str
    index: int
    reason: str
    gain: float


@dataclass(frozen=True)
class Selection:
    """What was chosen; ``score`` is None where no model passed."""

    selected: tuple[SelectedFeature, ...]
    rejected: tuple[RejectedFeature, ...]
    score: float | None
    score_interval: tuple[float, float] | None
    baseline_score: float | None
    model_p_value: float
    n_rows_search: int
    n_rows_confirm: int
    n_rows_final: int


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model in the Gram's units: ``coefficients`` (q, K), ``intercepts`` (q,)."""

    intercepts: Array
    coefficients: Array
    means: Array

    def constant(self) -> Model:
        """The model that predicts the training mean."""
        mean = self.intercepts + self.coefficients @ self.means
        return Model(mean, np.zeros_like(self.coefficients), self.means)

    def squared_error(self, gram: Gram) -> float:
        """Sum of squared errors over the Gram's rows and all outputs."""
        n_outputs, n_features = self.coefficients.shape
        total = 0.0
        for q in range(n_outputs):
            weights = np.zeros(1 + n_features + n_outputs)
            weights[0] = -self.intercepts[q]
            weights[1 : n_features + 1] = -self.coefficients[q]
            weights[1 + n_features + q] = 1.0
            total += gram.squared_error(weights)
        return total


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
        Significance of the model and false-discovery level of the features.

    Returns
    -------
    Selection
        With no feature where nothing passes, unless ``min_features`` asks for the best all the
        same; those are marked as not significant.
    """
    return _Choice(
        grams, list(names), list(costs), list(baseline), ordered, max_features, min_features, level
    ).run()


def fit_model(gram: Gram, n_outputs: int, *, most_active: int = 30) -> tuple[Array, Array]:
    """Intercepts (q,) and coefficients (q, K) of a quick sparse model: lasso, then ridge."""
    n_features = len(gram.means) - n_outputs
    active: set[int] = set()
    for q in range(n_outputs):
        part = standardise(gram, n_features, n_features + q)
        path = lasso_path(part.correlation, part.with_output, most_active=most_active)
        active.update(map(int, np.flatnonzero(path.coefficients[-1])))
    model = fit(gram, sorted(active), n_outputs, 1e-3)
    return model.intercepts, model.coefficients


def fit(gram: Gram, active: Sequence[int], n_outputs: int, penalty: float) -> Model:
    """Ridge on the columns ``active``; the others have coefficient 0."""
    n_features = len(gram.means) - n_outputs
    coefficients = np.zeros((n_outputs, n_features))
    intercepts = np.zeros(n_outputs)
    columns = np.array(list(active), dtype=np.intp)
    for q in range(n_outputs):
        part = standardise(gram, n_features, n_features + q)
        beta = np.zeros(n_features)
        if len(columns):
            inside = part.correlation[np.ix_(columns, columns)]
            beta[columns] = ridge(inside, part.with_output[columns], penalty)
        intercepts[q], coefficients[q] = part.raw(beta)
    return Model(intercepts, coefficients, gram.means[:n_features])


@dataclass(frozen=True)
class _Test:
    """A one-sided t-test that a gain per row is above 0."""

    gain: float
    t: float
    p: float


def _t_test(gains: Array) -> _Test:
    """``gains`` are means per block; too few blocks or no spread prove nothing."""
    n = len(gains)
    mean = float(gains.mean()) if n else 0.0
    if n < _LEAST_BLOCKS:
        return _Test(mean, 0.0, 1.0)
    error = float(gains.std(ddof=1) / np.sqrt(n))
    if error == 0.0:
        return _Test(mean, 0.0, 1.0)
    t = mean / error
    return _Test(mean, t, t_tail(t, n - 1))


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

    def run(self) -> Selection:
        self.n_outputs = self.grams.products.shape[1] - 1 - len(self.names)
        self.rejected: dict[int, RejectedFeature] = {}
        self.search = self.grams.total(SEARCH)
        if self.search.n < 2:
            for k in range(len(self.names)):
                self._reject(k, "no rows to search on")
            return self._selection((), 1.0, None)
        self.pool = self._representatives()
        active, stability, penalty = self._cross_validate()
        wanted = self._top_up(active)
        whole, tests = self._confirm(wanted, penalty)
        if self._empty(CONFIRM) or self._empty(FINAL):
            whole = _Test(whole.gain, 0.0, 1.0)
        chosen = self._passed(active, whole, tests)
        selected = self._describe(chosen, wanted, tests, stability)
        scored = [f.index for f in selected] if not self._empty(FINAL) else []
        score = self._score(scored, penalty) if scored else None
        return self._selection(selected, whole.p, score)

    def _empty(self, blocks: Iterable[int]) -> bool:
        return not any(self.grams.rows[b] > 0 for b in blocks)

    def _representatives(self) -> list[int]:
        """Finalists, simplest first, without constants and near-duplicates."""
        part = self._standardised(self.search, 0)
        kept: list[int] = []
        order = sorted(range(len(self.names)), key=lambda k: (self.costs[k], k))
        for k in order:
            if part.scale[k] == 0:
                self._reject(k, "constant or overflowing on the search blocks")
                continue
            close = np.abs(part.correlation[k, kept]) > DUPLICATE_CORRELATION
            if close.any():
                twin = kept[int(np.argmax(close))]
                self._reject(k, f"near-duplicate of {self.names[twin]}")
                continue
            kept.append(k)
        return sorted(kept)

    def _reject(self, k: int, reason: str, gain: float = 0.0) -> None:
        self.rejected[k] = RejectedFeature(self.names[k], k, reason, gain)

    def _standardised(self, gram: Gram, output: int) -> Standardised:
        return standardise(gram, len(self.names), len(self.names) + output)

    def _path(self, gram: Gram, output: int) -> Path:
        """The path over the pool, with coefficients of all finalists."""
        part = self._standardised(gram, output)
        inside = part.correlation[np.ix_(self.pool, self.pool)]
        path = lasso_path(inside, part.with_output[self.pool], most_active=self.max_features)
        wide = np.zeros((len(path.penalties), len(self.names)))
        wide[:, self.pool] = path.coefficients
        return Path(path.penalties, wide)

    def _splits(self) -> list[tuple[list[int], int]]:
        """Training and test blocks among the search blocks that have rows."""
        blocks = [b for b in SEARCH if self.grams.rows[b] > 1]
        if self.ordered:
            return [(blocks[:k], blocks[k]) for k in range(1, len(blocks))]
        return [([b for b in blocks if b != test], test) for test in blocks if len(blocks) > 1]

    def _cross_validate(self) -> tuple[list[int], Array, float]:
        """Active finalists by what they add, their stability, and the ridge penalty.

        With several outputs the finalists of all of them compete for ``max_features`` places.
        """
        splits, stability = self._splits(), np.zeros(len(self.names))
        active: dict[int, None] = {}
        if not splits or not self.pool:
            return [], stability, _RIDGE_PENALTIES[0]
        for q in range(self.n_outputs):
            path = self._path(self.search, q)
            paths = [self._path(self.grams.total(train), q) for train, _ in splits]
            penalty = self._penalty(path, paths, splits, q)
            chosen = path.at(penalty) != 0
            active.update((k, None) for k in path.order() if chosen[k])
            seen = np.mean([p.at(penalty) != 0 for p in paths], axis=0)
            stability = np.maximum(stability, seen)
        ordered = self._forward(list(active))[: self.max_features]
        return ordered, stability, self._ridge_penalty(ordered, splits)

    def _penalty(
        self, path: Path, paths: list[Path], splits: list[tuple[list[int], int]], output: int
    ) -> float:
        """The largest penalty whose test error is within one standard error of the best."""
        low = max(path.penalties[-1], 1e-12)
        grid = np.geomspace(max(path.penalties[0], low), low, _N_PENALTIES)
        errors = np.array(
            [
                self._path_errors(p, train, test, output, grid)
                for p, (train, test) in zip(paths, splits, strict=True)
            ]
        )
        mean = errors.mean(axis=0)
        best = int(np.argmin(mean))
        gap = errors - errors[:, [best]]
        spread = gap.std(axis=0, ddof=1) if len(splits) > 1 else np.zeros(len(grid))
        within = gap.mean(axis=0) <= spread / np.sqrt(len(splits))
        return float(grid[int(np.argmax(within))])

    def _path_errors(
        self, path: Path, train: list[int], test: int, output: int, grid: Array
    ) -> Array:
        gram = self.grams.total(train)
        part, block = self._standardised(gram, output), self.grams.block(test)
        errors = np.empty(len(grid))
        for k, penalty in enumerate(grid):
            intercept, slopes = part.raw(path.at(float(penalty)))
            weights = np.zeros(block.products.shape[0])
            weights[0], weights[1 : len(slopes) + 1] = -intercept, -slopes
            weights[1 + len(slopes) + output] = 1.0
            errors[k] = block.squared_error(weights) / block.n
        return errors

    def _ridge_penalty(self, active: list[int], splits: list[tuple[list[int], int]]) -> float:
        def error(penalty: float) -> float:
            return sum(
                fit(self.grams.total(train), active, self.n_outputs, penalty).squared_error(
                    self.grams.block(test)
                )
                for train, test in splits
            )

        return min(_RIDGE_PENALTIES, key=error) if active else _RIDGE_PENALTIES[0]

    def _top_up(self, active: list[int]) -> list[int]:
        """``active``, and where fewer than ``min_features`` are, the next to join the paths of all
        outputs in turn, then the best alone."""
        if len(active) >= self.min_features:
            return active
        orders = [self._path(self.search, q).order() for q in range(self.n_outputs)]
        joined = [k for rank in zip_longest(*orders) for k in rank if k is not None]
        marginal = self._marginal_r2()
        alone = sorted(self.pool, key=lambda k: (-marginal[k], k))
        return list(dict.fromkeys((*active, *joined, *alone)))[: self.min_features]

    def _forward(self, active: list[int]) -> list[int]:
        """``active`` by what each adds to those before it, largest first, on the search blocks."""
        parts = [self._standardised(self.search, q) for q in range(self.n_outputs)]
        left = parts[0].correlation[np.ix_(active, active)].copy()
        with_outputs = np.array([part.with_output[active] for part in parts])
        order: list[int] = []
        for _ in active:
            own = np.diag(left)
            usable = own > 1e-10
            usable[order] = False
            added = (with_outputs**2).sum(axis=0) / np.where(usable, own, 1.0)
            if not usable.any():
                break
            best = int(np.argmax(np.where(usable, added, -1.0)))
            along = left[best] / own[best]
            with_outputs = with_outputs - np.outer(with_outputs[:, best], along)
            left = left - np.outer(left[best], along)
            order.append(best)
        return [active[k] for k in order]

    def _confirm(self, wanted: list[int], penalty: float) -> tuple[_Test, dict[int, _Test]]:
        """Tests of the whole model and of each feature, given those before it."""
        blocks = [self.grams.block(b) for b in CONFIRM if self.grams.rows[b] > 0]
        rows = np.array([gram.n for gram in blocks])
        variance = self._output_variance()

        def errors(features: Sequence[int]) -> Array:
            model = fit(self.search, features, self.n_outputs, penalty)
            return np.array([model.squared_error(gram) for gram in blocks]) / rows / variance

        nested = [errors(wanted[:k]) for k in range(len(wanted) + 1)]
        tests = {k: _t_test(nested[n] - nested[n + 1]) for n, k in enumerate(wanted)}
        return _t_test(nested[0] - nested[-1]), tests

    def _output_variance(self) -> float:
        covariance = self.search.covariance
        return float(np.trace(covariance[len(self.names) :, len(self.names) :])) or 1.0

    def _passed(self, active: list[int], whole: _Test, tests: dict[int, _Test]) -> list[int]:
        if self._empty(CONFIRM) or self._empty(FINAL):
            for k in active:
                self._reject(k, "too few rows to confirm and to score on", tests[k].gain)
            return []
        if whole.p > self.level:
            for k in active:
                self._reject(k, f"the model did not pass (p = {whole.p:.2g})", tests[k].gain)
            return []
        passed = benjamini_hochberg([tests[k].p for k in active], self.level)
        for k, ok in zip(active, passed, strict=True):
            if not ok:
                self._reject(k, f"its own gain did not pass (p = {tests[k].p:.2g})", tests[k].gain)
        return [k for k, ok in zip(active, passed, strict=True) if ok]

    def _describe(
        self, chosen: list[int], wanted: list[int], tests: dict[int, _Test], stability: Array
    ) -> tuple[SelectedFeature, ...]:
        others = sorted((k for k in wanted if k not in chosen), key=lambda k: (-tests[k].gain, k))
        extra = others[: max(self.min_features - len(chosen), 0)]
        marginal = self._marginal_r2()
        made = [
            SelectedFeature(
                self.names[k], k, tests[k].gain, tests[k].t, tests[k].p,
                float(stability[k]), float(marginal[k]), k in chosen,
            )
            for k in (*chosen, *extra)
        ]  # fmt: skip
        for k in extra:
            self.rejected.pop(k, None)
        return tuple(sorted(made, key=lambda f: (-f.gain, f.index)))

    def _marginal_r2(self) -> Array:
        parts = [self._standardised(self.search, q).with_output ** 2 for q in range(self.n_outputs)]
        return np.mean(parts, axis=0)

    def _score(self, chosen: list[int], penalty: float) -> tuple[float, tuple[float, float], float]:
        training = self.grams.total([*SEARCH, *CONFIRM])
        model = fit(training, chosen, self.n_outputs, penalty)
        raw = fit(training, self.baseline, self.n_outputs, penalty)
        score, interval = self._r2(model)
        return score, interval, self._r2(raw)[0]

    def _r2(self, model: Model) -> tuple[float, tuple[float, float]]:
        """R² on the final blocks against the training mean, with a 90 % jackknife interval."""
        blocks = [self.grams.block(b) for b in FINAL if self.grams.rows[b] > 0]
        own = np.array([model.squared_error(gram) for gram in blocks])
        none = np.array([model.constant().squared_error(gram) for gram in blocks])
        score = 1.0 - own.sum() / none.sum() if none.sum() > 0 else 0.0
        n = len(blocks)
        if n < 2 or (none.sum() - none <= 0).any():
            return float(score), (-np.inf, 1.0)
        left_out = 1.0 - (own.sum() - own) / (none.sum() - none)
        error = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
        reach = t_quantile(0.05, n - 1) * error
        return float(score), (float(score - reach), float(score + reach))

    def _selection(
        self,
        selected: tuple[SelectedFeature, ...],
        p_value: float,
        score: tuple[float, tuple[float, float], float] | None,
    ) -> Selection:
        taken = {feature.index for feature in selected} | set(self.rejected)
        rest = [
            RejectedFeature(name, k, "the selection path did not take it", 0.0)
            for k, name in enumerate(self.names)
            if k not in taken
        ]
        tested = [r for r in self.rejected.values() if "pass" in r.reason]
        others = [r for r in self.rejected.values() if "pass" not in r.reason]
        rejected = [
            *sorted(tested, key=lambda r: (-r.gain, r.index)),
            *rest,
            *sorted(others, key=lambda r: r.index),
        ]
        rows = self.grams.rows
        return Selection(
            selected=selected,
            rejected=tuple(rejected),
            score=score[0] if score else None,
            score_interval=score[1] if score else None,
            baseline_score=score[2] if score else None,
            model_p_value=p_value,
            n_rows_search=int(rows[:N_SEARCH].sum()),
            n_rows_confirm=int(rows[CONFIRM.start : CONFIRM.stop].sum()),
            n_rows_final=int(rows[FINAL.start : FINAL.stop].sum()),
        )
