"""Progress for people: bars on a terminal, quiet lines in a pipe.

This module covers: a subscriber of events that prints to stderr.
This module does *not* cover: what is reported (events).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from streamfeat.events import (
    Announced,
    ChunkResized,
    Event,
    Events,
    PassAdvanced,
    PassFinished,
    PassStarted,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def progress(
    events: Events, enabled: bool | None = None, *, stream: TextIO | None = None
) -> Iterator[None]:
    """Show progress while open.

    Parameters
    ----------
    enabled
        False: silent. None or True: bars if ``stream`` is a terminal or a notebook, else lines.
    stream
        None: stderr.
    """
    if enabled is False:
        yield
        return
    stream = stream or sys.stderr
    if stream.isatty() or _in_notebook():
        with _bars(events, stream):
            yield
        return
    stop = events.subscribe(_Lines(stream))
    try:
        yield
    finally:
        stop()


def _in_notebook() -> bool:
    kernel = sys.modules.get("IPython")
    shell = kernel.get_ipython() if kernel else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class _Lines:
    """One line per announcement and finished pass."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        if isinstance(event, Announced):
            self._say(event.text)
        elif isinstance(event, PassFinished):
            self._say(f"{event.name}: {event.seconds:.1f} s")
        elif isinstance(event, ChunkResized):
            self._say(_resized(event))

    def _say(self, text: str) -> None:
        self._stream.write(f"streamfeat: {text}\n")
        self._stream.flush()


def _resized(event: ChunkResized) -> str:
    return f"chunks of {event.rows_before:,} rows become {event.rows_after:,}: {event.reason}"


@contextmanager
def _bars(events: Events, stream: TextIO) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(file=stream)) as shown:
        stop = events.subscribe(_Bars(shown))
        try:
            yield
        finally:
            stop()


class _Bars:
    """A bar per pass, with rows per second and time left."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Announced):
            self._shown.console.print(event.text, markup=False, highlight=False)
        elif isinstance(event, ChunkResized):
            self._shown.console.print(_resized(event), markup=False, highlight=False)
        elif isinstance(event, PassStarted):
            self._task = self._shown.add_task(event.name, total=event.n_rows, rate="")
        elif isinstance(event, PassAdvanced) and self._task is not None:
            self._advance(event.n_rows_done)

    def _advance(self, n_rows_done: int) -> None:
        assert self._task is not None
        self._shown.update(self._task, completed=n_rows_done)
        speed = self._shown.tasks[self._task].finished_speed or self._shown.tasks[self._task].speed
        if speed:
            self._shown.update(self._task, rate=f"{speed / 1e6:6.2f} M rows/s")
