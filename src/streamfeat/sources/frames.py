"""Tables in memory as sources.

This module covers: Arrow tables, and what can be viewed as one.
This module does *not* cover: deciding what an object is (opening).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa

from streamfeat.errors import EmptySourceError
from streamfeat.sources.footers import without_views
from streamfeat.sources.source import (
    BASE_BATCH_ROWS,
    ColumnInfo,
    check_names,
    find_column,
    width_bytes,
)


def _without_views(table: pa.Table) -> pa.Table:
    for k, field in enumerate(table.schema):
        plain = without_views(field.type)
        if plain != field.type:
            table = table.set_column(k, field.with_type(plain), table.column(k).cast(plain))
    return table


class TableSource:
    """An Arrow table as a source.

    Examples
    --------
    >>> source = TableSource(pa.table({"x": [1, 2, 3]}), "<table>")
    >>> [batch.num_rows for batch in source.read(1, 3, ["x"])]
    [2]
    """

    def __init__(self, table: pa.Table, name: str) -> None:
        check_names(table.column_names, name)
        if table.num_rows == 0:
            raise EmptySourceError(f"{name} has no rows")
        self.table = _without_views(table)
        self.name = name
        self.n_rows: int = table.num_rows

    @cached_property
    def columns(self) -> tuple[ColumnInfo, ...]:
        return tuple(
            ColumnInfo(
                field.name,
                field.type,
                n_null=self.table.column(k).null_count,
                nbytes=self.table.column(k).nbytes,
            )
            for k, field in enumerate(self.table.schema)
        )

    @cached_property
    def nbytes_per_row(self) -> float:
        return max(self.table.nbytes / self.n_rows, width_bytes(self.table.schema))

    def schema(self) -> pa.Schema:
        return self.table.schema.remove_metadata()

    def column(self, name: str) -> ColumnInfo:
        return find_column(self.columns, name, self.name)

    def column_blocks(self, columns: Sequence[str]) -> list[list[str]]:
        """One block: a table costs nothing to read."""
        return [list(columns)]

    def read(
        self, start_row: int, stop_row: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        part = self.table.select(list(columns)).slice(start_row, stop_row - start_row)
        yield from part.to_batches(max_chunksize=BASE_BATCH_ROWS)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self.schema()).encode())
        for column in self.table.columns:
            for chunk in column.chunks:
                digest.update(str((len(chunk), chunk.offset)).encode())
                for buffer in chunk.buffers():
                    if buffer is not None:
                        digest.update(buffer)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Arrow tables do not change."""
