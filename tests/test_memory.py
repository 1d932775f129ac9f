"""Sizes, ceilings, the ledger, the plan, the controller and the monitor."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.errors import BudgetTooSmallError, MemoryExhaustionError, OptionError
from streamfeat.memory import probe
from streamfeat.memory.allocator import plan_allocation
from streamfeat.memory.controller import BatchController
from streamfeat.memory.models import AllocationItem, MemorySample, format_bytes, parse_bytes
from streamfeat.memory.monitor import MemoryMonitor
from streamfeat.memory.pool import MemoryPool

TILE = 8192


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("2GB", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        (" 1.5 gb ", 1_500_000_000),
        ("100_000", 100_000),
        ("7", 7),
        (4096, 4096),
        ("3k", 3000),
    ],
)
def test_sizes_are_read(text: str | int, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["lots", "", "-1GB", 0, -5, True, float("nan"), "2 GBB", "0"])
def test_what_is_no_size_is_refused(text: str | int | float) -> None:
    with pytest.raises(OptionError, match=r"memory=.* is no size above 0"):
        parse_bytes(text)


def test_sizes_are_printed_for_people() -> None:
    assert [format_bytes(b) for b in (12, 1234, 5.6e7, 1.2e9)] == [
        "12 B", "1.2 kB", "56.0 MB", "1.2 GB",
    ]  # fmt: skip


def tree(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("4:memory:/a/b\n", {"memory/a/memory.limit_in_bytes": "900",
                             "memory/a/b/memory.limit_in_bytes": str(2**63)}, 900),
        ("4:cpu,memory:/gone\n", {"memory/memory.limit_in_bytes": "700"}, 700),
        ("0::/x/y\n", {"x/memory.max": "500\n", "x/y/memory.max": "max\n"}, 500),
        ("0::/x\n", {"x/memory.max": "max"}, None),
        ("4:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "800",
                                "unified/memory.max": "600"}, 600),
        ("", {}, None),
    ],
)  # fmt: skip
def test_the_least_cgroup_limit_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], limit: int | None
) -> None:
    assert probe.cgroup_limit_bytes(tree(tmp_path, cgroup, files)) == limit


def test_what_a_cgroup_holds_is_without_cache(tmp_path: Path) -> None:
    files = {
        "memory/a/memory.limit_in_bytes": "900",
        "memory/a/memory.stat": "cache 5000\nrss 321\ntotal_rss 400\n",
    }
    assert probe.cgroup_used_bytes(tree(tmp_path, "4:memory:/a\n", files)) == 400


def test_budgets_come_from_the_caller_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMFEAT_MEMORY", "1GB")
    assert probe.discover_budget("200MB").nbytes == 200_000_000
    assert probe.discover_budget().origin == "STREAMFEAT_MEMORY"
    monkeypatch.setenv("STREAMFEAT_MEMORY", "much")
    with pytest.raises(OptionError, match="STREAMFEAT_MEMORY='much'"):
        probe.discover_budget()
    monkeypatch.delenv("STREAMFEAT_MEMORY")
    free = probe.discover_budget()
    assert "60%" in free.origin and 0 < free.nbytes < probe.available_bytes()


def test_a_budget_is_never_above_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "cgroup_limit_bytes", lambda: 10**9)
    budget = probe.discover_budget("4GB")
    assert budget.nbytes == 10**9 and budget.origin == "the container's limit; 4.0 GB asked"


def test_the_process_is_measured() -> None:
    before = probe.process_bytes()
    held = bytearray(60_000_000)
    grown = probe.process_bytes() - before
    del held
    assert 50_000_000 < grown < 80_000_000
    # The kernel counts pages per thread and adds them up late.
    assert probe.peak_bytes() >= before + grown - 4_000_000
    assert probe.release_free_heap() >= 0


def test_a_refusal_changes_nothing_and_names_the_holders() -> None:
    pool = MemoryPool(1000)
    with pool.lease("chunk", 900) as lease:
        with pytest.raises(MemoryExhaustionError) as told:
            pool.lease("gram", 600)
        assert told.value.message == (
            "'gram' asked for 600 B; 100 B of 1,000 B are free. Largest holders: chunk=900 B."
        )
        with pytest.raises(MemoryExhaustionError):
            lease.resize(1001)
        assert pool.holders() == {"chunk": 900}
        lease.resize(10)
        assert pool.managed_bytes == 10
    lease.release()
    assert (pool.managed_bytes, pool.peak_bytes, pool.holders()) == (0, 900, {})
    with pytest.raises(MemoryExhaustionError):
        lease.resize(5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 700)), max_size=40))
def test_the_ledger_adds_up(steps: list[tuple[int, int]]) -> None:
    pool, leases = MemoryPool(1000), {}
    for name, nbytes in steps:
        if name in leases and nbytes < 100:
            leases.pop(name).release()
            continue
        try:
            if name in leases:
                leases[name].resize(nbytes)
            else:
                leases[name] = pool.lease(str(name), nbytes)
        except MemoryExhaustionError:
            pass
        assert pool.managed_bytes == sum(lease.nbytes for lease in leases.values()) <= 1000


PLANS = {
    "baseline_bytes": st.integers(0, 10**9),
    "fixed": st.lists(st.builds(AllocationItem, st.just("x"), st.integers(0, 10**8)), max_size=3),
    "bytes_per_row": st.floats(1, 5000),
    "halo_rows": st.integers(0, 500),
}


@given(st.fixed_dictionaries(PLANS), st.integers(1, 4 * 10**9))
def test_a_plan_fits_its_budget_or_names_the_least_that_would(
    costs: dict[str, object], budget: int
) -> None:
    def plan(nbytes: int):  # type: ignore[no-untyped-def]
        return plan_allocation(nbytes, tile_rows=TILE, threads=2, **costs)  # type: ignore[arg-type]

    try:
        made = plan(budget)
        assert made.total_bytes - sum(i.nbytes for i in made.leased) >= made.baseline_bytes
        assert made.total_bytes <= budget
        assert made.chunk_rows % TILE == 0 and made.chunk_rows >= TILE
        least = made.minimum_bytes
    except BudgetTooSmallError as error:
        least = error.minimum_bytes
        assert least > budget
    assert plan(least).total_bytes <= least
    with pytest.raises(BudgetTooSmallError):
        plan(least - 1)


def sample(process_bytes: int) -> MemorySample:
    return MemorySample(process_bytes, 0, 0.0)


def test_the_controller_by_a_table_of_cases() -> None:
    start = BatchController.start(most_rows=16 * TILE, tile_rows=TILE, budget_bytes=10**9)
    low, between, high = 10**8, 930_000_000, 960_000_000
    cases = [
        ([], 4),
        ([low], 6),
        ([low] * 9, 16),
        ([between], 4),
        ([high], 2),
        ([high, high, high], 1),
        ([high, low], 2),
        ([high, low, low, low, low, low], 4),
    ]
    for readings, tiles in cases:
        controller = start
        for reading in readings:
            controller = controller.step(sample(reading))
        assert controller.rows == tiles * TILE, readings


@given(st.lists(st.integers(0, 2 * 10**9), max_size=60), st.integers(1, 40))
def test_the_controller_stays_in_bounds_and_settles(readings: list[int], tiles: int) -> None:
    controller = BatchController.start(most_rows=tiles * TILE, tile_rows=TILE, budget_bytes=10**9)
    for reading in readings:
        controller = controller.step(sample(reading))
        assert TILE <= controller.rows <= tiles * TILE and controller.rows % TILE == 0
    between = (controller.low_bytes + controller.high_bytes) // 2
    settled = [controller := controller.step(sample(between)) for _ in range(8)]
    assert len({c.rows for c in settled}) == 1


def test_the_monitor_sees_a_peak_and_tells_pressure() -> None:
    budget = probe.process_bytes() + 120_000_000
    told: list[str] = []
    with MemoryMonitor(
        MemoryPool(10**9), budget, on_pressure=lambda pressure, _: told.append(pressure)
    ) as monitor:
        held = bytearray(115_000_000)
        time.sleep(0.06)
        peak = probe.process_bytes()
        del held
        time.sleep(0.06)
    assert monitor.peak_bytes >= 0.95 * peak
    assert monitor.n_samples > 5
    assert "high" in told and told[-1] != "high"


def test_the_monitor_costs_next_to_nothing() -> None:
    started = time.process_time()
    with MemoryMonitor(MemoryPool(1), 10**12):
        time.sleep(0.5)
    assert time.process_time() - started < 0.05
