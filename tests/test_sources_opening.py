"""What a path or an object stands for, and what is told when it stands for nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from streamfeat import errors
from streamfeat.sources.frames import TableSource
from streamfeat.sources.opening import open_source
from streamfeat.sources.roles import infer_roles
from streamfeat.sources.source import Source


def whole(source: Source) -> pa.Table:
    batches = source.read(0, source.n_rows, source.schema().names)
    return pa.Table.from_batches(batches, schema=source.schema())


def write(path: Path, *values: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": list(values)}), path)
    return path


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    place = tmp_path / "spill"
    place.mkdir()
    return place


# Directories and globs


def test_a_directory_is_its_data_files_only(tmp_path: Path, spill: Path) -> None:
    root = tmp_path / "data"
    write(root / "b.parquet", 2.0)
    write(root / "a" / "deep.PQ", 1.0)
    write(root / "spark.parquet" / "part-0.parquet", 3.0)
    write(root / "_temporary" / "no.parquet", 9.0)
    write(root / ".hidden.parquet", 9.0)
    (root / "_SUCCESS").write_text("")
    (root / "notes.txt").write_text("no Parquet")
    assert whole(open_source(root, spill=spill)).column("x").to_pylist() == [1.0, 2.0, 3.0]


def test_a_glob_takes_directories_too_and_each_file_once(tmp_path: Path, spill: Path) -> None:
    write(tmp_path / "in" / "d1" / "a.parquet", 1.0)
    write(tmp_path / "in" / "d2" / "b.parquet", 2.0)
    for pattern in ("in/d*", "in/**/*.parquet", "in/**"):
        source = open_source(str(tmp_path / pattern), spill=spill)
        assert whole(source).column("x").to_pylist() == [1.0, 2.0], pattern


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_path_is_not_the_working_directory(empty: Any, spill: Path) -> None:
    with pytest.raises(errors.SourceNotFoundError, match="an empty path was given"):
        open_source(empty, spill=spill)


def test_a_file_url_is_a_local_path(tmp_path: Path, spill: Path) -> None:
    path = write(tmp_path / "a.parquet", 1.0)
    assert open_source(f"file://{path}", spill=spill).n_rows == 1


# Hive


@pytest.mark.parametrize(
    ("spelled", "expected", "kind"),
    [
        (["2020", "2021"], [2020, 2021], pa.int64()),
        (["01", "02"], [1, 2], pa.int64()),
        (["-3", "__HIVE_DEFAULT_PARTITION__"], [-3, None], pa.int64()),
        (["01", "x"], ["01", "x"], pa.string()),
        (["1.5", "2"], ["1.5", "2"], pa.string()),
        (["9" * 30, "a%20b%3Dc"], ["9" * 30, "a b=c"], pa.string()),
    ],
)
def test_hive_values_are_whole_numbers_if_all_are(
    spelled: list[str], expected: list[Any], kind: pa.DataType, tmp_path: Path, spill: Path
) -> None:
    root = tmp_path / "h"
    for value in spelled:
        write(root / f"key={value}" / "f.parquet", 1.0)
    table = whole(open_source(root, spill=spill))
    assert table.schema.field("key").type == kind
    assert set(table.column("key").to_pylist()) == set(expected)


def test_hive_columns_alone_can_be_read(tmp_path: Path, spill: Path) -> None:
    for value in "ab":
        write(tmp_path / "h" / f"key={value}" / "f.parquet", 1.0, 2.0)
    source = open_source(tmp_path / "h", spill=spill)
    (first, second) = source.read(1, 3, ["key"])
    assert first.to_pydict() == {"key": ["a"]}
    assert second.to_pydict() == {"key": ["b"]}


def test_a_hive_key_that_is_a_column_too_is_drift(tmp_path: Path, spill: Path) -> None:
    write(tmp_path / "h" / "x=1" / "f.parquet", 1.0)
    with pytest.raises(errors.SchemaDriftError, match="'x' is in the file and in its directory"):
        open_source(tmp_path / "h", spill=spill)


def test_other_hive_keys_are_drift(tmp_path: Path, spill: Path) -> None:
    write(tmp_path / "h" / "a=1" / "f.parquet", 1.0)
    write(tmp_path / "h" / "b=1" / "f.parquet", 1.0)
    with pytest.raises(errors.SchemaDriftError, match=r"b=1.* lies under other partition keys"):
        open_source(tmp_path / "h", spill=spill)


# Remote


def remote(path: str, *values: float) -> None:
    import fsspec

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": list(values)}), sink)
    fsspec.filesystem("memory").pipe(path, sink.getvalue().to_pybytes())


def test_remote_directories_globs_and_hive(spill: Path) -> None:
    remote("/lake/k=1/a.parquet", 1.0)
    remote("/lake/k=2/b.parquet", 2.0)
    remote("/lake/_log/no.parquet", 9.0)
    for url in ("memory://lake", "memory://lake/k=*/*.parquet"):
        made = whole(open_source(url, spill=spill))
        assert made.to_pydict() == {"x": [1.0, 2.0], "k": [1, 2]}


def test_a_remote_file_that_changes_is_noticed(spill: Path) -> None:
    remote("/changing/a.parquet", 1.0)
    source = open_source("memory://changing/a.parquet", spill=spill)
    source.check_unchanged()
    remote("/changing/a.parquet", 2.0)
    with pytest.raises(errors.SourceChangedError, match=r"a\.parquet was changed"):
        source.check_unchanged()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("memory://nowhere/a.parquet", errors.SourceNotFoundError, "matches no Parquet file"),
        ("memory://nowhere/*.parquet", errors.SourceNotFoundError, "matches no Parquet file"),
        ("nosuch://a", errors.UnsupportedSourceError, "nosuch://a cannot be opened"),
    ],
)
def test_a_remote_path_that_is_nothing_is_named(
    url: str, kind: type[Exception], message: str, spill: Path
) -> None:
    with pytest.raises(kind, match=message):
        open_source(url, spill=spill)


# Datasets


def test_a_hive_dataset_keeps_its_keys(tmp_path: Path, spill: Path) -> None:
    root = tmp_path / "h"
    table = pa.table({"x": [1.0, 2.0], "k": ["a b", "c"]})
    keys = ds.partitioning(pa.schema([("k", pa.string())]), flavor="hive")
    ds.write_dataset(table, root, format="parquet", partitioning=keys)
    made = whole(open_source(ds.dataset(root, partitioning=keys), spill=spill))
    assert made.sort_by("x").to_pydict() == table.to_pydict()
    assert list(spill.iterdir()) == []  # its files are read where they lie
    inferred = whole(open_source(ds.dataset(root, partitioning="hive"), spill=spill))
    assert inferred.sort_by("x").to_pydict() == table.to_pydict()


def test_a_filtered_dataset_keeps_its_filter(tmp_path: Path, spill: Path) -> None:
    dataset = ds.dataset(write(tmp_path / "a.parquet", 1.0, 2.0, 3.0))
    made = whole(open_source(dataset.filter(ds.field("x") > 1.5), spill=spill))
    assert made.column("x").to_pylist() == [2.0, 3.0]


def test_a_dataset_of_another_format_is_scanned(tmp_path: Path, spill: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    made = whole(open_source(ds.dataset(tmp_path / "a.csv", format="csv"), spill=spill))
    assert made.to_pydict() == {"x": [1, 2], "y": ["a", "b"]}


# Objects


def test_a_stream_of_small_batches_becomes_few_row_groups(spill: Path) -> None:
    batches = [pa.RecordBatch.from_pydict({"x": [float(k)]}) for k in range(3000)]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    source = open_source(reader, spill=spill)
    assert source.files[0].metadata.num_row_groups == 1  # type: ignore[attr-defined]
    assert whole(source).column("x").to_pylist() == [float(k) for k in range(3000)]


@pytest.mark.parametrize("batch_rows", [50_000, 200_000])
def test_a_stream_is_cut_into_row_groups_of_one_size(batch_rows: int, spill: Path) -> None:
    table = pa.table({"x": np.arange(200_000)})
    source = open_source(table.to_reader(max_chunksize=batch_rows), spill=spill)
    metadata = source.files[0].metadata  # type: ignore[attr-defined]
    sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    assert sizes == [65_536, 65_536, 65_536, 200_000 - 3 * 65_536]
    assert whole(source).equals(table)


def failing() -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict({"x": [1.0]})
    raise RuntimeError("the cable was pulled")


def stream_that_fails() -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(pa.schema([("x", pa.float64())]), failing())


def lazy_that_fails() -> Any:
    import polars as pl

    return pl.LazyFrame({"x": ["a"]}).with_columns(pl.col("x").cast(pl.Int64))


def mixed_frame() -> Any:
    import pandas as pd

    return pd.DataFrame({"good": [1, 2], "mixed": [1, "two"]})


def doubled_frame() -> Any:
    import pandas as pd

    return pd.DataFrame([[1, 2]], columns=["a", "a"])


INTERVAL = pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
NO_ROWS = pa.table({"x": pa.array([], pa.float64())})
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "failing stream": (
        stream_that_fails,
        errors.SourceError,
        "<pyarrow.RecordBatchReader> failed while it was read: .*the cable was pulled",
    ),
    "failing lazy": (lazy_that_fails, Exception, "conversion from `str` to `i64` failed"),
    "empty stream": (NO_ROWS.to_reader, errors.EmptySourceError, "has no rows"),
    "no columns": (lambda: pa.table({}), errors.EmptySourceError, "has no columns"),
    "no stored type": (INTERVAL.to_reader, errors.UnsupportedSourceError, "Parquet has not"),
    "mixed pandas": (mixed_frame, errors.UnsupportedSourceError, "'two'.*column mixed"),
    "doubled pandas": (doubled_frame, errors.EmptySourceError, "two columns called 'a'"),
    "complex numbers": (
        lambda: np.ones((2, 2), dtype=np.complex128),
        errors.UnsupportedSourceError,
        "<numpy.ndarray> of complex128",
    ),
    "one dimension": (lambda: np.ones(3), errors.UnsupportedSourceError, "numpy.ndarray is no"),
    "a mapping": (dict, errors.UnsupportedSourceError, r"a builtins\.dict is no source"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_object_is_named_and_leaves_nothing(case: str, spill: Path) -> None:
    make, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        open_source(make(), spill=spill)
    assert list(spill.iterdir()) == []


def test_views_of_text_become_text(tmp_path: Path, spill: Path) -> None:
    table = pa.table({"s": pa.array(["b", None]).cast(pa.string_view())})
    pq.write_table(table, tmp_path / "v.parquet")
    for source in (table, tmp_path / "v.parquet", table.to_reader()):
        made = whole(open_source(source, spill=spill))
        assert made.schema.field("s").type == pa.large_string()
        assert made.column("s").to_pylist() == ["b", None]


# Roles


def source_of(**columns: Any) -> Source:
    return TableSource(pa.table(columns), "<t>")


DAY = pa.array([dt.date(2020, 1, 1)])


@pytest.mark.parametrize(
    ("columns", "time", "group"),
    [
        ({"when": DAY, "Name": ["a"], "x": [1.0]}, "when", "Name"),
        (
            {"Trade Date": DAY, "settled": DAY, "permno": [10001], "x": [1.0]},
            "Trade Date",
            "permno",
        ),
        ({"a": DAY, "b": DAY, "symbol": ["s"]}, None, None),
        ({"symbol": ["s"], "x": [1.0]}, None, None),
        ({"OPEN-TIME": DAY, "Close_Time": DAY, "pair": ["p"]}, "OPEN-TIME", "pair"),
        ({"date": DAY, "code": [1.5]}, "date", None),
    ],
)
def test_time_and_group_by_name_and_type(
    columns: dict[str, Any], time: str | None, group: str | None
) -> None:
    roles = infer_roles(source_of(**columns))
    assert (roles.time, roles.group) == (time, group)
    assert not {time, group} & set(roles.numeric)


def test_the_target_time_and_group_are_no_inputs() -> None:
    source = source_of(t=[1], g=[2], y=[1.0], flag=[True], x=[1], word=["w"])
    roles = infer_roles(source, target_column="y", time="t", group="g")
    assert roles.numeric == ("flag", "x")
    assert roles.text == ("word",)
    assert roles.ordered


def test_a_role_that_does_not_exist_suggests_the_closest() -> None:
    for role in ("time", "group"):
        with pytest.raises(errors.ColumnNotFoundError, match="did you mean 'stamp'"):
            infer_roles(source_of(stamp=[1]), **{role: "stmp"})  # type: ignore[arg-type]


def test_bars_of_crypto_archives() -> None:
    bars = {name: [1.0] for name in ("Open", "High", "Low", "Close", "Volume BTC", "Volume USD")}
    roles = infer_roles(source_of(Date=DAY, Symbol=["BTC/USD"], **bars))
    assert roles.announce() == (
        "time=Date, group=Symbol, OHLCV=Open/High/Low/Close/Volume BTC, 6 numeric columns"
    )
