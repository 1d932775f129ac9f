"""Canonical order: rows by group, then time, each pair once.

This module covers: checking the order while reading only the keys, and sorting a copy into spill,
in memory where it fits and else out of core in a child process.
This module does *not* cover: the child's work (sort_child).

Text is ordered by its UTF-8 bytes, numbers by value, null groups come last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from numpy.typing import NDArray

from streamfeat import errors
from streamfeat.errors import DuplicateRowsError, RowOrderError, SourceError, StreamFeatError
from streamfeat.sources.arrays import from_integers, to_numpy
from streamfeat.sources.chunks import comparable, differs
from streamfeat.sources.parquet import ParquetSource
from streamfeat.sources.roles import Roles
from streamfeat.sources.source import Source
from streamfeat.sources.spool import (
    row_group_rows,
    spool_path,
    spool_writer,
    spooled,
    write_spool,
    writing,
)

_IN_MEMORY_FACTOR = 4
"""A sort in memory holds the table, its indices, the sorted copy and the writer's buffers."""


@dataclass
class OrderCheck:
    """What a pass over the keys found; ``first_*`` are row numbers."""

    first_unordered: int | None = None
    first_duplicate: int | None = None
    duplicate: str = ""
    n_duplicates: int = 0
    first_null_time: int | None = None


def order_source(
    source: Source,
    roles: Roles,
    *,
    spill: Path,
    memory_bytes: int,
    threads: int,
    sort: str = "auto",
    needs_order: bool = True,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Source, Roles]:
    """``source`` in canonical order, and its roles.

    Parameters
    ----------
    memory_bytes
        What the sort may use.
    sort
        "never": refuse instead of sorting.
    needs_order
        Whether a target depends on the order; if not, an inferred time that repeats without a
        group is no order, and windows are left out.

    Raises
    ------
    DuplicateRowsError
        If two rows share a (group, time) key.
    RowOrderError
        If a time is null, or rows are out of order and ``sort`` is "never".
    """
    if roles.time is None:
        return source, roles
    keys = [name for name in (roles.group, roles.time) if name]
    found = check_order(source, keys)
    _refuse_null_time(found, source, roles)
    ordered = source
    if found.first_unordered is not None:
        if sort == "never":
            raise RowOrderError(
                f"{source.name}: row {found.first_unordered:,} is out of order by "
                f"{', '.join(keys)}",
                hint='sort the data, or leave out sort="never"',
            )
        announce(f"rows are not in order of {', '.join(keys)}: sorting a copy into spill")
        ordered = sort_source(source, keys, spill=spill, memory_bytes=memory_bytes, threads=threads)
        found = check_order(ordered, keys)
        if found.first_unordered is not None:
            raise RowOrderError(
                f"{source.name}: rows cannot be put in order of {', '.join(keys)}",
                hint="convert these columns to text, whole numbers or timestamps",
            )
    if found.n_duplicates:
        if roles.group is None and not roles.time_was_given and not needs_order:
            announce(f"{roles.time} repeats and there is no group: no windows over rows")
            return source, replace(roles, ordered=False)
        raise DuplicateRowsError(
            f"{source.name}: {found.n_duplicates:,} rows repeat a key of {', '.join(keys)}; the "
            f"first is {found.duplicate}",
            hint="remove them, or name the columns that make rows unique with `group=`/`time=`",
        )
    return ordered, roles


def _refuse_null_time(found: OrderCheck, source: Source, roles: Roles) -> None:
    if found.first_null_time is not None:
        raise RowOrderError(
            f"{source.name}: time column {roles.time!r} is null in row {found.first_null_time:,}",
            hint="drop or fill rows without a time",
        )


def check_order(source: Source, keys: Sequence[str]) -> OrderCheck:
    """Look at the keys of every row: a time that is null, or else the first row out of order.

    Once a row is out of order, duplicates are counted no more.
    """
    found = OrderCheck()
    row, tail = 0, None
    for batch in source.read(0, source.n_rows, list(keys)):
        columns = [comparable(column) for column in batch.columns]
        if columns[-1].null_count:
            found.first_null_time = row + int(np.argmax(to_numpy(columns[-1].is_null())))
            return found
        if found.first_unordered is None:
            if tail is not None:
                columns = [pa.concat_arrays([t, c]) for t, c in zip(tail, columns, strict=True)]
            _compare(columns, row - (tail is not None), found)
            tail = [column.slice(len(column) - 1) for column in columns]
        row += batch.num_rows
    return found


