"""The best subset of each size, by swaps (L0).

This module covers: sets that forward selection gives, bettered by exchanging one column at a time.
This module does *not* cover: how many columns (selector).

A column is taken out, the one that then explains most is put in, and so on until no exchange
explains more (Efroymson 1960; Miller 2002, sequential replacement).
"""

from __future__ import annotations

import numpy as np

from streamfeat.selection.linear import Standardised
from streamfeat.selection.moments import Array
from streamfeat.selection.policies.forward import ranked
from streamfeat.selection.policies.problem import LEAST_OWN, Problem

_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)
_MOST_ROUNDS = 4

_LEAST_GAIN = 1e-6


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """A set of each size of a fixed list, up to the most."""
    part = problem.pooled
    order = ranked(part, problem.most)
    sizes = [size for size in _SIZES if size < problem.most] + [problem.most]
    return [(), *(problem.named(_exchanged(part, order[:size])) for size in sizes)]


def _exchanged(part: Standardised, start: list[int]) -> list[int]:
    chosen = list(start)
    for _ in range(_MOST_ROUNDS):
        changed = False
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            gains = _gains(part, rest)
            best = int(np.argmax(gains))
            if gains[best] > gains[chosen[place]] + _LEAST_GAIN:
                chosen[place], changed = best, True
        if not changed:
            break
    return chosen


def _gains(part: Standardised, taken: list[int]) -> Array:
    """What each column explains beyond those taken."""
    own, with_outputs = np.diag(part.correlation).copy(), part.with_outputs
    if taken:
        inside = part.correlation[np.ix_(taken, taken)] + 1e-9 * np.eye(len(taken))
        across = part.correlation[taken]
        along = np.linalg.solve(inside, across)
        own = own - np.einsum("ij,ij->j", across, along)
        with_outputs = with_outputs - with_outputs[:, taken] @ along
    usable = own > LEAST_OWN
    gains: Array = np.where(usable, (with_outputs**2).sum(axis=0) / np.where(usable, own, 1.0), 0.0)
    gains[taken] = 0.0
    return gains
