"""Sizes at their edges, and the room's public names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import streamfeat.memory
from streamfeat.errors import OptionError
from streamfeat.memory import (
    AllocationItem,
    AllocationPlan,
    MemorySample,
    format_bytes,
    parse_bytes,
)


@given(st.integers(1, 2**63 - 1))
@example(2**53 + 1)
def test_a_number_of_bytes_is_taken_exactly(nbytes: int) -> None:
    assert parse_bytes(nbytes) == parse_bytes(str(nbytes)) == parse_bytes(f"{nbytes:_}") == nbytes


def test_numpy_sizes_are_numbers() -> None:
    assert parse_bytes(np.int64(4096)) == parse_bytes(np.float64(4096.0)) == 4096


@pytest.mark.parametrize(
    "size",
    [pytest.param(10**400, id="vast"), pytest.param("9" * 400, id="nines"), 2**63, float("inf"),
     "0.4", None, [], "1e9", "1 0", "GB", "-1"],
)  # fmt: skip
def test_a_size_no_process_can_have_is_refused_with_a_hint(size: object) -> None:
    with pytest.raises(OptionError, match=r"^memory=.* is no size above 0") as told:
        parse_bytes(size)  # type: ignore[arg-type]
    assert '"2GB"' in told.value.hint


def test_the_refusal_names_the_option() -> None:
    with pytest.raises(OptionError, match=r"^spill='lots'"):
        parse_bytes("lots", option="spill")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (10**9, "1.0 GB"), (999_999_999_999, "1.0 TB"), (5 * 10**16, "50,000.0 TB"),
     (-999_960, "-1.0 MB")],
)  # fmt: skip
def test_a_printed_size_is_rounded_into_its_unit(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


@given(st.integers(1, 9 * 10**14))
def test_a_printed_size_can_be_read_again(nbytes: int) -> None:
    assert parse_bytes(format_bytes(nbytes)) == pytest.approx(nbytes, rel=0.06)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_process_is_managed_and_unmanaged(process: int, managed: int) -> None:
    sample = MemorySample(process, managed, 0.0)
    assert sample.managed_bytes + sample.unmanaged_bytes == process


def test_a_plan_is_a_table_of_aligned_lines() -> None:
    items = (
        AllocationItem("baseline", 60_000_000, "held before"),
        AllocationItem("gram", 1_500, "one"),
        AllocationItem("reserve", 24_000_000),
    )
    plan = AllocationPlan(2 * 10**9, items, chunk_rows=8192, threads=2, minimum_bytes=90_000_000)
    assert plan.table().splitlines() == [
        "  baseline  60.0 MB  held before",
        "  gram       1.5 kB  one",
        "  reserve   24.0 MB",
        "  total     84.0 MB  of 2.0 GB",
        "  least     90.0 MB  the smallest budget that would do",
    ]
    assert plan.to_dict()["total_bytes"] == plan.total_bytes == 84_001_500


def test_every_public_name_of_the_room_loads() -> None:
    for name in streamfeat.memory.__all__:
        assert getattr(streamfeat.memory, name).__name__ == name
    assert set(streamfeat.memory.__all__) <= set(dir(streamfeat.memory))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamfeat.memory.nothing  # noqa: B018


def test_sizes_and_the_ledger_load_no_psutil_and_no_engine() -> None:
    code = (
        "import sys; from streamfeat.memory import parse_bytes, MemoryPool, plan_allocation, "
        "BatchController; print([m for m in ('psutil', 'numpy', 'pyarrow', 'polars', 'duckdb') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
