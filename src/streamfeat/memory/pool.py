"""The ledger: who holds how many bytes of the budget.

This module covers: granting, growing, shrinking and returning leases against one fixed limit.
This module does *not* cover: measuring the process (probe); sizing a chunk (allocator).
"""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

from streamfeat.errors import MemoryExhaustionError


class Lease:
    """Bytes held under a name until released; a context manager."""

    def __init__(self, pool: MemoryPool, name: str, nbytes: int) -> None:
        self._pool = pool
        self.name = name
        self.nbytes = nbytes

    def resize(self, nbytes: int) -> None:
        """Hold ``nbytes`` from now on.

        Raises
        ------
        MemoryExhaustionError
            If the pool has not that much; the lease is unchanged.
        """
        self._pool._change(self, nbytes)

    def release(self) -> None:
        """Return the bytes; a second call does nothing."""
        self._pool._drop(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class MemoryPool:
    """A fixed number of bytes, leased by name; safe between threads.

    Examples
    --------
    >>> pool = MemoryPool(1_000)
    >>> with pool.lease("chunk", 900):
    ...     pool.managed_bytes
    900
    >>> pool.managed_bytes, pool.peak_bytes
    (0, 900)
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._leases: set[Lease] = set()
        self._managed = 0
        self._peak = 0
        self._lock = threading.Lock()

    @property
    def managed_bytes(self) -> int:
        """Bytes leased now."""
        return self._managed

    @property
    def peak_bytes(self) -> int:
        """The most that was ever leased."""
        return self._peak

    def holders(self) -> dict[str, int]:
        """Bytes by name, largest first."""
        with self._lock:
            held: Counter[str] = Counter()
            for lease in self._leases:
                held[lease.name] += lease.nbytes
        return dict(sorted(held.items(), key=lambda pair: (-pair[1], pair[0])))

    def lease(self, name: str, nbytes: int) -> Lease:
        """Ask for ``nbytes``.

        Raises
        ------
        MemoryExhaustionError
            If they are not free; nothing is changed.
        """
        lease = Lease(self, name, 0)
        with self._lock:
            self._leases.add(lease)
        try:
            self._change(lease, nbytes)
        except MemoryExhaustionError:
            with self._lock:
                self._leases.discard(lease)
            raise
        return lease

    def _change(self, lease: Lease, nbytes: int) -> None:
        with self._lock:
            more = nbytes - lease.nbytes
            fits = lease in self._leases and self._managed + more <= self.limit_bytes
            if fits:
                lease.nbytes = nbytes
                self._managed += more
                self._peak = max(self._peak, self._managed)
        if not fits:
            raise self._refusal(lease.name, more)

    def _drop(self, lease: Lease) -> None:
        with self._lock:
            if lease in self._leases:
                self._leases.remove(lease)
                self._managed -= lease.nbytes
                lease.nbytes = 0

    def _refusal(self, name: str, nbytes: int) -> MemoryExhaustionError:
        free = self.limit_bytes - self._managed
        largest = ", ".join(f"{n}={b:,} B" for n, b in list(self.holders().items())[:3] if b)
        return MemoryExhaustionError(
            f"{name!r} asked for {nbytes:,} B; {free:,} B of {self.limit_bytes:,} B are free. "
            f"Largest holders: {largest or 'none'}.",
            hint="lower `beam` or raise `memory`.",
        )
