"""Forward selection on a Gram.

This module covers: adding the column that explains most of what is left.
This module does *not* cover: how many columns (selector), or going back (subset).

A step is one rank-1 update of the correlations of what is left (orthogonal matching pursuit; Pati,
Rezaiifar and Krishnaprasad 1993).
"""

from __future__ import annotations

import numpy as np

from streamfeat.selection.linear import Standardised
from streamfeat.selection.moments import Array
from streamfeat.selection.policies.problem import LEAST_OWN, Problem

_LEAST_GAIN = 1e-12


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """The first k columns taken, for every k from 0."""
    order = ranked(problem.pooled, problem.most)
    return [problem.named(order[:k]) for k in range(len(order) + 1)]


def ranked(part: Standardised, most: int) -> list[int]:
    """Columns in the order in which they explain most of what those before leave.

    >>> part = Standardised(np.eye(2), np.array([[0.2, -0.5]]), *np.ones((2, 2)), *np.ones((2, 1)))
    >>> ranked(part, 2)
    [1, 0]
    """
    left, with_outputs = part.correlation.copy(), part.with_outputs.copy()
    order: list[int] = []
    for _ in range(min(most, part.n_features)):
        gains = _gains(left, with_outputs)
        gains[order] = 0.0
        best = int(np.argmax(gains))
        if gains[best] <= _LEAST_GAIN:
            break
        along = left[best] / left[best, best]
        with_outputs = with_outputs - np.outer(with_outputs[:, best], along)
        left = left - np.outer(left[best], along)
        order.append(best)
    return order


def _gains(left: Array, with_outputs: Array) -> Array:
    own = np.diag(left)
    usable = own > LEAST_OWN
    gains: Array = (with_outputs**2).sum(axis=0) / np.where(usable, own, 1.0)
    return np.where(usable, gains, 0.0)