def _compare(columns: list[pa.Array], first_row: int, found: OrderCheck) -> None:
    time = columns[-1]
    if len(time) < 2:
        return
    later, same = _time_steps(time)
    if len(columns) > 1:
        new_group = differs(columns[0])
        ascending = later | same
        borders = np.flatnonzero(new_group)
        if len(borders):
            ascending[borders] = _later_groups(columns[0], borders)
        same &= ~new_group
    else:
        ascending = later | same
    if not ascending.all():
        found.first_unordered = first_row + 1 + int(np.argmin(ascending))
    if same.any():
        place = int(np.argmax(same)) + 1
        if not found.n_duplicates:
            found.first_duplicate = first_row + place
            found.duplicate = ", ".join(str(column[place].as_py()) for column in columns)
        found.n_duplicates += int(same.sum())


def _time_steps(time: pa.Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a time, none of them null, is later than the one before, and where it is the same."""
    if pa.types.is_floating(time.type) or pa.types.is_decimal(time.type):
        return _strictly_later(time), ~differs(time)
    whole = {32: pa.int32(), 64: pa.int64()}.get(time.type.bit_width)
    values = time.view(whole) if whole and not pa.types.is_integer(time.type) else time
    step = to_numpy(values)
    return step[1:] > step[:-1], step[1:] == step[:-1]


def _later_groups(groups: pa.Array, borders: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether each group that begins after ``borders`` comes after the one it follows."""
    pairs = np.column_stack((borders, borders + 1)).ravel()
    return _strictly_later(groups.take(from_integers(pairs)))[::2]


def _strictly_later(values: pa.Array) -> NDArray[np.bool_]:
    """Where a value is greater than the one before; null is greater than any."""
    before, after = values.slice(0, len(values) - 1), values.slice(1)
    later = to_numpy(pc.less(before, after), null=False)
    if values.null_count:
        nulls = to_numpy(values.is_null())
        later = later | (~nulls[:-1] & nulls[1:])
    return later


def sort_source(
    source: Source, keys: Sequence[str], *, spill: Path, memory_bytes: int, threads: int
) -> Source:
    """A sorted copy of ``source`` in ``spill``; the same rows in the same order either way."""
    path = spool_path(spill, "sorted")
    needed = source.n_rows * source.nbytes_per_row * _IN_MEMORY_FACTOR
    with writing(path):
        if needed <= memory_bytes:
            _sort_in_memory(source, keys, path)
        else:
            _sort_out_of_core(source, keys, path, memory_bytes=memory_bytes, threads=threads)
        return spooled(path, source.name)


def _sort_in_memory(source: Source, keys: Sequence[str], path: Path) -> None:
    batches = source.read(0, source.n_rows, source.schema().names)
    table = pa.Table.from_batches(batches, schema=source.schema())
    values = [
        pa.concat_arrays([comparable(chunk) for chunk in table.column(key).chunks]) for key in keys
    ]
    places = [f"k{n}" for n in range(len(keys))]
    order = pc.sort_indices(
        pa.table(values, names=places), sort_keys=[(place, "ascending") for place in places]
    )
    del values
    step = row_group_rows(source.nbytes_per_row)
    with spool_writer(path, source.schema()) as writer:
        for start in range(0, len(order), step):
            writer.write_table(table.take(order.slice(start, step)))


def _sort_out_of_core(
    source: Source, keys: Sequence[str], path: Path, *, memory_bytes: int, threads: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="sorting-", dir=path.parent) as work:
        local = _local_files(source, Path(work))
        _run_child(
            {
                "files": [[file.path, file.constants] for file in local.files],
                "name": source.name,
                "keys": [source.schema().get_field_index(key) for key in keys],
                "output": str(path),
                "temporary": work,
                "memory_bytes": memory_bytes,
                "threads": threads,
            }
        )


def _local_files(source: Source, work: Path) -> ParquetSource:
    """Files that another process can open: the source's own, or a copy in ``work``."""
    if isinstance(source, ParquetSource) and isinstance(source.filesystem, pafs.LocalFileSystem):
        return source
    path = spool_path(work, "copy")
    batches = source.read(0, source.n_rows, source.schema().names)
    write_spool(path, source.schema(), batches, nbytes_per_row=source.nbytes_per_row)
    return spooled(path, source.name)


def _run_child(request: dict[str, Any]) -> None:
    """Sort in a process of its own; it is gone when this returns or raises."""
    root = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "streamfeat.sources.sort_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([root, known] if known else [root]),
            "PYTHONIOENCODING": "utf-8",
        },
    ) as child:
        try:
            out, trouble = child.communicate(json.dumps(request))
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise _child_error(out, trouble, child.returncode)


def _child_error(out: str, trouble: str, code: int) -> StreamFeatError:
    try:
        told = json.loads(out.strip().splitlines()[-1])
        kind = getattr(errors, told["error"], SourceError)
        return kind(told["message"], hint=told["hint"])
    except (ValueError, KeyError, IndexError, TypeError):
        last = trouble.strip().splitlines()[-1:] or ["no message"]
        return SourceError(
            f"sorting failed: the process ended with {code}: {last[0]}",
            hint="give more `memory`, or sort the data yourself",
        )
