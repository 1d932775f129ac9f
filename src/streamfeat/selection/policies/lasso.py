"""The lasso path on a Gram.

This module covers: the exact piecewise-linear path by homotopy, and its value at any penalty.
This module does *not* cover: which penalty to take (selector).

The path is LARS with the lasso's drops (Efron, Hastie, Johnstone and Tibshirani 2004), on
correlations: as the penalty falls, the coefficients of the active columns move along the direction
that keeps their correlations with the residual equal, until a column joins or leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamfeat.selection.moments import Array
from streamfeat.selection.policies.problem import LEAST_OWN, Problem

_N_PENALTIES = 60
_LEAST_SHARE = 1e-3


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """Columns active at 60 penalties, as shares of the first; of several outputs, those of all."""
    return active_sets(problem, ridge=0.0)


def active_sets(problem: Problem, *, ridge: float) -> list[tuple[int, ...]]:
    """Active columns at falling penalties where ``ridge`` is added to the diagonal."""
    part = problem.pooled
    inside = (part.correlation + ridge * np.eye(part.n_features)) / (1.0 + ridge)
    paths = [
        lasso_path(
            inside, with_output / (1.0 + ridge), most_active=problem.most, least_own=LEAST_OWN
        )
        for with_output in part.with_outputs
    ]
    shares = np.geomspace(1.0, _LEAST_SHARE, _N_PENALTIES)
    return [_active(problem, paths, float(share)) for share in shares]


def _active(problem: Problem, paths: list[Path], share: float) -> tuple[int, ...]:
    """Columns active in any path, those that join first first, no more than may be."""
    joined: dict[int, None] = {}
    for path in paths:
        chosen = path.at(share * float(path.penalties[0])) != 0
        joined.update((k, None) for k in path.order() if chosen[k])
    return problem.named(list(joined)[: problem.most])


@dataclass(frozen=True, eq=False)
class Path:
    """Knots of the path: penalties falling, and the coefficients at each, shape (knots, K)."""

    penalties: Array
    coefficients: Array

    def at(self, penalty: float) -> Array:
        """Coefficients at a penalty, by the line between its knots; ends are held."""
        if penalty >= self.penalties[0]:
            return self.coefficients[0]
        if penalty <= self.penalties[-1]:
            return self.coefficients[-1]
        k = int(np.searchsorted(-self.penalties, -penalty, side="left"))
        high, low = self.penalties[k - 1], self.penalties[k]
        share = (high - penalty) / (high - low)
        return (1 - share) * self.coefficients[k - 1] + share * self.coefficients[k]

    def order(self) -> list[int]:
        """Columns by when they join."""
        joined: dict[int, None] = {}
        for row in self.coefficients:
            joined.update(dict.fromkeys(map(int, np.flatnonzero(row))))
        return list(joined)


def lasso_path(
    correlation: Array,
    with_output: Array,
    *,
    most_active: int,
    least_share: float = _LEAST_SHARE,
    least_own: float = 1e-8,
) -> Path:
    """The lasso path for ``1/2 β'Rβ - c'β + penalty · |β|₁``.

    Parameters
    ----------
    correlation, with_output
        R, shape (K, K), and c, shape (K,).
    most_active
        The path ends before more columns are active.
    least_share
        The path ends at this share of its first penalty.
    least_own
        A column of whose variance the active ones leave less than this share is passed over.

    Examples
    --------
    >>> path = lasso_path(np.eye(2), np.array([0.5, -0.2]), most_active=2)
    >>> path.penalties[:2], path.at(0.3)
    (array([0.5, 0.2]), array([0.2, 0. ]))
    """
    state = _Homotopy(correlation, with_output, least_own)
    knots = [(state.penalty, state.beta.copy())]
    floor = least_share * state.penalty
    for _ in range(8 * most_active + 8):
        if state.penalty <= floor or not state.admit() or len(state.active) > most_active:
            break
        state.advance(floor)
        knots.append((state.penalty, state.beta.copy()))
    penalties, betas = zip(*knots, strict=True)
    return Path(np.array(penalties), np.array(betas))


class _Homotopy:
    """The moving part of the path."""

    def __init__(self, correlation: Array, with_output: Array, least_own: float) -> None:
        self.r = correlation
        self.least_own = least_own
        self.left = with_output.copy()
        self.beta = np.zeros(len(with_output))
        self.active: list[int] = []
        self.closed = np.diag(correlation) <= 0
        self.penalty = float(np.abs(self.left[~self.closed]).max(initial=0.0))
        self._dropped: int | None = None

    def admit(self) -> bool:
        """Make the columns that reached the penalty active; False if none ever can be."""
        reached = np.abs(self.left) >= self.penalty * (1 - 1e-9)
        reached &= ~self.closed
        reached[self.active] = False
        if self._dropped is not None:
            reached[self._dropped] = False
        for column in np.flatnonzero(reached):
            if self._pivot(int(column)) > self.least_own:
                self.active.append(int(column))
            else:
                self.closed[column] = True
        self._dropped = None
        return bool(self.active) and self.penalty > 0

    def _pivot(self, column: int) -> float:
        if not self.active:
            return float(self.r[column, column])
        across = self.r[self.active, column]
        inside = self.r[np.ix_(self.active, self.active)]
        return float(self.r[column, column] - across @ np.linalg.solve(inside, across))

    def advance(self, floor: float) -> None:
        """Move to the next knot: a column joins, leaves, or the floor is reached."""
        direction = self._direction()
        slope = self.r[:, self.active] @ direction
        step, leaving = self.penalty - floor, None
        joining = self._join_steps(slope)
        if len(joining):
            step = min(step, float(joining.min()))
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = -self.beta[self.active] / direction
        crossing[~(crossing > 1e-15)] = np.inf
        if crossing.min() < step:
            leaving = int(np.argmin(crossing))
            step = float(crossing[leaving])
        self.beta[self.active] += step * direction
        self.left -= step * slope
        self.penalty -= step
        if leaving is not None:
            self._dropped = self.active.pop(leaving)
            self.beta[self._dropped] = 0.0

    def _direction(self) -> Array:
        """How the active coefficients move; of columns that joined in a tie, those whose
        coefficient would leave zero against its sign step back."""
        while True:
            signs = np.sign(self.left[self.active])
            inside = self.r[np.ix_(self.active, self.active)]
            direction: Array = np.asarray(np.linalg.solve(inside, signs), dtype=np.float64)
            forward = np.where(self.beta[self.active] == 0, direction * signs, 0.0)
            if len(self.active) == 1 or forward.min() >= 0:
                return direction
            self.active.pop(int(np.argmin(forward)))

    def _join_steps(self, slope: Array) -> Array:
        open_columns = ~self.closed
        open_columns[self.active] = False
        left, rate = self.left[open_columns], slope[open_columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.concatenate(
                ((self.penalty - left) / (1 - rate), (self.penalty + left) / (1 + rate))
            )
        return steps[steps > 1e-12 * self.penalty]
