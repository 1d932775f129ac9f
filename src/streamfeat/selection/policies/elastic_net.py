"""The elastic net: the lasso's path on correlations with a ridge (Zou and Hastie 2005).

This module covers: groups of like columns that come in together.
This module does *not* cover: the path (lasso).
"""

from __future__ import annotations

from streamfeat.selection.policies.lasso import active_sets
from streamfeat.selection.policies.problem import Problem

_RIDGE = 0.05


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """Active columns at falling penalties."""
    return active_sets(problem, ridge=_RIDGE)
