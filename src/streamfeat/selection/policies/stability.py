"""Stability selection: columns that are chosen whichever blocks are left out.

This module covers: how often the forward order takes a column in half the blocks.
This module does *not* cover: error bounds, which hold for exchangeable halves only.

Complementary halves (Shah and Samworth 2013) of the blocks, block by block so that dependence
between neighbouring rows stays inside one half.
"""

from __future__ import annotations

from collections import Counter

from streamfeat.selection.policies.forward import ranked
from streamfeat.selection.policies.problem import Problem

_N_PAIRS = 15
_SHARES = (0.9, 0.8, 0.7, 0.6)


def policy(problem: Problem) -> list[tuple[int, ...]]:
    """Columns chosen in at least 90 %, 80 %, 70 % and 60 % of the halves."""
    counts = Counter(k for half in _halves(problem.blocks) for k in _chosen(problem.on(half)))
    order = sorted(counts, key=lambda k: (-counts[k], k))
    least = [share * 2 * _N_PAIRS for share in _SHARES]
    return [tuple(k for k in order if counts[k] >= n)[: problem.most] for n in least]


def _chosen(problem: Problem) -> tuple[int, ...]:
    most = max(problem.most // 2, 1)
    return problem.named(ranked(problem.pooled, most))


def _halves(blocks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Pairs of complementary halves: block k is in the first by the bits of a fixed sequence."""
    made = []
    for pair in range(_N_PAIRS):
        first = {b for place, b in enumerate(blocks) if _bit(place, pair)}
        made += [tuple(b for b in blocks if b in first), tuple(b for b in blocks if b not in first)]
    return [half for half in made if half]


def _bit(place: int, pair: int) -> bool:
    """A fixed, well-mixed bit."""
    mixed = (place * 0x9E3779B97F4A7C15 + (pair + 1) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 31)) * 0x94D049BB133111EB) % 2**64
    return bool((mixed >> 40) & 1)
