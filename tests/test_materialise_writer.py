"""Law 6: the whole output or none, the same bytes however it came about."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamfeat.errors import OutputError, OutputExistsError
from streamfeat.materialise.footer import moved
from streamfeat.materialise.writer import OutputWriter, check_output, read_metadata

SPAN, GROUP, ROWS = 300, 100, 1010
ODD = 'odd.name "q"'


def table() -> pa.Table:
    x = np.random.default_rng(0).normal(size=ROWS)
    return pa.table(
        {
            "key": [f"s{k // 100}" for k in range(ROWS)],
            "x": x,
            ODD: pa.array([None if k % 7 == 0 else float(k) for k in range(ROWS)]),
        }
    )


def writer(path: Path, *, key: str = "k", **options: object) -> OutputWriter:
    return OutputWriter(
        path,
        schema=table().schema,
        run_key=key,
        metadata={"about": "größe"},
        span_rows=SPAN,
        row_group_rows=GROUP,
        **options,  # type: ignore[arg-type]
    )


def feed(out: OutputWriter, *, until: int = ROWS, step: int = 37) -> None:
    row = out.resume_row
    while row < until:
        n = min(step, until - row, SPAN - row % SPAN)
        out.append(table().slice(row, n))
        row += n
        if row % SPAN == 0:
            out.finish_span({"row": row})


def written(path: Path, **options: object) -> bytes:
    with writer(path, **options) as out:
        feed(out)
        out.commit()
    return path.read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("whole") / "out.parquet")


def test_all_readers_see_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    written(path)
    made = pq.read_table(path, page_checksum_verification=True)
    assert made.replace_schema_metadata(None).equals(table())
    assert pl.read_parquet(path).equals(pl.DataFrame(table()))
    with duckdb.connect() as connection:
        query = f"SELECT count(*), min(x) FROM '{path}' WHERE key = 's9'"
        assert connection.sql(query).fetchall() == [(100, min(table()["x"].to_pylist()[900:1000]))]
    assert read_metadata(path)["about"] == "größe"
    with pq.ParquetFile(path) as file:
        assert [file.metadata.row_group(k).num_rows for k in range(11)] == [100] * 10 + [10]
    assert list(tmp_path.iterdir()) == [path]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.integers(0, ROWS), max_size=3), st.integers(1, 200))
def test_law_any_cuts_and_any_stops_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, expected: bytes, stops: list[int], step: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.parquet"
    for stop in sorted(stops):
        with writer(path) as out:
            feed(out, until=max(stop, out.resume_row), step=step)
        assert not path.exists()
    with writer(path) as out:
        assert out.resume_row == max([0, *stops]) // SPAN * SPAN
        assert out.state == ({"row": out.resume_row} if out.resume_row else None)
        feed(out, step=step)
        out.commit()
    assert path.read_bytes() == expected
    assert list(path.parent.iterdir()) == [path]


_CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_materialise_writer import writer, feed
with writer(Path(sys.argv[1])) as out:
    print("ready", flush=True)
    feed(out, step=1)
    out.commit()
"""


def test_law_killed_at_any_moment_a_rerun_completes(tmp_path: Path, expected: bytes) -> None:
    path = tmp_path / "out.parquet"
    delays = np.random.default_rng(1).uniform(0.0, 0.25, 4)
    for delay in delays:
        command = [sys.executable, "-c", _CHILD, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay)
            child.kill()
        if path.exists():
            break
    if not path.exists():
        with writer(path) as out:
            feed(out)
            out.commit()
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["shorter", "flipped", "garbled manifest"])
def test_damaged_leftovers_are_not_trusted(tmp_path: Path, expected: bytes, damage: str) -> None:
    path = tmp_path / "out.parquet"
    with writer(path) as out:
        feed(out, until=2 * SPAN)
    work = tmp_path / ".out.parquet.streamfeat"
    data = bytearray((work / "data").read_bytes())
    if damage == "shorter":
        (work / "data").write_bytes(data[:-10])
    elif damage == "flipped":
        data[200] ^= 1
        (work / "data").write_bytes(data)
    else:
        (work / "manifest.json").write_text("{")
    with writer(path) as out:
        assert out.resume_row == (SPAN if damage == "shorter" else 0)
        feed(out)
        out.commit()
    assert path.read_bytes() == expected


def test_another_run_does_not_go_on_from_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with writer(path) as out:
        feed(out, until=SPAN)
    with writer(path, key="other") as out:
        assert out.resume_row == 0


def test_an_error_before_the_first_span_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writer(tmp_path / "out.parquet") as out:
        feed(out, until=50)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with writer(path, directory=True) as out:
        feed(out, until=SPAN)
    assert not path.exists()
    with writer(path, directory=True) as out:
        assert out.resume_row == SPAN
        feed(out)
        out.commit()
    assert sorted(p.name for p in path.iterdir()) == [
        "_manifest.json",
        *(f"part-{k:05d}.parquet" for k in range(4)),
    ]
    made = pa.concat_tables(pq.read_table(p) for p in sorted(path.glob("*.parquet")))
    assert made.replace_schema_metadata(None).equals(table())
    with writer(path, directory=True, overwrite=True) as out:
        feed(out)
        out.commit()
    assert list(tmp_path.iterdir()) == [path]
    assert read_metadata(path)["about"] == "größe"


def test_an_output_that_exists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"out\.parquet exists") as told:
        check_output(path, overwrite=False)
    assert "overwrite=True" in told.value.hint
    assert path.read_text() == "mine"
    check_output(path, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "no" / "out.parquet", overwrite=False)


def test_two_writers_of_one_output_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with writer(path), pytest.raises(OutputError, match="being written by another run"):
        writer(path)


_FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_materialise_writer import writer, feed
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from streamfeat.errors import OutputError
try:
    with writer(Path(sys.argv[1])) as out:
        feed(out)
        out.commit()
except OutputError as error:
    print("told:", error.message)
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    command = [sys.executable, "-c", _FULL, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "told: output" in done.stdout and "cannot be written" in done.stdout, done.stderr
    assert not path.exists()


def test_a_footer_moved_by_nothing_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "plain.parquet"
    pq.write_table(table(), path, row_group_size=90, write_page_index=True)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little") + 8
    assert moved(data[-length:], 0) == data[-length:]
    assert moved(data[-length:], 5) != data[-length:]
