"""Recursive primitives: exact from the first row, whatever the chunks."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamfeat.evaluate.polars_backend import ema_runs
from streamfeat.evaluate.program import Frame, Program
from streamfeat.evaluate.recursion import Recursion
from streamfeat.plan.parse import parse
from streamfeat.sources.chunks import ChunkReader
from streamfeat.sources.frames import TableSource

VALUES = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60).map(np.array)


@given(VALUES, st.integers(1, 30), st.data())
def test_a_run_cut_anywhere_has_the_same_bits(
    values: np.ndarray, span: int, data: st.DataObject
) -> None:
    n = len(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(n - 1, 1)), max_size=4)) if n > 1 else [])
    one = np.array([0])
    whole, _ = ema_runs(values, span=span, starts=one, carry=None)
    parts, carry = [], None
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        out, state = ema_runs(values[start:stop], span=span, starts=one, carry=carry)
        parts.append(out)
        carry = float(state[-1])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.integers(0, 99))
def test_many_short_and_few_long_runs_agree(lengths: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=sum(lengths))
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    together, _ = ema_runs(values, span=7, starts=starts, carry=None)
    one = np.array([0])
    alone = [
        ema_runs(values[s : s + n], span=7, starts=one, carry=None)[0]
        for s, n in zip(starts, lengths, strict=True)
    ]
    np.testing.assert_array_equal(together, np.concatenate(alone))


FORMULAS = ["ema(x, 9)", "rolling_mean(ema(diff(x, 2), 4), 5)", "ema(rolling_std(x, 3), 3) / x"]


@given(st.lists(st.integers(20, 200), min_size=1, max_size=9), st.integers(0, 99))
def test_chunks_change_no_bit(sizes: list[int], seed: int) -> None:
    """Chunks at least as long as the history, as tiles are; state survives its text form."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    n = 600
    x = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    table = pa.table({"g": np.sort(rng.integers(0, 4, n)), "x": x})
    program = Program([parse(f) for f in FORMULAS])

    def run(rows: list[int]) -> np.ndarray:
        reader = ChunkReader(
            TableSource(table, "<t>"),
            columns=["x"],
            group="g",
            lookback=program.lookback,
            lookahead=0,
        )
        asked, recursion, parts = iter(rows * n), Recursion(program), []
        for chunk in reader.chunks(lambda: next(asked)):
            recursion = Recursion(program, state=recursion.state)
            frame = Frame(chunk.columns, chunk.row_in_group, chunk.n_before, chunk.n_rows)
            recursion.fill(frame, at_start=chunk.start_row == chunk.n_before)
            parts.append(program.run(frame))
        return np.concatenate(parts, axis=1)

    np.testing.assert_array_equal(run(sizes), run([n]))
