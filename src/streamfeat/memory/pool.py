"""The ledger: who holds how many bytes of the budget.

This module covers: granting, growing, shrinking and returning leases against one fixed limit.
This module does *not* cover: measuring the process (probe); sizing a chunk (allocator).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from streamfeat.errors import MemoryExhaustionError, MemoryManagementError


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
            If the pool has not that much, or the lease was released; nothing is changed.
        MemoryManagementError
            If ``nbytes`` is below 0; nothing is changed.
        """
        self._pool._change(self, lambda _: nbytes)

    def grow(self, nbytes: int) -> None:
        """Hold ``nbytes`` more; raises as ``resize`` does."""
        self._pool._change(self, lambda held: held + _counted(self.name, nbytes))

    def shrink(self, nbytes: int) -> None:
        """Hold ``nbytes`` less; raises as ``resize`` does, also if fewer are held."""
        self._pool._change(self, lambda held: held - _counted(self.name, nbytes))

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
            return self._holders()

    def lease(self, name: str, nbytes: int) -> Lease:
        """Ask for ``nbytes``.

        Raises
        ------
        MemoryExhaustionError
            If they are not free; nothing is changed.
        MemoryManagementError
            If ``nbytes`` is below 0; nothing is changed.
        """
        lease = Lease(self, name, _counted(name, nbytes))
        with self._lock:
            self._take(name, nbytes)
            self._leases.add(lease)
        return lease

    def _change(self, lease: Lease, size: Callable[[int], int]) -> None:
        with self._lock:
            if lease not in self._leases:
                raise MemoryExhaustionError(
                    f"{lease.name!r} was released and cannot be resized.", hint="lease it again"
                )
            nbytes = _counted(lease.name, size(lease.nbytes))
            self._take(lease.name, nbytes - lease.nbytes)
            lease.nbytes = nbytes

    def _take(self, name: str, more: int) -> None:
        """Under the lock, so that the numbers of a refusal are those it was decided by."""
        if self._managed + more > self.limit_bytes:
            raise self._refusal(name, more)
        self._managed += more
        self._peak = max(self._peak, self._managed)

    def _drop(self, lease: Lease) -> None:
        with self._lock:
            if lease in self._leases:
                self._leases.remove(lease)
                self._managed -= lease.nbytes
                lease.nbytes = 0

    def _holders(self) -> dict[str, int]:
        held: Counter[str] = Counter()
        for lease in self._leases:
            held[lease.name] += lease.nbytes
        return dict(sorted(held.items(), key=lambda pair: (-pair[1], pair[0])))

    def _refusal(self, name: str, nbytes: int) -> MemoryExhaustionError:
        free = self.limit_bytes - self._managed
        largest = ", ".join(f"{n}={b:,} B" for n, b in list(self._holders().items())[:3] if b)
        return MemoryExhaustionError(
            f"{name!r} asked for {nbytes:,} B; {free:,} B of {self.limit_bytes:,} B are free. "
            f"Largest holders: {largest or 'none'}.",
            hint="lower `beam` or raise `memory`.",
        )


def _counted(name: str, nbytes: int) -> int:
    if nbytes < 0:
        raise MemoryManagementError(
            f"{name!r} cannot hold or ask for {nbytes:,} B.", hint="sizes are 0 or more"
        )
    return nbytes
