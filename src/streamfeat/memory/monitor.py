"""The watch: a thread that reads the process's size every few milliseconds.

This module covers: the peak, the last sample, and pressure by two water marks.
This module does *not* cover: what is done about it (controller, run).

A sampler cannot hold a budget: memory grows by gigabytes a second in bursts of milliseconds. What
holds it is the plan; this sees what the plan did not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from streamfeat.memory.allocator import reserve_bytes
from streamfeat.memory.models import MemorySample
from streamfeat.memory.pool import MemoryPool
from streamfeat.memory.probe import process_bytes

Pressure = Literal["low", "normal", "high"]
PressureSubscriber = Callable[[Pressure, MemorySample], None]
PERIOD_SECONDS = 0.005


class MemoryMonitor:
    """Samples the process while open; a context manager.

    Parameters
    ----------
    pool
        Whose leases are the managed bytes.
    budget_bytes
        From which the water marks follow.
    on_pressure
        The first subscriber; see ``subscribe``.

    Attributes
    ----------
    peak_bytes, last, n_samples
        The largest and the last reading, and how many there were.
    pressure
        "high" from half the reserve upwards, "low" where the whole reserve is free.
    last_error
        What a subscriber raised last; the watch goes on all the same.

    Examples
    --------
    >>> with MemoryMonitor(MemoryPool(10**9), 10**12) as monitor:
    ...     monitor.pressure
    'low'
    """

    def __init__(
        self,
        pool: MemoryPool,
        budget_bytes: int,
        *,
        period_seconds: float = PERIOD_SECONDS,
        on_pressure: PressureSubscriber | None = None,
    ) -> None:
        reserve = reserve_bytes(budget_bytes)
        self._pool = pool
        self._low_bytes = budget_bytes - reserve
        self._high_bytes = budget_bytes - reserve // 2
        self._period = period_seconds
        self._subscribers = [on_pressure] if on_pressure else []
        self._stop = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="streamfeat-monitor", daemon=True)
        self.last_error: Exception | None = None
        self.n_samples = 0
        self.peak_bytes = 0
        self.last = self._sample()
        self.pressure: Pressure = self._judge(self.last)

    def subscribe(self, subscriber: PressureSubscriber) -> Callable[[], None]:
        """Have ``subscriber`` called whenever the pressure changes; the returned function ends it.

        It is called in the monitor's thread, at the end in the one that stops the monitor.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def start(self) -> MemoryMonitor:
        """Begin to sample; once only."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take a last sample and end the thread; a second call does nothing."""
        self._stop.set()
        if self._thread is threading.current_thread():  # a subscriber had enough
            return
        if self._thread.is_alive():
            self._thread.join()
        if not self._stopped:
            self._stopped = True
            self._look()

    def __enter__(self) -> MemoryMonitor:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._look()

    def _look(self) -> None:
        self.last = self._sample()
        pressure = self._judge(self.last)
        changed, self.pressure = pressure != self.pressure, pressure
        if changed:
            self._tell(pressure, self.last)

    def _tell(self, pressure: Pressure, sample: MemorySample) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(pressure, sample)
            except Exception as error:
                self.last_error = error

    def _sample(self) -> MemorySample:
        sample = MemorySample(process_bytes(), self._pool.managed_bytes, time.monotonic())
        self.n_samples += 1
        self.peak_bytes = max(self.peak_bytes, sample.process_bytes)
        return sample

    def _judge(self, sample: MemorySample) -> Pressure:
        if sample.process_bytes >= self._high_bytes:
            return "high"
        return "low" if sample.process_bytes < self._low_bytes else "normal"
