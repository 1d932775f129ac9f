"""The ledger against a model of itself, between threads, and its refusals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from streamfeat.errors import MemoryExhaustionError, MemoryManagementError
from streamfeat.memory import Lease, MemoryPool

LIMIT = 1000
SIZES = st.sampled_from([0, 1, LIMIT - 1, LIMIT, LIMIT + 1]) | st.integers(0, 2 * LIMIT)


class Ledger(RuleBasedStateMachine):
    """Whatever is asked in whatever order, the pool and a plain dictionary agree."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = MemoryPool(LIMIT)
        self.held: dict[Lease, int] = {}
        self.peak = 0

    @rule(target=leases, name=st.sampled_from("abc"), nbytes=SIZES)
    def lease(self, name: str, nbytes: int) -> Lease:
        if sum(self.held.values()) + nbytes > LIMIT:
            with pytest.raises(MemoryExhaustionError, match=f"'{name}' asked for"):
                self.pool.lease(name, nbytes)
            nbytes = 0
        made = self.pool.lease(name, nbytes)
        self.held[made] = nbytes
        return made

    @rule(lease=leases, nbytes=SIZES, how=st.sampled_from(["resize", "grow", "shrink"]))
    def change(self, lease: Lease, nbytes: int, how: str) -> None:
        before = self.held[lease]
        after = {"resize": nbytes, "grow": before + nbytes, "shrink": before - nbytes}[how]
        fits = 0 <= after <= LIMIT - sum(self.held.values()) + before
        try:
            getattr(lease, how)(nbytes)
        except MemoryManagementError:
            assert not fits
        else:
            assert fits
            self.held[lease] = after

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        lease.release()
        lease.release()
        del self.held[lease]
        with pytest.raises(MemoryExhaustionError, match="was released"):
            lease.grow(0)

    @invariant()
    def they_agree(self) -> None:
        total = sum(self.held.values())
        self.peak = max(self.peak, total)
        assert self.pool.managed_bytes == total <= LIMIT
        assert self.pool.peak_bytes == self.peak
        assert all(lease.nbytes == nbytes for lease, nbytes in self.held.items())
        assert sum(self.pool.holders().values()) == total


TestLedger = Ledger.TestCase


def test_a_refusal_says_who_holds_what() -> None:
    pool = MemoryPool(1000)
    for name, nbytes in [("tiles", 100), ("chunk", 500), ("gram", 50), ("tiles", 200), ("key", 40)]:
        pool.lease(name, nbytes)
    with pytest.raises(MemoryExhaustionError) as told:
        pool.lease("writer", 2000)
    assert str(told.value) == (
        "'writer' asked for 2,000 B; 110 B of 1,000 B are free. "
        "Largest holders: chunk=500 B, tiles=300 B, gram=50 B.\n\n"
        "Hint: lower `beam` or raise `memory`."
    )
    assert pool.peak_bytes == 890


@pytest.mark.parametrize("how", ["resize", "grow", "shrink"])
def test_sizes_below_zero_are_refused_and_change_nothing(how: str) -> None:
    pool = MemoryPool(1000)
    lease = pool.lease("chunk", 300)
    with pytest.raises(MemoryManagementError, match="'x' cannot hold or ask for -1 B"):
        pool.lease("x", -1)
    with pytest.raises(MemoryManagementError, match="'chunk' cannot hold or ask for -500 B"):
        getattr(lease, how)(-500)
    assert (pool.holders(), pool.managed_bytes, lease.nbytes) == ({"chunk": 300}, 300, 300)


def test_no_lease_shrinks_below_nothing() -> None:
    pool = MemoryPool(1000)
    lease = pool.lease("chunk", 300)
    with pytest.raises(MemoryManagementError, match="'chunk' cannot hold or ask for -1 B"):
        lease.shrink(301)
    lease.shrink(300)
    assert pool.managed_bytes == 0


def test_a_lease_is_returned_when_its_block_fails() -> None:
    pool = MemoryPool(1000)
    with pytest.raises(KeyError), pool.lease("chunk", 300):
        raise KeyError
    assert pool.managed_bytes == 0


def test_threads_never_hold_more_than_the_limit_and_return_it_all() -> None:
    pool, start = MemoryPool(LIMIT), threading.Barrier(4)

    def work(k: int) -> int:
        start.wait()
        granted = 0
        for step in range(300):
            try:
                with pool.lease(str(k), 300) as lease:
                    lease.grow(step % 90)
                    granted += 1
                    assert pool.managed_bytes <= LIMIT
            except MemoryExhaustionError:
                pass
        return granted

    with ThreadPoolExecutor(4) as threads:
        granted = list(threads.map(work, range(4)))
    assert sum(granted) >= 300
    assert (pool.managed_bytes, pool.holders()) == (0, {})
    assert 389 <= pool.peak_bytes <= LIMIT
