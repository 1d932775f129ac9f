"""Opening anything, reading it in chunks of any size, and putting it in order."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfeat.errors import (
    ColumnNotFoundError,
    CorruptSourceError,
    DuplicateRowsError,
    EmptySourceError,
    RowOrderError,
    SchemaDriftError,
    SourceChangedError,
    SourceNotFoundError,
    UnsupportedSourceError,
)
from streamfeat.sources import order
from streamfeat.sources.chunks import NULL_TIME, ChunkReader
from streamfeat.sources.frames import TableSource
from streamfeat.sources.opening import open_source
from streamfeat.sources.order import order_source
from streamfeat.sources.roles import Roles, infer_roles
from streamfeat.sources.source import Source

ROWS = 1000


def bars(n: int = ROWS) -> pa.Table:
    """Values name their own address: close is symbol * 1000 + row of the symbol."""
    symbol = np.repeat(np.arange(-(-n // 100)), 100)[:n]
    day = np.arange(n) % 100
    return pa.table(
        {
            "symbol": pa.array([f"s{k:02d}" for k in symbol]),
            "timestamp": pa.array(
                [dt.datetime(2020, 1, 1) + dt.timedelta(days=int(d)) for d in day],
                pa.timestamp("us"),
            ),
            "close": (symbol * 1000 + day).astype(np.float64),
            "volume": pa.array([None if k % 7 == 0 else k for k in range(n)], pa.int64()),
        }
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bars.parquet"
    pq.write_table(bars(), path, row_group_size=137, write_page_checksum=True)
    return path


def whole(source: Source) -> pa.Table:
    names = source.schema().names
    return pa.Table.from_batches(source.read(0, source.n_rows, names), schema=source.schema())


def same_rows(source: Source, table: pa.Table) -> bool:
    made = whole(source)
    return all(
        made.column(n).to_pylist() == table.column(n).to_pylist() for n in table.column_names
    )


def every_kind(tmp_path: Path) -> dict[str, Any]:
    import duckdb
    import fsspec
    import polars as pl

    table = bars()
    path = tmp_path / "one.parquet"
    pq.write_table(table, path)
    parts = tmp_path / "parts"
    parts.mkdir()
    for k in range(3):
        pq.write_table(table.slice(k * 400, 400), parts / f"p{k}.parquet")
    with fsspec.open("memory://bucket/one.parquet", "wb") as remote:
        remote.write(path.read_bytes())
    relation = duckdb.connect().from_arrow(table)
    return {
        "path": path,
        "text": str(path),
        "directory": parts,
        "glob": str(parts / "*.parquet"),
        "list": sorted(map(str, parts.iterdir())),
        "url": "memory://bucket/one.parquet",
        "dataset": ds.dataset(path),
        "table": table,
        "reader": table.to_reader(),
        "polars": pl.DataFrame(table),
        "lazy": pl.DataFrame(table).lazy(),
        "pandas": table.to_pandas(),
        "relation": relation,
        "arrow stream": OnlyAStream(table),
    }


class OnlyAStream:
    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, schema: object = None) -> object:
        return self._table.to_reader().__arrow_c_stream__(schema)


KINDS = [
    "path", "text", "directory", "glob", "list", "url", "dataset", "table", "reader", "polars",
    "lazy", "pandas", "relation", "arrow stream",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    source = open_source(every_kind(tmp_path)[kind], spill=spill)
    table = bars()
    assert source.n_rows == ROWS
    got = whole(source)
    for name in ("symbol", "close"):
        assert got.column(name).to_pylist() == table.column(name).to_pylist()
    volume = got.column("volume").cast(pa.float64())
    assert (
        pc.fill_null(volume, -1.0).to_pylist()
        == pc.fill_null(table.column("volume").cast(pa.float64()), -1.0).to_pylist()
    )


def test_a_named_pandas_index_is_columns(tmp_path: Path) -> None:
    frame = bars().to_pandas()
    indexed = open_source(frame.set_index(["symbol", "timestamp"]), spill=tmp_path)
    roles = infer_roles(indexed)
    assert (roles.group, roles.time) == ("symbol", "timestamp")
    plain = open_source(frame.set_index(np.arange(ROWS) * 3), spill=tmp_path)
    assert plain.schema().names == list(frame.columns)


def test_numpy_columns_are_named_by_place(tmp_path: Path) -> None:
    source = open_source(np.arange(6.0).reshape(3, 2), spill=tmp_path)
    assert source.schema().names == ["x0", "x1"]
    assert whole(source).column("x1").to_pylist() == [1.0, 3.0, 5.0]


def test_hive_directories_become_columns(tmp_path: Path) -> None:
    for year in (2020, 2021):
        for city in ("a b", "ß"):
            place = tmp_path / f"year={year}" / f"city={city}"
            place.mkdir(parents=True)
            pq.write_table(pa.table({"x": [1.0, 2.0]}), place / "f.parquet")
    source = open_source(tmp_path, spill=tmp_path)
    made = whole(source)
    assert made.schema.field("year").type == pa.int64()
    assert set(made.column("city").to_pylist()) == {"a b", "ß"}
    assert made.num_rows == 8


def test_a_path_with_glob_letters_is_taken_literally(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a[1].parquet")
    pq.write_table(pa.table({"x": [2.0]}), tmp_path / "a1.parquet")
    source = open_source(tmp_path / "a[1].parquet", spill=tmp_path)
    assert whole(source).column("x").to_pylist() == [1.0]


@settings(max_examples=40)
@given(
    st.integers(1, 400),
    st.integers(0, ROWS - 1),
    st.integers(0, 130),
    st.integers(0, 30),
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
)
def test_chunks_of_any_size_are_the_rows_with_their_halos(
    group_rows: int, start: int, lookback: int, lookahead: int, sizes: list[int]
) -> None:
    table = bars()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=group_rows)
    source = TableSource(pq.read_table(pa.BufferReader(sink.getvalue())), "<t>")
    asked = iter(sizes * ROWS)
    reader = ChunkReader(
        source,
        columns=["close", "volume", "timestamp"],
        group="symbol",
        lookback=lookback,
        lookahead=lookahead,
        passthrough=["symbol"],
    )
    close = table.column("close").to_numpy()
    position = np.arange(ROWS) % 100
    row = start
    for chunk in reader.chunks(lambda: next(asked), start_row=start):
        assert chunk.start_row == row
        first, last = row - chunk.n_before, row + chunk.n_rows + chunk.n_after
        assert first == max(row - lookback, 0) or first == max(start - lookback, 0)
        assert last == min(row + chunk.n_rows + lookahead, ROWS)
        np.testing.assert_array_equal(chunk.columns["close"], close[first:last])
        np.testing.assert_array_equal(chunk.row_in_group, position[first:last])
        names = [v for batch in chunk.keys for v in batch.column(0).to_pylist()]
        assert names == table.column("symbol").to_pylist()[row : row + chunk.n_rows]
        row += chunk.n_rows
    assert row == ROWS


@pytest.mark.parametrize("group_rows", [100, ROWS])
def test_files_read_in_spans_with_tiny_and_giant_row_groups(
    tmp_path: Path, group_rows: int
) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(bars(), path, row_group_size=group_rows)
    source = open_source(path, spill=tmp_path)
    for start, stop in ((0, 1), (99, 301), (500, ROWS), (999, 1000)):
        batches = list(source.read(start, stop, ["volume", "close"]))
        made = pa.Table.from_batches(batches)
        assert made.equals(bars().select(["volume", "close"]).slice(start, stop - start))


def test_many_columns_are_read_in_blocks(tmp_path: Path) -> None:
    names = [f'c{k} "odd`' for k in range(130)]
    table = pa.table({name: np.arange(40.0) + k for k, name in enumerate(names)})
    pq.write_table(table, tmp_path / "wide.parquet", row_group_size=7)
    source = open_source(tmp_path / "wide.parquet", spill=tmp_path)
    made = pa.Table.from_batches(source.read(3, 31, names))
    assert made.equals(table.slice(3, 28))


def test_numbers_and_times_of_every_type(tmp_path: Path) -> None:
    from decimal import Decimal

    moment = dt.datetime(2021, 5, 6, 7, 8, 9, 123456)
    table = pa.table(
        {
            "bool": [True, None],
            "u64": pa.array([2**63, 1], pa.uint64()),
            "f32": pa.array([float("inf"), 1.5], pa.float32()),
            "dec": pa.array([Decimal("1.25"), None], pa.decimal128(9, 2)),
            "date": pa.array([moment.date(), None], pa.date32()),
            "ns": pa.array([moment, None], pa.timestamp("ns")),
            "s": pa.array([moment.replace(microsecond=0), None], pa.timestamp("s")),
            "zone": pa.array([moment, None], pa.timestamp("us", tz="America/New_York")),
        }
    )
    reader = ChunkReader(
        TableSource(table, "<t>"),
        columns=table.column_names,
        group=None,
        lookback=0,
        lookahead=0,
    )
    (chunk,) = reader.chunks(lambda: 10)
    got = {name: values.tolist() for name, values in chunk.columns.items()}
    assert got["bool"][0] == 1.0 and np.isnan(got["bool"][1])
    assert got["u64"] == [2.0**63, 1.0]
    assert np.isnan(got["f32"][0]) and got["f32"][1] == 1.5
    assert got["dec"][0] == 1.25
    micro = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    assert got["ns"] == [micro, NULL_TIME] and got["zone"][0] == micro
    assert got["date"][0] == micro // 86_400_000_000 * 86_400_000_000
    assert got["s"][0] == micro // 1_000_000 * 1_000_000


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["symbol", "timestamp", "open", "high", "low", "close", "volume"], "OHLCV"),
        (["Ticker", "Date", "Open", "High", "Low", "Close", "Volume"], "OHLCV"),
        (["pair", "open_time", "o", "h", "l", "c", "v"], "OHLCV"),
        (["SYM", "ts", "OPEN", "HIGH", "LOW", "LAST", "VOL"], "OHLCV"),
        (["code", "trade-date", "Open Price", "High Price", "Low Price", "Close Price"], "OHLC="),
    ],
)
def test_roles_by_common_spellings(names: list[str], expected: str) -> None:
    columns: dict[str, Any] = {
        names[0]: ["a"],
        names[1]: pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("us")),
    }
    columns |= {name: [1.0] for name in names[2:]}
    roles = infer_roles(TableSource(pa.table(columns), "<t>"))
    assert (roles.group, roles.time) == (names[0], names[1])
    assert roles.is_ohlcv and roles.close == names[5]
    assert expected in roles.announce()


def test_letters_alone_are_no_bars_unless_all_are_there() -> None:
    source = TableSource(pa.table({"c": [1.0], "v": [1.0], "t": [1.0]}), "<t>")
    roles = infer_roles(source)
    assert roles.close is None and roles.time is None and roles.numeric == ("c", "v", "t")


def test_bars_can_be_given() -> None:
    table = pa.table({"px": [1.0], "qty": [2.0], "word": ["a"]})
    source = TableSource(table, "<t>")
    roles = infer_roles(source, bars={"close": "px"})
    assert roles.close == "px" and not roles.is_ohlcv
    with pytest.raises(UnsupportedSourceError, match="'word' is string; it cannot be open"):
        infer_roles(source, bars={"open": "word"})
    with pytest.raises(ColumnNotFoundError, match="no column 'p'"):
        infer_roles(source, bars={"close": "p"})


def shuffled(seed: int = 0) -> pa.Table:
    return bars().take(np.random.default_rng(seed).permutation(ROWS))


@pytest.mark.parametrize("memory_bytes", [10**9, 10**5])
def test_sorting_in_memory_and_out_of_core_agree(tmp_path: Path, memory_bytes: int) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(shuffled(), path)
    source = open_source(path, spill=tmp_path)
    told: list[str] = []
    ordered, _ = order_source(
        source,
        infer_roles(source),
        spill=tmp_path,
        memory_bytes=memory_bytes,
        threads=2,
        announce=told.append,
    )
    assert same_rows(ordered, bars())
    assert "sorting a copy" in told[0]


def test_nulls_and_numbers_order_like_the_engine(tmp_path: Path) -> None:
    group = pa.array([None, "b", "B", "ä", "a", None, "aa"])
    table = pa.table({"g": group, "t": pa.array([2, 1, 1, 1, 1, 1, 1], pa.int32()), "x": range(7)})
    source = TableSource(table, "<t>")
    roles = infer_roles(source, time="t", group="g")
    made = [
        whole(order_source(source, roles, spill=tmp_path, memory_bytes=m, threads=1)[0])
        for m in (10**9, 0)
    ]
    assert made[0].column("g").to_pylist() == ["B", "a", "aa", "b", "ä", None, None]
    assert made[0].equals(made[1])


def test_ordered_rows_are_not_copied(file: Path, tmp_path: Path) -> None:
    source = open_source(file, spill=tmp_path)
    ordered, _ = order_source(
        source, infer_roles(source), spill=tmp_path, memory_bytes=0, threads=1
    )
    assert ordered is source


def roles_of(source: Source, **named: Any) -> Roles:
    return infer_roles(source, **named)


def test_rows_out_of_order_are_refused_on_request(tmp_path: Path) -> None:
    source = TableSource(shuffled(), "panel")
    with pytest.raises(RowOrderError, match=r"panel: row \d+ is out of order by symbol"):
        order_source(
            source, roles_of(source), spill=tmp_path, memory_bytes=10**9, threads=1, sort="never"
        )


def test_duplicate_keys_are_counted_and_named(tmp_path: Path) -> None:
    table = pa.concat_tables([bars(), bars().slice(120, 3)])
    source = TableSource(table, "panel")
    with pytest.raises(
        DuplicateRowsError, match=r"3 rows repeat a key .* first is s01, 2020-01-21"
    ):
        order_source(source, roles_of(source), spill=tmp_path, memory_bytes=10**9, threads=1)
    assert [p for p in tmp_path.iterdir() if "sorted" not in p.name] == []


def test_a_null_time_is_refused(tmp_path: Path) -> None:
    table = pa.table(
        {"time": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("us")), "x": [1.0, 2.0]}
    )
    source = TableSource(table, "<t>")
    with pytest.raises(RowOrderError, match="'time' is null in row 1"):
        order_source(source, roles_of(source), spill=tmp_path, memory_bytes=10**9, threads=1)


def test_an_inferred_time_that_repeats_is_no_order(tmp_path: Path) -> None:
    day = pa.array([dt.date(2020, 1, 1)] * 3)
    source = TableSource(pa.table({"date": day, "x": [1.0, 2.0, 3.0]}), "<t>")
    ordered, roles = order_source(
        source,
        roles_of(source),
        spill=tmp_path,
        memory_bytes=10**9,
        threads=1,
        needs_order=False,
    )
    assert ordered is source and not roles.ordered


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.parquet does not exist"):
        open_source(tmp_path / "gone.parquet", spill=tmp_path)
    with pytest.raises(SourceNotFoundError, match="matches no Parquet file"):
        open_source(str(tmp_path / "*.parquet"), spill=tmp_path)
    with pytest.raises(SourceNotFoundError, match="holds no Parquet file"):
        open_source(tmp_path, spill=tmp_path)


def test_a_truncated_footer_is_named(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CorruptSourceError, match=r"broken\.parquet is no complete Parquet file"):
        open_source(broken, spill=tmp_path)


def flipped(path: Path) -> bytes:
    """The file with a byte in the middle of a column chunk's last page turned over."""
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(3).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size - 5] ^= 0xFF
    return bytes(data)


