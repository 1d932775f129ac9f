"""Where rows come from: one protocol for files and tables.

This module covers: the ``Source`` protocol, what is known of a column, and statistics of it.
This module does *not* cover: opening (opening), files (parquet), tables (frames).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

from streamfeat.errors import ColumnNotFoundError, EmptySourceError

BASE_BATCH_ROWS = 16_384
"""Rows of a record batch as read: the largest that costs no extra memory in the decoder."""

RoleType = Literal["number", "timestamp", "text", "other"]


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column: its type, and what footers say of it (None: unknown)."""

    name: str
    arrow_type: pa.DataType
    n_null: int | None = None
    minimum: Any = None
    maximum: Any = None
    nbytes: int | None = None

    @property
    def role_type(self) -> RoleType:
        """What the column can be used as.

        >>> ColumnInfo("x", pa.int64()).role_type
        'number'
        """
        return role_type(self.arrow_type)


def role_type(kind: pa.DataType) -> RoleType:
    types = pa.types
    if types.is_dictionary(kind):
        return "text" if role_type(kind.value_type) == "text" else "other"
    if (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
    ):
        return "number"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "timestamp"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "other"


class Source(Protocol):
    """Rows in a fixed order, read in spans.

    ``name`` is for messages; ``nbytes_per_row`` comes from rows and widths, never from footers.
    """

    @property
    def name(self) -> str: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def columns(self) -> tuple[ColumnInfo, ...]: ...
    @property
    def nbytes_per_row(self) -> float: ...

    def schema(self) -> pa.Schema: ...

    def column(self, name: str) -> ColumnInfo:
        """The column; ColumnNotFoundError names the closest other."""
        ...

    def column_blocks(self, columns: Sequence[str]) -> list[list[str]]:
        """``columns`` in blocks, each of which may be read at once in bounded memory."""
        ...

    def read(
        self, start_row: int, stop_row: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Batches of at most ``BASE_BATCH_ROWS`` rows, in order."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes when the rows do."""
        ...

    def check_unchanged(self) -> None:
        """SourceChangedError if a file is not what it was when opened."""
        ...


def find_column(columns: Iterable[ColumnInfo], name: str, source: str) -> ColumnInfo:
    """The column called exactly ``name``."""
    by_name = {column.name: column for column in columns}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {_some(list(by_name))}"
    raise ColumnNotFoundError(f"{source} has no column {name!r}", hint=hint)


def _some(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_names(names: Sequence[str], source: str) -> None:
    """Refuse no columns, and two of one name."""
    if not names:
        raise EmptySourceError(f"{source} has no columns")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise EmptySourceError(
            f"{source} has two columns called {twice!r}", hint="rename one of them"
        )


def width_bytes(schema: pa.Schema) -> float:
    """Bytes of a row in memory: fixed widths, and 32 for each text."""
    total = 0.0
    for field in schema:
        try:
            total += max(field.type.bit_width / 8, 1)
        except ValueError:
            total += 32
    return total
