"""Which column is what: time, group, bars, numbers, inferred from names and types.

This module covers: inference, overriding it, and the one line that announces it.
This module does *not* cover: whether rows are in order (order).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streamfeat.errors import RowOrderError, UnsupportedSourceError
from streamfeat.sources.source import ColumnInfo, Source

_TIME = (
    "timestamp", "datetime", "date", "time", "ts", "opentime", "tradedate", "bartime",
    "tradingday", "closetime", "dt", "t",
)  # fmt: skip
_GROUP = (
    "symbol", "ticker", "sym", "asset", "instrument", "instrumentid", "secid", "permno", "pair",
    "ric", "isin", "cusip", "tic", "stock", "stockcode", "tscode", "code", "contract", "name",
)  # fmt: skip
_BARS = {
    "open": ("open", "openprice", "priceopen", "o"),
    "high": ("high", "highprice", "pricehigh", "max", "h"),
    "low": ("low", "lowprice", "pricelow", "min", "l"),
    "close": ("close", "closeprice", "priceclose", "last", "lastprice", "adjclose", "price", "c"),
    "volume": (
        "volume", "vol", "volumebtc", "basevolume", "volumebase", "qty", "volumeusd",
        "volumeusdt", "quotevolume", "v",
    ),
}  # fmt: skip
_SHORT = 1
"""One-letter names count as bars only where o, h, l and c are all there."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The role of each column; None where there is none."""

    time: str | None = None
    group: str | None = None
    open: str | None = None
    high: str | None = None
    low: str | None = None
    close: str | None = None
    volume: str | None = None
    numeric: tuple[str, ...] = ()
    timestamps: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    ordered: bool = False
    time_was_given: bool = False

    @property
    def is_ohlcv(self) -> bool:
        """Whether open, high, low and close are known.

        >>> Roles(open="o", high="h", low="l", close="c").is_ohlcv
        True
        """
        return None not in (self.open, self.high, self.low, self.close)

    def announce(self) -> str:
        """The roles in one line.

        >>> Roles(time="date", group="ticker", close="c", numeric=("c",)).announce()
        'time=date, group=ticker, close=c, 1 numeric column'
        """
        named = {"time": self.time, "group": self.group}
        if self.is_ohlcv:
            bars = [self.open, self.high, self.low, self.close, self.volume]
            named["OHLCV" if self.volume else "OHLC"] = "/".join(b for b in bars if b)
        else:
            named["close"] = self.close
        parts = [f"{role}={name}" for role, name in named.items() if name]
        n = len(self.numeric)
        parts.append(f"{n} numeric column{'' if n == 1 else 's'}")
        if self.text:
            parts.append(f"{len(self.text)} text left out")
        return ", ".join(parts)


def infer_roles(
    source: Source,
    *,
    target_column: str | None = None,
    time: str | None = None,
    group: str | None = None,
    bars: Mapping[str, str] | None = None,
) -> Roles:
    """Roles of the columns of ``source``.

    Parameters
    ----------
    target_column
        The column to be predicted: no feature is made of it.
    time, group
        Taken as given; None: inferred.
    bars
        Columns of "open", "high", "low", "close" and "volume" that are given.

    Raises
    ------
    ColumnNotFoundError
        If a given column does not exist.
    RowOrderError
        If the given time column cannot order rows, or the group column cannot group them.
    """
    columns = {c.name: c for c in source.columns if c.name != target_column}
    given = time is not None
    if time is not None:
        _check_time(source.column(time))
    else:
        time = _infer_time(columns)
    if group is not None:
        _check_group(source.column(group))
    elif time is not None:
        group = _infer_group(columns, time)
    free = {n: c for n, c in columns.items() if n not in (time, group)}
    numbers = tuple(n for n, c in free.items() if c.role_type == "number")
    found = {**_infer_bars(numbers), **_given_bars(source, bars or {})}
    return Roles(
        open=found["open"],
        high=found["high"],
        low=found["low"],
        close=found["close"],
        volume=found["volume"],
        time=time,
        group=group,
        numeric=numbers,
        timestamps=tuple(n for n, c in columns.items() if c.role_type == "timestamp"),
        text=tuple(n for n, c in free.items() if c.role_type == "text"),
        ordered=time is not None,
        time_was_given=given,
    )


def _given_bars(source: Source, bars: Mapping[str, str]) -> dict[str, str | None]:
    for role, name in bars.items():
        if source.column(name).role_type != "number":
            raise UnsupportedSourceError(
                f"column {name!r} is {source.column(name).arrow_type}; it cannot be {role}",
                hint="name a column of numbers",
            )
    return dict(bars)


def _check_time(column: ColumnInfo) -> None:
    if column.role_type not in ("timestamp", "number"):
        raise RowOrderError(
            f"time column {column.name!r} is {column.arrow_type}; it cannot order rows",
            hint="convert it to a timestamp, a date or a number",
        )


def _check_group(column: ColumnInfo) -> None:
    if column.role_type == "other":
        raise RowOrderError(
            f"group column {column.name!r} is {column.arrow_type}; it cannot group rows",
            hint="convert it to text or a number",
        )


def plain(name: str) -> str:
    """A name without case, spaces and punctuation.

    >>> plain("Open Time (UTC)")
    'opentimeutc'
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def _first_match(names: dict[str, str], spellings: tuple[str, ...]) -> str | None:
    return next((names[s] for s in spellings if s in names), None)


def _by_plain_name(columns: list[str]) -> dict[str, str]:
    return {plain(name): name for name in reversed(columns)}


def _infer_time(columns: dict[str, ColumnInfo]) -> str | None:
    moments = [n for n, c in columns.items() if c.role_type == "timestamp"]
    if len(moments) == 1:
        return moments[0]
    return _first_match(_by_plain_name(moments), _TIME)


def _infer_group(columns: dict[str, ColumnInfo], time: str) -> str | None:
    fit = [
        n
        for n, c in columns.items()
        if n != time and (c.role_type == "text" or str(c.arrow_type).startswith(("int", "uint")))
    ]
    return _first_match(_by_plain_name(fit), _GROUP)


def _infer_bars(numbers: tuple[str, ...]) -> dict[str, str | None]:
    names = _by_plain_name(list(numbers))
    found: dict[str, str | None] = {
        role: _first_match(names, tuple(s for s in spellings if len(s) > _SHORT))
        for role, spellings in _BARS.items()
    }
    if all(letter in names for letter in "ohlc"):
        for role, spellings in _BARS.items():
            found[role] = found[role] or names.get(spellings[-1])
    if found["open"] is None or found["high"] is None or found["low"] is None:
        found = {**dict.fromkeys(found), "close": found["close"]}
    return found
