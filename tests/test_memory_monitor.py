"""The monitor's subscribers, its end, and what it costs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from streamfeat.memory import MemoryMonitor, MemoryPool, MemorySample, monitor

BUDGET = 10**9
LOW, BETWEEN, HIGH = 10**8, 930_000_000, 960_000_000


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """The process holds these, one a sample, the last for ever."""

    def use(values: list[int]) -> None:
        told: Iterator[int] = itertools.chain(values, itertools.repeat(values[-1]))
        monkeypatch.setattr(monitor, "process_bytes", lambda: next(told))

    return use


def wait_for(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not seen() and time.monotonic() < end:
        time.sleep(0.002)
    assert seen()


def test_subscribers_hear_each_crossing_once(readings: Callable[[list[int]], None]) -> None:
    readings([LOW, LOW, BETWEEN, BETWEEN, HIGH, HIGH, LOW, HIGH])
    heard: list[tuple[str, int]] = []
    with MemoryMonitor(MemoryPool(BUDGET), BUDGET, period_seconds=0.001) as watch:
        assert watch.pressure in ("low", "normal", "high")
        watch.subscribe(lambda pressure, sample: heard.append((pressure, sample.process_bytes)))
        wait_for(lambda: watch.n_samples > 12)
    assert heard[-3:] == [("high", HIGH), ("low", LOW), ("high", HIGH)]
    assert watch.peak_bytes == HIGH and watch.last.process_bytes == HIGH
    assert watch.pressure == "high"


def test_a_subscriber_that_raises_does_not_end_the_watch(
    readings: Callable[[list[int]], None],
) -> None:
    readings([LOW, HIGH, LOW])
    heard: list[str] = []

    def broken(pressure: str, sample: MemorySample) -> None:
        raise ValueError(f"broken at {pressure}")

    watch = MemoryMonitor(MemoryPool(BUDGET), BUDGET, period_seconds=0.001, on_pressure=broken)
    watch.subscribe(lambda pressure, _: heard.append(pressure))
    with watch:
        wait_for(lambda: watch.n_samples > 6)
    assert heard == ["high", "low"]
    assert str(watch.last_error) == "broken at low"


def test_an_unsubscribed_one_hears_nothing(readings: Callable[[list[int]], None]) -> None:
    readings([LOW, HIGH])
    heard: list[str] = []
    watch = MemoryMonitor(MemoryPool(BUDGET), BUDGET, period_seconds=0.001)
    watch.subscribe(lambda pressure, _: heard.append(pressure))()
    with watch:
        wait_for(lambda: watch.n_samples > 3)
    assert watch.pressure == "high" and heard == []


@pytest.mark.parametrize(
    ("held", "pressure"),
    [(899_999_999, "low"), (900_000_000, "normal"), (949_999_999, "normal"), (950_000_000, "high")],
)
def test_the_water_marks(held: int, pressure: str, readings: Callable[[list[int]], None]) -> None:
    readings([held])
    assert MemoryMonitor(MemoryPool(BUDGET), BUDGET).pressure == pressure


def test_stopping_joins_and_may_be_repeated() -> None:
    before = threading.active_count()
    watch = MemoryMonitor(MemoryPool(1), BUDGET).start()
    assert threading.active_count() == before + 1
    watch.stop()
    n_samples = watch.n_samples
    watch.stop()
    assert threading.active_count() == before and watch.n_samples == n_samples >= 2


def test_one_never_started_can_be_stopped() -> None:
    MemoryMonitor(MemoryPool(1), BUDGET).stop()


def test_a_subscriber_may_stop_it(readings: Callable[[list[int]], None]) -> None:
    readings([LOW, HIGH])
    watch = MemoryMonitor(MemoryPool(BUDGET), BUDGET, period_seconds=0.001)
    watch.subscribe(lambda *_: watch.stop())
    before = threading.active_count()
    with watch:
        wait_for(lambda: threading.active_count() == before)
    assert watch.last_error is None


def test_it_ends_with_a_block_that_fails() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), MemoryMonitor(MemoryPool(1), BUDGET):
        raise KeyError
    assert threading.active_count() == before


def test_samples_are_managed_and_unmanaged() -> None:
    pool = MemoryPool(BUDGET)
    with pool.lease("chunk", 5_000_000), MemoryMonitor(pool, BUDGET) as watch:
        sample = watch.last
    assert sample.managed_bytes == 5_000_000
    assert sample.process_bytes == sample.managed_bytes + sample.unmanaged_bytes > 0


def test_it_takes_less_than_two_hundredths_of_a_core() -> None:
    def share() -> float:
        started, cpu = time.perf_counter(), time.process_time()
        with MemoryMonitor(MemoryPool(1), BUDGET) as watch:
            time.sleep(0.5)
        assert watch.n_samples > 20
        return (time.process_time() - cpu) / (time.perf_counter() - started)

    # The best of three: other threads of this process count too.
    assert min(share() for _ in range(3)) < 0.02
