"""Primitives on NumPy arrays, exact to the bit whatever the chunk.

This module covers: one function per primitive over a frame's float64 arrays (NaN is null).
This module does *not* cover: the order of evaluation and the release of intermediates (program),
or recursive primitives across chunks (recursion).

Windows by doubling
-------------------
An engine's rolling kernel slides: it adds the new row and takes the old one away, so its last bits
depend on where it started. Here a window of ``w`` rows is put together from windows of 1, 2, 4, ...
rows, each the merge of two neighbours, so a value depends on its own rows and nothing else:

1. ``sums(k)[t] = sums(k-1)[t] + sums(k-1)[t - 2**(k-1)]``: 2**k rows that end at ``t``.
2. A window of ``w`` rows merges the powers of two in ``w``, largest first, latest rows first.
3. Second moments merge by Chan, Golub and LeVeque (1979); a constant window has exactly 0.
4. Extremes overlap two windows of the largest power of two.

It takes O(log w) passes, shares the levels between windows and statistics of one column, and never
subtracts two large sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamfeat.plan.expr import Call

Array = NDArray[np.float64]
NULL_TIME = np.iinfo(np.int64).min
_MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass
class Windows:
    """Levels of doubling over one array, built when first asked for and shared by all windows."""

    values: Array
    _sums: list[Array] = field(default_factory=list)
    _spreads: list[Array] = field(default_factory=list)
    _lows: list[Array] = field(default_factory=list)
    _highs: list[Array] = field(default_factory=list)

    def sums(self, level: int) -> Array:
        """Sum of the 2**level rows that end at each row."""
        return self._level(self._sums, level, np.add)

    def lows(self, level: int) -> Array:
        return self._level(self._lows, level, np.minimum)

    def highs(self, level: int) -> Array:
        return self._level(self._highs, level, np.maximum)

    def _level(self, levels: list[Array], level: int, merge: np.ufunc) -> Array:
        if not levels:
            levels.append(self.values)
        while len(levels) <= level:
            below = levels[-1]
            levels.append(merge(below, shifted(below, 1 << (len(levels) - 1))))
        return levels[level]

    def spreads(self, level: int) -> Array:
        """Sum of squared deviations from their mean of the 2**level rows that end at each row."""
        if not self._spreads:
            self._spreads.append(np.where(np.isnan(self.values), np.nan, 0.0))
        while len(self._spreads) <= level:
            k = len(self._spreads) - 1
            total, below = self.sums(k), self._spreads[-1]
            gap = total - shifted(total, 1 << k)
            gap *= gap
            gap *= 0.5 ** (k + 1)
            gap += below
            gap += shifted(below, 1 << k)
            self._spreads.append(gap)
        return self._spreads[level]

    def sum(self, window: int) -> Array:
        parts = _powers(window)
        total = self.sums(parts[0][0]).copy()
        for level, offset in parts[1:]:
            total += shifted(self.sums(level), offset)
        return total

    def low(self, window: int) -> Array:
        level = window.bit_length() - 1
        return np.minimum(self.lows(level), shifted(self.lows(level), window - (1 << level)))

    def high(self, window: int) -> Array:
        level = window.bit_length() - 1
        return np.maximum(self.highs(level), shifted(self.highs(level), window - (1 << level)))

    def mean_and_spread(self, window: int) -> tuple[Array, Array]:
        """Mean and sum of squared deviations of each window."""
        (level, _), *rest = _powers(window)
        n = 1 << level
        mean, spread = self.sums(level) / n, self.spreads(level).copy()
        for level, offset in rest:
            n_part = 1 << level
            gap = shifted(self.sums(level), offset) / n_part
            gap -= mean
            n += n_part
            mean += gap * (n_part / n)
            gap *= gap
            gap *= n_part * (n - n_part) / n
            spread += shifted(self.spreads(level), offset)
            spread += gap
        return mean, spread


def _powers(window: int) -> list[tuple[int, int]]:
    """(level, rows to the end of the window) of each power of two in ``window``, largest first."""
    parts, offset = [], 0
    for level in range(window.bit_length() - 1, -1, -1):
        if window >> level & 1:
            parts.append((level, offset))
            offset += 1 << level
    return parts


def shifted(values: Array, rows: int) -> Array:
    """``values`` moved ``rows`` rows later (earlier if negative); NaN where none come from.

    >>> shifted(np.array([1.0, 2.0, 3.0]), 1)
    array([nan,  1.,  2.])
    """
    if rows == 0:
        return values
    out = np.empty_like(values)
    if rows > 0:
        out[:rows] = np.nan
        out[rows:] = values[: max(len(values) - rows, 0)]
    else:
        out[rows:] = np.nan
        out[:rows] = values[-rows:]
    return out


@dataclass(slots=True)
class Context:
    """What a kernel may look at besides its arguments."""

    row_in_group: NDArray[np.int64]
    windows: Callable[[int], Windows]
    """The shared levels of the argument at a position."""
    short: Callable[[int], NDArray[np.bool_]]
    """Rows with fewer than the given number of earlier rows in their group."""


Kernel = Callable[[Call, list[Array], Context], Array]


def finite(values: Array) -> Array:
    """``values`` with every infinity turned to NaN, in place."""
    bad = np.isinf(values)
    if bad.any():
        values[bad] = np.nan
    return values


def _within(values: Array, context: Context, rows: int) -> Array:
    short = context.short(rows)
    if short.any():
        values[short] = np.nan
    return values


def _row(function: Callable[..., Array]) -> Kernel:
    return lambda _call, args, _context: finite(function(*args))


def _lag(call: Call, args: list[Array], context: Context) -> Array:
    rows = int(call.params[0])
    return _within(shifted(args[0], rows).copy(), context, rows)


def _diff(call: Call, args: list[Array], context: Context) -> Array:
    return finite(args[0] - _lag(call, args, context))


def _pct_change(call: Call, args: list[Array], context: Context) -> Array:
    return finite(args[0] / _lag(call, args, context) - 1.0)


def _log_return(call: Call, args: list[Array], context: Context) -> Array:
    before = _lag(call, args, context)
    ratio = args[0] / before
    ratio[~((args[0] > 0) & (before > 0))] = np.nan
    return finite(np.log(ratio))


def _lead(call: Call, args: list[Array], context: Context) -> Array:
    rows = int(call.params[0])
    out = shifted(args[0], -rows).copy()
    position = np.full(len(out), -1, dtype=np.int64)
    position[: max(len(out) - rows, 0)] = context.row_in_group[rows:]
    out[position < rows] = np.nan
    return out


def _rolling(statistic: Callable[[Windows, int], Array]) -> Kernel:
    def kernel(call: Call, _args: list[Array], context: Context) -> Array:
        window = int(call.params[0])
        return _within(finite(statistic(context.windows(0), window)), context, window - 1)

    return kernel


def _std(windows: Windows, window: int) -> Array:
    _, spread = windows.mean_and_spread(window)
    spread /= window - 1
    return np.sqrt(spread, out=spread)


def _zscore(windows: Windows, window: int) -> Array:
    mean, spread = windows.mean_and_spread(window)
    spread /= window - 1
    return (windows.values - mean) / np.sqrt(spread, out=spread)


def _copy(function: Callable[[Windows, int], Array]) -> Callable[[Windows, int], Array]:
    """A window of one row is the array itself: never hand out the shared level."""
    return lambda windows, window: np.array(function(windows, window))


KERNELS: dict[str, Kernel] = {
    "add": _row(np.add),
    "sub": _row(np.subtract),
    "mul": _row(np.multiply),
    "div": _row(np.divide),
    "neg": _row(np.negative),
    "abs": _row(np.abs),
    "square": _row(np.square),
    "cube": _row(lambda x: x * x * x),
    "sqrt": _row(np.sqrt),
    "log": _row(np.log),
    "exp": _row(np.exp),
    "exp2": _row(np.exp2),
    "sin": _row(np.sin),
    "cos": _row(np.cos),
    "clip": lambda call, args, _context: np.clip(args[0], call.params[0], call.params[1]),
    "lag": _lag,
    "lead": _lead,
    "diff": _diff,
    "pct_change": _pct_change,
    "log_return": _log_return,
    "rolling_sum": _rolling(lambda w, n: w.sum(n)),
    "rolling_mean": _rolling(lambda w, n: w.sum(n) / n),
    "rolling_std": _rolling(_std),
    "rolling_zscore": _rolling(_zscore),
    "rolling_min": _rolling(_copy(lambda w, n: w.low(n))),
    "rolling_max": _rolling(_copy(lambda w, n: w.high(n))),
}


def calendar(part: str, time: NDArray[np.int64]) -> Array:
    """A calendar part of microseconds since 1970-01-01 UTC, as float64; null time gives NaN.

    >>> calendar("day_of_week", np.array([0]))
    array([4.])
    """
    out = _CALENDAR[part](time).astype(np.float64)
    out[time == NULL_TIME] = np.nan
    return out


def _days(time: NDArray[np.int64]) -> NDArray[np.int64]:
    return time // _MICROSECONDS_PER_DAY


def _since(time: NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    """Days since the start of the month or year, from 0."""
    day = _days(time).astype("datetime64[D]")
    start = day.astype(f"datetime64[{unit}]").astype("datetime64[D]")
    return (day - start).astype(np.int64)


_CALENDAR: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "year": lambda t: (
        _days(t).astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    ),
    "month": lambda t: (
        _days(t).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    ),
    "day": lambda t: _since(t, "M") + 1,
    "day_of_week": lambda t: (_days(t) + 3) % 7 + 1,
    "day_of_year": lambda t: _since(t, "Y") + 1,
    "hour": lambda t: t % _MICROSECONDS_PER_DAY // 3_600_000_000,
    "minute": lambda t: t % 3_600_000_000 // 60_000_000,
}
