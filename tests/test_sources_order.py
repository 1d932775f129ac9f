"""Canonical order: one order in memory and out of core, and nothing left in spill."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat import errors
from streamfeat.sources import order
from streamfeat.sources.frames import TableSource
from streamfeat.sources.opening import open_source
from streamfeat.sources.order import check_order, order_source, sort_source
from streamfeat.sources.roles import infer_roles
from streamfeat.sources.source import BASE_BATCH_ROWS, Source

AMPLE, NONE = 10**9, 0


def whole(source: Source) -> pa.Table:
    batches = source.read(0, source.n_rows, source.schema().names)
    return pa.Table.from_batches(batches, schema=source.schema())


def moments(days: list[int | None], unit: str = "us") -> pa.Array:
    start = dt.datetime(2020, 1, 1)
    made = [None if d is None else start + dt.timedelta(days=d) for d in days]
    return pa.array(made, pa.timestamp(unit))


def every_type() -> pa.Table:
    """Five rows, out of order, of every type a column may have."""
    n = 5
    plain: dict[str, Any] = {
        "g": ["b", "a", "c", "a\0", "é"],
        "t": moments(list(range(n))),
        "bool": [True, None, False, True, True],
        "int8": pa.array([1, 2, 3, None, 5], pa.int8()),
        "uint64": pa.array([2**63 + k for k in range(n)], pa.uint64()),
        "half": pa.array(np.arange(n, dtype=np.float16)),
        "single": pa.array(range(n), pa.float32()),
        "double": [1.0, float("nan"), None, float("inf"), -0.0],
        "decimal": pa.array([Decimal(k) / 4 for k in range(n)], pa.decimal128(30, 5)),
        "wide decimal": pa.array([Decimal(k) / 4 for k in range(n)], pa.decimal256(50, 5)),
        "date": pa.array([dt.date(2020, 1, 1 + k) for k in range(n)]),
        "ms": moments([0, 1, None, 3, 4], "ms"),
        "ns zone": pa.array([10**18 + k for k in range(n)], pa.timestamp("ns", tz="Asia/Tokyo")),
        "time": pa.array(range(n), pa.time64("ns")),
        "duration": pa.array(range(n), pa.duration("ns")),
        "bytes": [b"a\xff", b"", None, b"c", b"d"],
        "fixed bytes": pa.array([b"abcd"] * n, pa.binary(4)),
        "large text": pa.array(["x", "y", None, "", "z"], pa.large_string()),
        "category": pa.array(["x", "y", "x", None, "z"]).dictionary_encode(),
        "nothing": pa.nulls(n),
        "list": pa.array([[1, 2], None, [], [3], [4]], pa.list_(pa.int32())),
        "struct": [{"a": k, "b": "x"} for k in range(n)],
    }
    return pa.table(plain)


def test_every_type_is_sorted_alike_in_memory_and_out_of_core(tmp_path: Path) -> None:
    table = every_type()
    source = TableSource(table, "<t>")
    sorted_rows = table.take([1, 3, 0, 2, 4])
    for memory_bytes in (AMPLE, NONE):
        made = sort_source(source, ["g", "t"], spill=tmp_path, memory_bytes=memory_bytes, threads=1)
        for name in table.column_names:
            expected = sorted_rows.column(name)
            got = whole(made).column(name)
            assert got.type == expected.type, name
            assert repr(got.to_pylist()) == repr(expected.to_pylist()), name


KEYS = {
    "text": ["b", None, "", "a", "B", "é", "z\U0001f986", "aa"],
    "whole": [3, None, -1, 0, 2**40, 7, 8, 9],
    "float": [1.5, None, float("nan"), -0.5, 1e300, 2.0, 3.0, -1e300],
    "day": [dt.date(2020, 1, 1 + k) for k in range(7)] + [None],
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("memory_bytes", [AMPLE, NONE])
def test_groups_come_in_order_with_nulls_last(kind: str, memory_bytes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = KEYS[kind]
    picked = rng.permutation(np.repeat(np.arange(len(values)), 5))
    table = pa.table(
        {"g": pa.array([values[k] for k in picked]), "t": rng.permutation(len(picked))}
    )
    source = TableSource(table, "<t>")
    made = sort_source(source, ["g", "t"], spill=tmp_path, memory_bytes=memory_bytes, threads=2)
    found = check_order(made, ["g", "t"])
    assert (found.first_unordered, found.n_duplicates) == (None, 0)
    groups = whole(made).column("g").to_pylist()
    known = [g for g in groups if g is not None and g == g]
    as_bytes = [g.encode() if isinstance(g, str) else g for g in known]
    assert as_bytes == sorted(as_bytes)
    assert all(g is None or g != g for g in groups[len(known) :])


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 9)), min_size=1, max_size=30
    ),
    st.integers(1, 4),
)
def test_the_check_agrees_with_looking_at_neighbours(
    rows: list[tuple[str | None, int]], batch_rows: int
) -> None:
    def rank(row: tuple[str | None, int]) -> tuple[bool, str, int]:
        return (row[0] is None, row[0] or "", row[1])

    table = pa.table({"g": pa.array([g for g, _ in rows], pa.string()), "t": [t for _, t in rows]})
    pieces = [table.slice(k, batch_rows) for k in range(0, len(rows), batch_rows)]
    found = check_order(TableSource(pa.concat_tables(pieces), "<t>"), ["g", "t"])
    pairs = list(pairwise(rows))
    unordered = [k + 1 for k, (a, b) in enumerate(pairs) if rank(b) < rank(a)]
    assert found.first_unordered == (unordered[0] if unordered else None)
    if not unordered:
        assert found.n_duplicates == sum(a == b for a, b in pairs)


def ordered(source: Source, tmp_path: Path, **named: Any) -> Source:
    roles = infer_roles(source, **named)
    return order_source(source, roles, spill=tmp_path, memory_bytes=AMPLE, threads=1)[0]


@pytest.mark.parametrize("lost", [None, float("nan")])
def test_a_lost_time_is_found_behind_a_row_out_of_order(lost: float | None, tmp_path: Path) -> None:
    n = 2 * BASE_BATCH_ROWS + 10  # the batch in between ends the looking for order
    time = [float(k) for k in range(n)]
    time[0], time[-1] = 5.5, lost  # type: ignore[call-overload]
    source = TableSource(pa.table({"t": pa.array(time, pa.float64()), "x": [0.0] * n}), "<t>")
    with pytest.raises(errors.RowOrderError, match=rf"'t' is null in row {n - 1:,}"):
        ordered(source, tmp_path, time="t")
    assert list(tmp_path.iterdir()) == []


def test_a_duplicate_across_a_batch_border_is_found(tmp_path: Path) -> None:
    days = [*range(BASE_BATCH_ROWS), BASE_BATCH_ROWS - 1, BASE_BATCH_ROWS]
    table = pa.table({"time": pa.array(days, pa.timestamp("s")), "x": [0.0] * len(days)})
    with pytest.raises(errors.DuplicateRowsError, match=r"1 rows repeat a key of time; the first"):
        ordered(TableSource(table, "<t>"), tmp_path, time="time")


def test_categories_that_differ_from_file_to_file_are_sorted(tmp_path: Path) -> None:
    for k, names in enumerate((["b", "c"], ["a", "d"])):
        column = pa.array(names).dictionary_encode()
        table = pa.table({"symbol": column, "time": moments([1, 1]), "x": [1.0 * k, 2.0 * k]})
        pq.write_table(table, tmp_path / f"{k}.parquet")
    source = open_source([tmp_path / "0.parquet", tmp_path / "1.parquet"], spill=tmp_path)
    for memory_bytes in (AMPLE, NONE):
        made = sort_source(
            source, ["symbol", "time"], spill=tmp_path, memory_bytes=memory_bytes, threads=1
        )
        assert whole(made).column("symbol").to_pylist() == ["a", "b", "c", "d"]
        assert made.schema() == source.schema()


def test_a_remote_source_is_sorted_out_of_core_and_its_copy_removed(tmp_path: Path) -> None:
    import fsspec

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"t": [3, 1, 2], 'odd "name': [0.3, 0.1, 0.2]}), sink)
    fsspec.filesystem("memory").pipe("/sorting/f.parquet", sink.getvalue().to_pybytes())
    source = open_source("memory://sorting/f.parquet", spill=tmp_path)
    made = sort_source(source, ["t"], spill=tmp_path, memory_bytes=NONE, threads=1)
    assert whole(made).to_pydict() == {"t": [1, 2, 3], 'odd "name': [0.1, 0.2, 0.3]}
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("sorted-")


def test_sorted_copies_have_modest_row_groups(tmp_path: Path) -> None:
    n = 150_000
    source = TableSource(pa.table({"t": np.arange(n)[::-1].copy()}), "<t>")
    for memory_bytes in (AMPLE, NONE):
        made = sort_source(source, ["t"], spill=tmp_path, memory_bytes=memory_bytes, threads=2)
        metadata = made.files[0].metadata  # type: ignore[attr-defined]
        sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        assert sizes == [65_536, 65_536, n - 131_072]


def test_a_failed_sort_in_memory_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise KeyboardInterrupt

    source = TableSource(pa.table({"t": [2, 1]}), "<t>")
    monkeypatch.setattr(order, "row_group_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        sort_source(source, ["t"], spill=tmp_path, memory_bytes=AMPLE, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_the_sorting_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def communicate(self, *_: Any, **__: Any) -> Any:
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    source = TableSource(pa.table({"t": [2, 1]}), "<t>")
    with pytest.raises(KeyboardInterrupt):
        sort_source(source, ["t"], spill=tmp_path, memory_bytes=NONE, threads=1)
    assert started[0].returncode is not None
    assert list(tmp_path.iterdir()) == []


def test_the_sorting_process_names_what_the_engine_refuses(tmp_path: Path) -> None:
    request = {
        "files": [[str(tmp_path / "gone.parquet"), []]],
        "name": "gone",
        "keys": [0],
        "output": str(tmp_path / "out.parquet"),
        "temporary": str(tmp_path),
        "memory_bytes": 0,
        "threads": 1,
    }
    done = subprocess.run(
        [sys.executable, "-m", "streamfeat.sources.sort_child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["error"] == "SourceNotFoundError"
    assert "gone.parquet does not exist" in told["message"]


def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    source = TableSource(pa.table({"t": [2, 1]}), "<t>")
    with pytest.raises(errors.OutputError, match=r"nowhere cannot be written"):
        sort_source(source, ["t"], spill=tmp_path / "nowhere", memory_bytes=AMPLE, threads=1)


@pytest.mark.parametrize(
    ("column", "message"),
    [("time", "time column 'z' is .*; it cannot order rows"), ("group", "group column 'z' is")],
)
def test_keys_of_no_order_are_refused(column: str, message: str) -> None:
    source = TableSource(pa.table({"z": [[1], [2]], "t": [1, 2]}), "<t>")
    with pytest.raises(errors.RowOrderError, match=message):
        infer_roles(source, **{"time": "t", column: "z"})  # type: ignore[arg-type]


@pytest.mark.parametrize("memory_bytes", [AMPLE, NONE])
def test_rows_of_one_key_stay_whole_and_as_they_lie(memory_bytes: int, tmp_path: Path) -> None:
    n, key = 5000, np.arange(5000) % 7
    table = pa.table({"t": key, **{f"x{k}": np.arange(n) * 100 + k for k in range(40)}})
    source = TableSource(table, "<t>")
    made = sort_source(source, ["t"], spill=tmp_path, memory_bytes=memory_bytes, threads=2)
    assert whole(made).equals(table.take(np.argsort(key, kind="stable")))
