"""Files: footers that disagree, layouts of any size, names of any kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamfeat import errors
from streamfeat.sources import footers, parquet
from streamfeat.sources.opening import open_source
from streamfeat.sources.source import BASE_BATCH_ROWS, Source

HOSTILE = [
    "",
    "a",
    "a.b",
    "a.b.c",
    "a.",
    "`",
    '"',
    "'; DROP TABLE x",
    "ü",
    "A",
    "\n",
    "c0",
    "*",
    "/",
]


def whole(source: Source) -> pa.Table:
    batches = source.read(0, source.n_rows, source.schema().names)
    return pa.Table.from_batches(batches, schema=source.schema())


def opened(path: Path) -> parquet.ParquetSource:
    source = open_source(path, spill=path.parent)
    assert isinstance(source, parquet.ParquetSource)
    return source


def test_hostile_names_are_names(tmp_path: Path) -> None:
    table = pa.table({name: [float(k)] for k, name in enumerate(HOSTILE)})
    pq.write_table(table, tmp_path / "f.parquet")
    source = opened(tmp_path / "f.parquet")
    assert whole(source).equals(table)
    for k, name in enumerate(HOSTILE):
        (batch,) = source.read(0, 1, [name])
        assert batch.to_pydict() == {name: [float(k)]}
        assert source.column(name).minimum == float(k)


def test_a_nested_leaf_is_not_taken_for_a_column_of_its_path(tmp_path: Path) -> None:
    table = pa.table({"a.b": [5.0], "a": [{"b": 1}]})
    pq.write_table(table, tmp_path / "f.parquet")
    source = opened(tmp_path / "f.parquet")
    assert (source.column("a.b").minimum, source.column("a").minimum) == (5.0, None)
    (batch,) = source.read(0, 1, ["a.b"])
    assert batch.to_pydict() == {"a.b": [5.0]}


def test_two_columns_of_one_name_in_a_file_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(errors.EmptySourceError, match=r"f\.parquet has two columns called 'x'"):
        opened(tmp_path / "f.parquet")


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = [f"column {k}" for k in range(10_000)]
    table = pa.table({name: [float(k)] for k, name in enumerate(names)})
    pq.write_table(table, tmp_path / "f.parquet")
    source = opened(tmp_path / "f.parquet")
    assert source.column_blocks(names) == [names]
    assert whole(source).equals(table)


def test_wide_files_of_large_row_groups_are_read_in_stripes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 3 * BASE_BATCH_ROWS + 5
    table = pa.table(
        {
            **{f"x{k}": np.arange(n, dtype=np.float64) * k for k in range(7)},
            "s": pa.array([str(k % 100) for k in range(n)]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=n - 100)
    monkeypatch.setattr(parquet, "_COLUMN_BLOCK", 3)
    monkeypatch.setattr(parquet, "_OPEN_BYTES", 0)
    monkeypatch.setattr(parquet, "_STRIPE_BYTES", 2 * BASE_BATCH_ROWS * 57)
    source = opened(tmp_path / "f.parquet")
    assert len(source.column_blocks(table.column_names)) == 3
    batches = list(source.read(10, n - 1, table.column_names))
    assert max(batch.num_rows for batch in batches) <= BASE_BATCH_ROWS
    made = pa.Table.from_batches(batches)
    for name in table.column_names:
        assert made.column(name).to_pylist() == table.column(name).to_pylist()[10 : n - 1]


@pytest.mark.parametrize("stops", ["in the page", "at the footer"])
def test_files_cut_short_are_named(stops: str, tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).normal(size=5000)}), path)
    data = path.read_bytes()
    if stops == "in the page":  # the middle is lost, the footer is whole
        path.write_bytes(data[:1000] + bytes(len(data) - 3000) + data[-2000:])
        with pytest.raises(errors.CorruptSourceError, match=r"f\.parquet cannot be read.*groups 0"):
            whole(opened(path))
    else:
        path.write_bytes(data[:-4])
        with pytest.raises(errors.CorruptSourceError, match="no complete Parquet file"):
            opened(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"a,b\n1,2\n" * 9])
def test_what_is_no_parquet_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(content)
    with pytest.raises(errors.CorruptSourceError, match=r"f\.parquet is no complete Parquet file"):
        opened(path)


@pytest.mark.parametrize("how", ["removed", "written anew"])
def test_a_file_lost_while_it_is_read_is_no_corruption(how: str, tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"x": np.arange(100_000.0)}), path)
    source = opened(path)
    if how == "removed":
        path.unlink()
    else:
        pq.write_table(pa.table({"y": ["a"]}), path)
    with pytest.raises(errors.SourceChangedError, match=r"f\.parquet was changed or removed"):
        whole(source)


def test_the_fingerprint_changes_with_the_rows(tmp_path: Path) -> None:
    import os

    path = tmp_path / "f.parquet"
    prints = []
    for value in (1.0, 1.0, 2.0):
        pq.write_table(pa.table({"x": [value]}), path)
        os.utime(path, ns=(0, 0))
        prints.append(opened(path).fingerprint())
    assert prints[0] == prints[1] != prints[2]


DRIFT: dict[str, tuple[dict[str, Any], str]] = {
    "narrower": ({"x": pa.array([1.0], pa.float32())}, "'x' is float, in .* it is double"),
    "case": ({"X": [1.0]}, "has no column 'x', but 'X', which"),
    "zone": ({"x": pa.array([1], pa.timestamp("us", tz="UTC"))}, r"'x' is timestamp\[us, tz=UTC\]"),
}


@pytest.mark.parametrize("case", DRIFT)
def test_drift_names_file_and_column(case: str, tmp_path: Path) -> None:
    columns, message = DRIFT[case]
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    with pytest.raises(errors.SchemaDriftError, match=rf"b\.parquet.*{message}"):
        opened(tmp_path)


def test_statistics_are_summed_over_files_and_left_out_where_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"x": [3, None, 5]}), tmp_path / "a.parquet", row_group_size=1)
    pq.write_table(pa.table({"x": [1, 4]}), tmp_path / "b.parquet")
    column = opened(tmp_path).column("x")
    assert (column.n_null, column.minimum, column.maximum) == (1, None, None)
    pq.write_table(pa.table({"x": [3, 5]}), tmp_path / "a.parquet", row_group_size=1)
    column = opened(tmp_path).column("x")
    assert (column.n_null, column.minimum, column.maximum) == (0, 1, 5)
    monkeypatch.setattr(footers, "_MOST_CHUNKS", 2)
    assert opened(tmp_path).column("x").n_null is None


def test_long_text_counts_in_a_row_s_width(tmp_path: Path) -> None:
    for text, least, most in (("short", 40, 41), ("long " * 400, 2000, 2100)):
        table = pa.table({"x": np.arange(2000.0), "s": [text] * 2000})
        pq.write_table(table, tmp_path / "f.parquet")
        assert least <= opened(tmp_path / "f.parquet").nbytes_per_row <= most


SCRIPT = """
import sys
from pathlib import Path
from streamfeat.memory.probe import peak_bytes
from streamfeat.sources.opening import open_source

def rows_of(path):
    source = open_source(path, spill=Path("."))
    return sum(batch.num_rows for batch in source.read(0, source.n_rows, source.schema().names))

rows_of(sys.argv[1])
before = peak_bytes()
print(rows_of(sys.argv[2]), peak_bytes() - before)
"""


@pytest.mark.parametrize("row_group_rows", [100, 3_000_000])
def test_reading_takes_little_memory_whatever_the_row_groups(
    row_group_rows: int, tmp_path: Path
) -> None:
    n = 200_000 if row_group_rows == 100 else 3_000_000
    table = pa.table({f"x{k}": np.random.default_rng(k).normal(size=n) for k in range(3)})
    path = tmp_path / "f.parquet"
    pq.write_table(table, path, row_group_size=row_group_rows, compression="none")
    first = tmp_path / "first.parquet"
    pq.write_table(table.slice(0, 1000), first)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(first), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == n
    assert grown < 30e6  # the file has 72 MB where its row group is giant
