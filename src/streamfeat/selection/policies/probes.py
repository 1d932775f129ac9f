"""Noise probes, as AutoFeat selects: what beats made-up noise in a lasso, run after run.

This module covers: probes whose products with every column are drawn from their known distribution,
so that no row is needed.
This module does *not* cover: AutoFeat's random rows (blocks are left out instead).

For n rows a standardised Gaussian probe has correlations with the columns that are jointly normal
with covariance R / n, and probes are independent of one another. Five runs, as in AutoFeat: a
column stays in a run if its coefficient at the penalty where the first probe would join is not 0;
those of any run are ranked by the number of runs, and dropped where |correlation| with one before
is 0.9 or more.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from streamfeat.selection.moments import Array
from streamfeat.selection.policies.lasso import lasso_path
from streamfeat.selection.policies.problem import Problem

_RUNS = 5
_MOST_CORRELATION = 0.9
_SEED = 20190122


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """One set."""
    counts = Counter(k for run in range(_RUNS) for k in _survivors(_part(problem, run), run))
    order = sorted(counts, key=lambda k: (-counts[k], k))
    correlation = problem.pooled.correlation
    kept: list[int] = []
    for k in order:
        if np.abs(correlation[k, kept]).max(initial=0.0) < _MOST_CORRELATION:
            kept.append(k)
    return [problem.named(kept[: problem.most])]


def _part(problem: Problem, run: int) -> Problem:
    """All blocks but a fifth of them."""
    blocks = [b for place, b in enumerate(problem.blocks) if place % _RUNS != run]
    return problem.on(blocks or problem.blocks)


def _survivors(problem: Problem, run: int) -> list[int]:
    part, n = problem.pooled, max(problem.gram.n, 2.0)
    generator = np.random.default_rng([_SEED, run])
    chosen: set[int] = set()
    for with_output in part.with_outputs:
        inside, right = _with_probes(part.correlation, with_output, n, generator)
        path = lasso_path(inside, right, most_active=problem.most)
        k = len(with_output)
        noisy = np.flatnonzero(np.any(path.coefficients[:, k:] != 0, axis=1))
        place = int(noisy[0]) - 1 if len(noisy) else len(path.penalties) - 1
        chosen.update(map(int, np.flatnonzero(path.coefficients[max(place, 0), :k])))
    return sorted(chosen)


def _with_probes(
    correlation: Array, with_output: Array, n: float, generator: np.random.Generator
) -> tuple[Array, Array]:
    """The correlations, and as many probes as half the columns, at least 3."""
    k = len(with_output)
    n_probes = max(3, k // 2)
    values, vectors = np.linalg.eigh(
        np.block([[correlation, with_output[:, None]], [with_output[None, :], np.ones((1, 1))]])
    )
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    drawn = generator.standard_normal((n_probes, k + 1)) @ root.T / np.sqrt(n)
    among = generator.standard_normal((n_probes, n_probes)) / np.sqrt(n)
    between = np.triu(among, 1)
    inside = np.block(
        [[correlation, drawn[:, :k].T], [drawn[:, :k], between + between.T + np.eye(n_probes)]]
    )
    return inside, np.concatenate((with_output, drawn[:, k]))