def test_a_corrupt_page_is_caught_by_its_checksum(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "flipped.parquet"
    broken.write_bytes(flipped(file))
    source = open_source(broken, spill=tmp_path)
    with pytest.raises(CorruptSourceError, match=r"flipped\.parquet cannot be read between rows"):
        whole(source)


def test_a_file_that_changes_is_noticed(file: Path, tmp_path: Path) -> None:
    source = open_source(file, spill=tmp_path)
    source.check_unchanged()
    pq.write_table(bars().slice(0, 10), file)
    with pytest.raises(SourceChangedError, match=r"bars\.parquet was changed"):
        source.check_unchanged()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"x": [1.0]}, r"b\.parquet has no column 'y'"),
        ({"x": [1.0], "y": [1], "z": [1]}, r"b\.parquet has a column 'z'"),
        ({"x": [1], "y": [1]}, r"column 'x' is int64, in .*a\.parquet it is double"),
        ({"X": [1.0], "y": [1]}, r"no column 'x'"),
    ],
)
def test_schema_drift_names_file_and_column(
    tmp_path: Path, second: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table({"x": [1.0], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(second), tmp_path / "b.parquet")
    with pytest.raises(SchemaDriftError, match=message):
        open_source(tmp_path, spill=tmp_path)


def test_columns_in_another_order_and_all_null_are_no_drift(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.nulls(1), "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"y": [2], "x": [2.5]}), tmp_path / "b.parquet")
    made = whole(open_source(tmp_path, spill=tmp_path))
    assert made.to_pydict() == {"x": [None, 2.5], "y": [1, 2]}


def test_empty_and_unsupported_sources(tmp_path: Path) -> None:
    with pytest.raises(EmptySourceError, match="has no rows"):
        open_source(pa.table({"x": pa.array([], pa.float64())}), spill=tmp_path)
    with pytest.raises(EmptySourceError, match="two columns called 'x'"):
        open_source(pa.table([[1], [2]], names=["x", "x"]), spill=tmp_path)
    with pytest.raises(UnsupportedSourceError, match=r"a builtins\.int is no source"):
        open_source(5, spill=tmp_path)


def test_a_missing_column_suggests_the_closest(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ColumnNotFoundError, match="did you mean 'close'"):
        open_source(file, spill=tmp_path).column("closer")


def test_statistics_come_from_footers(file: Path, tmp_path: Path) -> None:
    column = open_source(file, spill=tmp_path).column("volume")
    assert (column.n_null, column.minimum, column.maximum) == (143, 1, 999)


def test_the_sorting_process_tells_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(shuffled(), path, row_group_size=100, write_page_checksum=True)
    path.write_bytes(flipped(path))
    source = open_source(path, spill=tmp_path)
    spill = tmp_path / "spill"
    spill.mkdir()
    with pytest.raises(CorruptSourceError, match=r"f\.parquet cannot be read"):
        order.sort_source(source, ["symbol", "timestamp"], spill=spill, memory_bytes=0, threads=1)
    assert list(spill.glob("*.parquet")) == []
