"""Chunks of any size, of any file layout, are the rows themselves with their halos."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.sources import parquet
from streamfeat.sources.chunks import NULL_TIME, Chunk, ChunkReader
from streamfeat.sources.frames import TableSource
from streamfeat.sources.opening import open_source

NUMBERS = ("x", 'q"', "größe", "", "a.b")


def panel(lengths: list[int], *, null_group: bool = False) -> pa.Table:
    """Group k has ``lengths[k]`` rows; a value is group * 1000 + row of the group + its column."""
    n_groups = len(lengths)
    names: list[str | None] = [f"g{k}" for k in range(n_groups)]
    if null_group:
        names[-1] = None
    number = np.repeat(np.arange(n_groups), lengths)
    row = np.concatenate([np.arange(n) for n in lengths])
    columns: dict[str, pa.Array] = {
        "group": pa.array([names[k] for k in number], pa.string()),
        "day": pa.array(row * 86_400_000_000, pa.timestamp("us")),
    }
    for k, name in enumerate(NUMBERS):
        values = (number * 1000 + row + k / 8).astype(np.float64)
        columns[name] = pa.array(values, mask=(row + k) % 5 == 0)
    return pa.table(columns)


def write_split(table: pa.Table, root: Path, cuts: list[int], group_rows: int) -> None:
    edges = sorted({0, table.num_rows, *(c for c in cuts if c < table.num_rows)})
    for k, (start, stop) in enumerate(pairwise(edges)):
        path = root / f"part-{k:03d}.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=group_rows)


def places(lengths: list[int]) -> np.ndarray:
    return np.concatenate([np.arange(n) for n in lengths])


def assert_is_the_rows(chunk: Chunk, table: pa.Table, place: np.ndarray) -> None:
    first = chunk.start_row - chunk.n_before
    last = chunk.start_row + chunk.n_rows + chunk.n_after
    part = table.slice(first, last - first)
    for name in NUMBERS:
        expected = [np.nan if v is None else v for v in part.column(name).to_pylist()]
        np.testing.assert_array_equal(chunk.columns[name], expected)
    np.testing.assert_array_equal(chunk.columns["day"], part.column("day").cast(pa.int64()))
    np.testing.assert_array_equal(chunk.row_in_group, place[first:last])
    keys = pa.Table.from_batches(chunk.keys)
    assert keys.to_pydict() == (
        table.select(["group", "day"]).slice(chunk.start_row, chunk.n_rows).to_pydict()
    )


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    null_group=st.booleans(),
    as_dictionary=st.booleans(),
    cuts=st.lists(st.integers(1, 250), max_size=3),
    group_rows=st.sampled_from([1, 2, 7, 50, 1000]),
    block=st.sampled_from([1, 2, 50]),
    lookback=st.integers(0, 70),
    lookahead=st.integers(0, 20),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    data=st.data(),
)
def test_chunks_of_files_are_the_rows(
    lengths: list[int],
    null_group: bool,
    as_dictionary: bool,
    cuts: list[int],
    group_rows: int,
    block: int,
    lookback: int,
    lookahead: int,
    sizes: list[int],
    data: st.DataObject,
) -> None:
    table = panel(lengths, null_group=null_group)
    start = data.draw(st.integers(0, table.num_rows - 1), label="start_row")
    stop = data.draw(st.integers(start + 1, table.num_rows), label="stop_row")
    stored = table
    if as_dictionary:
        stored = table.set_column(0, "group", table.column("group").dictionary_encode())
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        if block < 50:
            patch.setattr(parquet, "_COLUMN_BLOCK", block)
            patch.setattr(parquet, "_OPEN_BYTES", 0)
        write_split(stored, Path(root), cuts, group_rows)
        reader = ChunkReader(
            open_source(root, spill=Path(root)),
            columns=[*NUMBERS, "day"],
            group="group",
            lookback=lookback,
            lookahead=lookahead,
            passthrough=["group", "day"],
        )
        asked = iter(sizes * table.num_rows)
        row = start
        for chunk in reader.chunks(lambda: next(asked), start_row=start, stop_row=stop):
            assert chunk.start_row == row
            end = row + chunk.n_rows
            assert row - chunk.n_before == max(row - lookback, 0)
            assert end + chunk.n_after == min(end + lookahead, stop + lookahead, table.num_rows)
            assert_is_the_rows(chunk, table, places(lengths))
            row += chunk.n_rows
        assert row == stop


def reads(n_rows: int, group: str | None, start_row: int) -> Iterator[Chunk]:
    """A panel of three long groups in one giant row group, from ``start_row`` on."""
    lengths = [n_rows // 3, n_rows // 3, n_rows - 2 * (n_rows // 3)]
    number = np.repeat(np.arange(3), lengths)
    table = pa.table({"g": pa.array(number, pa.int32()), "x": np.arange(n_rows, dtype=np.float64)})
    with tempfile.TemporaryDirectory() as root:
        pq.write_table(table, Path(root) / "f.parquet", row_group_size=n_rows)
        reader = ChunkReader(
            open_source(root, spill=Path(root)), columns=["x"], group=group, lookback=3, lookahead=2
        )
        yield from reader.chunks(lambda: 8192, start_row=start_row)


@pytest.mark.parametrize("start_row", [0, 8192, 49_152, 98_304, 139_264])
def test_the_place_in_a_long_group_is_found_from_any_row(start_row: int) -> None:
    n, third = 150_000, 50_000
    for chunk in reads(n, "g", start_row):
        first = chunk.start_row - chunk.n_before
        rows = np.arange(first, first + len(chunk.row_in_group))
        np.testing.assert_array_equal(chunk.row_in_group, rows % third)
        np.testing.assert_array_equal(chunk.columns["x"], rows)


def test_without_a_group_the_place_is_the_row() -> None:
    chunk = next(reads(50_000, None, 24_576))
    np.testing.assert_array_equal(chunk.row_in_group, np.arange(24_573, 24_576 + 8192 + 2))


def test_the_arena_is_kept_from_chunk_to_chunk() -> None:
    source = TableSource(pa.table({"x": np.arange(100_000.0)}), "<t>")
    reader = ChunkReader(source, columns=["x"], group=None, lookback=100, lookahead=10)
    homes = set()
    for chunk in reader.chunks(lambda: 8192):
        homes.add(chunk.columns["x"].__array_interface__["data"][0])
    assert len(homes) <= 2  # the first chunk has no halo in front; then one size for all


def test_rows_behind_the_end_are_no_rows() -> None:
    source = TableSource(pa.table({"x": [1.0, 2.0]}), "<t>")
    reader = ChunkReader(source, columns=["x"], group=None, lookback=0, lookahead=0)
    assert [c.n_rows for c in reader.chunks(lambda: 8192, stop_row=99)] == [2]


def test_nanoseconds_are_floored_not_cut() -> None:
    table = pa.table({"t": pa.array([-1, 1999, None], pa.timestamp("ns"))})
    reader = ChunkReader(
        TableSource(table, "<t>"), columns=["t"], group=None, lookback=0, lookahead=0
    )
    (chunk,) = reader.chunks(lambda: 8)
    assert chunk.columns["t"].tolist() == [-1, 1, NULL_TIME]


def test_nan_groups_are_one_group() -> None:
    nan = float("nan")
    table = pa.table({"g": [1.0, 1.0, nan, nan, None], "x": [0.0] * 5})
    reader = ChunkReader(
        TableSource(table, "<t>"), columns=["x"], group="g", lookback=0, lookahead=0
    )
    (chunk,) = reader.chunks(lambda: 8)
    assert chunk.row_in_group.tolist() == [0, 1, 0, 1, 2]
