"""One run's surroundings: budget, spill directory, monitor, progress; all gone when it ends.

This module covers: opening and closing them, and how many rows to read next (``Session.rows``).
This module does *not* cover: what the run does (pipeline.run).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from streamfeat.errors import OutputError
from streamfeat.events import Announced, ChunkResized, Event, Events, PassFinished
from streamfeat.memory.controller import BatchController
from streamfeat.memory.models import AllocationPlan, MemorySample
from streamfeat.memory.monitor import MemoryMonitor
from streamfeat.memory.pool import MemoryPool
from streamfeat.memory.probe import (
    Budget,
    discover_budget,
    limit_malloc_arenas,
    peak_bytes,
    process_bytes,
    release_free_heap,
)
from streamfeat.observe.progress import progress
from streamfeat.pipeline.options import Options
from streamfeat.plan.execution import TILE_ROWS

_PREFIX = "run-"


class Session:
    """The surroundings of a run, as a context manager.

    Attributes
    ----------
    budget
        Bytes the process may use, and where the number comes from.
    spill
        A private directory for temporary files, removed at the end.
    passes
        (name, seconds) of each finished pass.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.events = Events()
        self.passes: list[tuple[str, float]] = []
        self.announced: list[str] = []
        self.resizes: list[ChunkResized] = []
        self._stack = ExitStack()
        self._controller: BatchController | None = None

    def __enter__(self) -> Session:
        self._started = time.perf_counter()
        limit_malloc_arenas()
        self._peak_before = peak_bytes()
        self.budget: Budget = discover_budget(self.options.memory)
        self.pool = MemoryPool(self.budget.nbytes)
        with ExitStack() as opening:
            self.spill = _spill_directory(self.options.spill)
            opening.callback(shutil.rmtree, self.spill, ignore_errors=True)
            self.events.subscribe(self._note)
            opening.enter_context(progress(self.events, self.options.progress))
            self.monitor = opening.enter_context(MemoryMonitor(self.pool, self.budget.nbytes))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        release_free_heap()

    def announce(self, text: str) -> None:
        self.events.emit(Announced(text))

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def peak_bytes(self) -> int:
        """The process's peak during the run: the kernel's figure if the run raised it."""
        peak = peak_bytes()
        return peak if peak > self._peak_before else self.monitor.peak_bytes

    @property
    def threads(self) -> int:
        if self.options.threads:
            return self.options.threads
        return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)

    def follow(self, plan: AllocationPlan) -> None:
        """Lease what ``plan`` foresees, and size chunks by it from now on."""
        for item in plan.leased:
            self._stack.enter_context(self.pool.lease(item.name, item.nbytes))
        self._controller = BatchController.start(
            most_rows=plan.chunk_rows, tile_rows=TILE_ROWS, budget_bytes=self.budget.nbytes
        )

    def rows(self) -> int:
        """Rows of the next chunk, by what the process holds now."""
        assert self._controller is not None
        before = self._controller.rows
        sample = MemorySample(
            process_bytes=process_bytes(),
            managed_bytes=self.pool.managed_bytes,
            at_seconds=time.monotonic(),
        )
        self._controller = self._controller.step(sample)
        if self._controller.rows < before:
            release_free_heap()
            reason = f"the process holds {sample.process_bytes:,} bytes"
            self.events.emit(ChunkResized(before, self._controller.rows, reason))
        return self._controller.rows

    def _note(self, event: Event) -> None:
        if isinstance(event, PassFinished):
            self.passes.append((event.name, event.seconds))
            release_free_heap()
        elif isinstance(event, ChunkResized):
            self.resizes.append(event)
        elif isinstance(event, Announced):
            self.announced.append(event.text)


def _spill_directory(chosen: str | os.PathLike[str] | None) -> Path:
    """A fresh private directory; those of dead processes beside it are removed."""
    root = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"streamfeat-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in root.glob(f"{_PREFIX}*"):
            _remove_if_dead(old)
        return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
    except OSError as error:
        raise OutputError(
            f"the spill directory {root} cannot be used: {error}",
            hint="pass `spill=` a directory that can be written",
        ) from error


def _remove_if_dead(directory: Path) -> None:
    pid = directory.name.removeprefix(_PREFIX).partition("-")[0]
    if pid.isdigit() and not Path(f"/proc/{pid}").exists():
        shutil.rmtree(directory, ignore_errors=True)
