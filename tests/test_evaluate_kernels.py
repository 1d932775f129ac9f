"""Windows by doubling: exact sums, bits that depend on the window's own rows alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.evaluate.kernels import Windows, calendar, shifted
from streamfeat.evaluate.program import Frame, Program
from streamfeat.plan.expr import Column
from streamfeat.plan.primitives import call

WINDOWED = ("rolling_sum", "rolling_mean", "rolling_std", "rolling_min", "rolling_max")
VALUES = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 1e-9, math.nan])),
    min_size=1,
    max_size=80,
)


def frame(values: np.ndarray, row_in_group: np.ndarray | None = None) -> Frame:
    if row_in_group is None:
        row_in_group = np.arange(len(values))
    return Frame({"x": values}, row_in_group, 0, len(values))


def run(name: str, values: np.ndarray, window: int) -> np.ndarray:
    return Program([call(name, "x", params=(window,))]).run(frame(values))[0]


def slow(name: str, values: np.ndarray, window: int) -> list[float]:
    statistics = {
        "rolling_sum": math.fsum,
        "rolling_mean": lambda v: math.fsum(v) / len(v),
        "rolling_std": lambda v: math.sqrt(
            math.fsum((x - math.fsum(v) / len(v)) ** 2 for x in v) / (len(v) - 1)
        ),
        "rolling_min": min,
        "rolling_max": max,
    }
    out = []
    for end in range(1, len(values) + 1):
        rows = list(values[max(end - window, 0) : end])
        short = len(rows) < window or any(math.isnan(x) for x in rows)
        out.append(math.nan if short else statistics[name](rows))
    return out


@given(VALUES, st.sampled_from(WINDOWED), st.integers(2, 33))
def test_a_window_is_its_own_rows_statistic(values: list[float], name: str, window: int) -> None:
    x = np.array(values)
    got, expected = run(name, x, window), np.array(slow(name, x, window))
    scale = np.nanmax(np.abs(x)) if not np.isnan(x).all() else 1.0
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13 * max(scale, 1.0) * window)


@given(VALUES, st.lists(st.floats(-1e9, 1e9), max_size=40), st.sampled_from(WINDOWED))
def test_bits_do_not_depend_on_earlier_rows(
    values: list[float], before: list[float], name: str
) -> None:
    alone = run(name, np.array(values), 7)
    after = run(name, np.array(before + values), 7)[len(before) :]
    np.testing.assert_array_equal(alone[6:], after[6:])


@pytest.mark.parametrize("window", [2, 3, 7, 20, 60])
@pytest.mark.parametrize("value", [0.1, 1e300, 1e-300, 1 / 3])
def test_a_constant_window_has_no_spread(value: float, window: int) -> None:
    x = np.full(100, value)
    if value < 1e290:
        assert (run("rolling_std", x, window)[window - 1 :] == 0).all()
    assert np.isnan(run("rolling_zscore", x, window)).all()


def test_no_window_reaches_into_another_group() -> None:
    values = np.arange(10.0)
    position = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    program = Program([call("rolling_sum", "x", params=(3,)), call("lag", "x", params=(2,))])
    sums, lags = program.run(frame(values, position))
    np.testing.assert_array_equal(np.isnan(sums), position < 2)
    np.testing.assert_array_equal(np.isnan(lags), position < 2)
    assert sums[7] == 5 + 6 + 7
    assert lags[7] == 5


def test_a_large_offset_costs_no_digits() -> None:
    x = 1.7e9 + np.arange(100.0) % 7
    expected = np.array(slow("rolling_std", x, 20))
    np.testing.assert_allclose(run("rolling_std", x, 20)[19:], expected[19:], rtol=1e-12)


def test_shifting_by_more_rows_than_there_are() -> None:
    assert np.isnan(shifted(np.arange(3.0), 5)).all()
    assert np.isnan(Windows(np.arange(3.0)).sum(5)).all()


@given(st.datetimes())
def test_calendar_parts_are_pythons(moment: object) -> None:
    from datetime import datetime, timedelta

    assert isinstance(moment, datetime)
    time = np.array([(moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)])
    expected = {
        "year": moment.year,
        "month": moment.month,
        "day": moment.day,
        "day_of_week": moment.isoweekday(),
        "day_of_year": moment.timetuple().tm_yday,
        "hour": moment.hour,
        "minute": moment.minute,
    }
    assert {part: calendar(part, time)[0] for part in expected} == expected


@given(st.integers(0, 90), st.integers(1, 60), VALUES)
def test_parts_of_a_frame_have_the_bits_of_the_whole(
    start: int, length: int, values: list[float]
) -> None:
    x = np.resize(np.array(values), 160)
    exprs = [
        call("rolling_zscore", call("pct_change", "x", params=(1,)), params=(5,)),
        call("div", "x", call("rolling_mean", "x", params=(20,))),
        call("log", call("abs", Column("x"))),
    ]
    program = Program(exprs)
    whole = program.run(frame(x, np.arange(160) % 50))
    part = frame(x, np.arange(160) % 50).part(start, start + length, lookback=program.lookback)
    np.testing.assert_array_equal(program.run(part), whole[:, start : start + length])
