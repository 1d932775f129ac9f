"""Threads that add to shared sums in a fixed order.

This module covers: waiting for one's turn, piece by piece, and not waiting for the failed.
This module does *not* cover: what is added.

Each thread holds one tile and goes through the same pieces; a piece of tile ``t`` is added after
that of tile ``t - 1``. So a sum is made in tile order whatever the number of threads, and nothing
but the piece at hand is held in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from streamfeat.selection.moments import AnyFloat, Piece


class Sum(Protocol):
    """What is added to, in pieces."""

    def add(self, piece: int, values: AnyFloat) -> None: ...


class _AbandonedError(Exception):
    """Another thread failed; its error is the one to tell."""


class Turns:
    """The order in which tiles add to one sum of ``n_pieces`` pieces."""

    def __init__(self, n_pieces: int) -> None:
        self._next = [0] * n_pieces
        self._changed = threading.Condition()
        self._failed = False

    def add(self, to: Sum, number: int, pieces: Iterable[Piece]) -> None:
        """Add the pieces of tile ``number``, each in its turn; pieces left out are passed on."""
        place = 0
        try:
            for piece, values in pieces:
                self._pass_on(range(place, piece), number)
                self._wait(piece, number)
                to.add(piece, values)
                self._done(piece)
                place = piece + 1
            self._pass_on(range(place, len(self._next)), number)
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def _pass_on(self, pieces: Iterable[int], number: int) -> None:
        for piece in pieces:
            self._wait(piece, number)
            self._done(piece)

    def _wait(self, piece: int, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._next[piece] == number)
            if self._failed:
                raise _AbandonedError

    def _done(self, piece: int) -> None:
        with self._changed:
            self._next[piece] += 1
            self._changed.notify_all()
