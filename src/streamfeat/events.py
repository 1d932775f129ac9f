"""What happened, as frozen records, and the one place they pass through.

This module covers: the event types of a run and the emitter that hands them to subscribers.
This module does *not* cover: what subscribers do with them (observe).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Announced(Event):
    """One line a person should read: inferred roles, a sort into spill, a fallback."""

    text: str


@dataclass(frozen=True, slots=True)
class PassStarted(Event):
    """A pass over ``n_rows`` rows begins."""

    name: str
    n_rows: int


@dataclass(frozen=True, slots=True)
class PassAdvanced(Event):
    """``n_rows_done`` rows of the pass are finished."""

    name: str
    n_rows_done: int


@dataclass(frozen=True, slots=True)
class PassFinished(Event):
    """A pass ended after ``seconds``."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ChunkResized(Event):
    """The controller changed the number of rows in flight."""

    rows_before: int
    rows_after: int
    reason: str


Subscriber = Callable[[Event], None]


class Events:
    """Hands each event to every subscriber; free when nobody listens.

    Examples
    --------
    >>> seen = []
    >>> events = Events()
    >>> stop = events.subscribe(seen.append)
    >>> events.emit(Announced("hello"))
    >>> seen[0].text
    'hello'
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add a subscriber; the returned function removes it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, event: Event) -> None:
        """Call every subscriber with ``event``, in order of subscription."""
        for subscriber in tuple(self._subscribers):
            subscriber(event)
