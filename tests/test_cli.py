"""The command line: what goes where, exit codes, layers of options, progress."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from streamfeat.errors import OptionError
from streamfeat.events import (
    Announced,
    ChunkResized,
    Events,
    PassAdvanced,
    PassFinished,
    PassStarted,
)
from streamfeat.observe.progress import progress
from streamfeat.pipeline.options import NAMES, Options, resolve

FIXTURES = Path(__file__).parent.parent / "data_fixtures"
CONCRETE = str(FIXTURES / "concrete.parquet")
FAST = ["--beam", "40", "--transformations", "log,^2"]


def streamfeat(*arguments: str, cwd: Path | None = None, **env: str) -> Any:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMFEAT_")}
    return subprocess.run(
        [sys.executable, "-m", "streamfeat.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, **env},
        check=False,
    )


def test_the_whole_way_by_command(tmp_path: Path) -> None:
    out, again = tmp_path / "out.parquet", tmp_path / "again.parquet"
    done = streamfeat(
        "fit-transform", CONCRETE, "--target", "strength", "--output", str(out), *FAST
    )
    assert done.returncode == 0, done.stderr
    assert "out-of-sample R²" in done.stdout and "peak" in done.stdout
    assert "streamfeat: screen all pairs" in done.stderr and "\x1b" not in done.stderr
    moved = streamfeat("transform", str(out), CONCRETE, "--output", str(again), "--json")
    assert json.loads(moved.stdout)["schema_version"] == 1
    assert again.read_bytes() == out.read_bytes()
    sql = streamfeat("export", str(out), "--to", "sql", "--relation", f"'{CONCRETE}'").stdout
    import duckdb

    with duckdb.connect() as connection:
        by_sql = connection.sql(sql).pl()
    names = by_sql.columns
    np.testing.assert_allclose(
        by_sql.to_numpy(), pl.read_parquet(out).select(names).to_numpy(), rtol=1e-12
    )
    code = streamfeat("export", str(out), "--to", "polars").stdout
    scope: dict[str, Any] = {}
    exec(compile(code, "recipe", "exec"), scope)
    by_code = scope["features"](pl.scan_parquet(CONCRETE)).collect()
    assert by_code.equals(pl.read_parquet(out).select(names))
    recipe = json.loads(streamfeat("export", str(out), "--to", "json").stdout)
    assert recipe["format_version"] == 2


def test_fit_saves_a_recipe_and_plan_runs_nothing(tmp_path: Path) -> None:
    saved = tmp_path / "recipe.json"
    done = streamfeat(
        "fit", CONCRETE, "--target", "strength", "--recipe", str(saved), "--no-progress", *FAST
    )
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(saved.read_text())["target"] == "strength"
    plan = streamfeat("plan", CONCRETE, "--target", "strength", "--memory", "1GB")
    for word in ("roles", "candidates", "passes", "screen all pairs", "reserve", "least"):
        assert word in plan.stdout
    data = json.loads(
        streamfeat("plan", CONCRETE, "--target", "strength", "--memory", "1GB", "--json").stdout
    )
    items = sum(item["nbytes"] for item in data["allocation"]["items"])
    assert items == data["allocation"]["total_bytes"] <= 10**9
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit-transform", "gone.parquet"], 3, "error: gone.parquet does not exist\n\nHint:"),
        (["fit-transform", CONCRETE, "--target", "strenght"], 3, "did you mean 'strength'"),
        (["fit-transform", CONCRETE, "--target", "strength", "--memory", "lots"], 2, "no size"),
        (["fit-transform", CONCRETE, "--target", "strength", "--memory", "9MB"], 5, "too small"),
        (["fit-transform", CONCRETE, "--target", "strength", "--output", "no/o"], 6, "exist"),
        (["fit-transform", CONCRETE, "--beam", "2"], 2, "beam='2' is no whole number"),
        (["fit-transform"], 2, "Missing argument"),
        (["transform", "gone.json", CONCRETE], 3, "gone.json does not exist"),
    ],
)
def test_errors_have_their_exit_codes(arguments: list[str], code: int, message: str) -> None:
    done = streamfeat(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_corrupt_file_has_its_own_code(tmp_path: Path) -> None:
    broken = tmp_path / "b.parquet"
    broken.write_bytes(Path(CONCRETE).read_bytes()[:-9])
    assert streamfeat("plan", str(broken)).returncode == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_cleanly(number: int, code: int, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "streamfeat.cli.main", "fit-transform",
        str(FIXTURES / "sp500_sample.parquet"), "--output", str(tmp_path / "o.parquet"),
        "--spill", str(tmp_path / "spill"),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "screen all pairs" in line or "look at the target" in line:
                break
        child.send_signal(number)
        child.stderr.read()
    assert child.returncode == code
    assert list((tmp_path / "spill").iterdir()) == []
    assert not (tmp_path / "o.parquet").exists()


def test_options_come_in_layers(tmp_path: Path) -> None:
    (tmp_path / "streamfeat.toml").write_text("beam = 30\nlevel = 0.1\nwindows = [3, 9]\n")
    (tmp_path / "pyproject.toml").write_text("[tool.streamfeat]\nbeam = 99\n")
    made = resolve(
        {"level": 0.2, "steps": None},
        environ={"STREAMFEAT_STEPS": "1", "STREAMFEAT_LEVEL": "0.3", "STREAMFEAT_X": "no"},
        directory=tmp_path,
    )
    assert (made.beam, made.level, made.steps, made.windows) == (30, 0.2, 1, (3, 9))
    (tmp_path / "streamfeat.toml").unlink()
    assert resolve({}, environ={}, directory=tmp_path).beam == 99
    assert resolve({}, environ={}, directory=None) == Options()


def test_every_option_is_a_flag_and_a_variable() -> None:
    text = streamfeat("fit-transform", "--help").stdout
    for name in NAMES:
        assert f"--{name.replace('_', '-')}" in text
    done = streamfeat("plan", CONCRETE, STREAMFEAT_TARGET="strength", STREAMFEAT_BEAM="44")
    assert "target      strength" in done.stdout
    wrong = streamfeat("plan", CONCRETE, STREAMFEAT_BEAM="few")
    assert wrong.returncode == 2 and "from the environment" in wrong.stderr


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"bean": 3}, r"no option is called 'bean'(.|\n)*did you mean 'beam'"),
        ({"level": 2}, "no number between 0 and 1"),
        ({"transformations": "log,tan"}, "'tan' is unknown"),
        ({"windows": [1]}, "at least 2"),
        ({"names": "long"}, "none of formula, short"),
        ({"overwrite": "maybe"}, "neither true nor false"),
        ({"min_features": 9, "max_features": 3}, "more than max_features=3"),
        ({"beam": True}, "no whole number"),
        ({"bars": "close"}, "does not read as close=px,volume=qty"),
        ({"bars": {"shut": "px"}}, "'shut' is none of open, high, low, close, volume"),
    ],
)
def test_bad_options_are_named(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve(keywords, environ={}, directory=None)


def play(events: Events) -> None:
    events.emit(Announced("time=date [not markup]"))
    events.emit(PassStarted("screen", 1000))
    for rows in (250, 500, 1000):
        events.emit(PassAdvanced("screen", rows))
        time.sleep(0.02)
    events.emit(ChunkResized(200, 100, "the process holds 5 bytes"))
    events.emit(PassFinished("screen", 1.5))


def test_quiet_lines_in_a_pipe() -> None:
    events, stream = Events(), io.StringIO()
    with progress(events, stream=stream):
        play(events)
    play(events)
    assert stream.getvalue() == (
        "streamfeat: time=date [not markup]\n"
        "streamfeat: chunks of 200 rows become 100: the process holds 5 bytes\n"
        "streamfeat: screen: 1.5 s\n"
    )


def test_silence_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    events = Events()
    with progress(events, False):
        play(events)
    assert capsys.readouterr() == ("", "")


def test_bars_with_rate_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(ours, 4096):
                seen.append(data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with os.fdopen(theirs, "w") as stream:
        events = Events()
        with progress(events, stream=stream):
            play(events)
    watcher.join()
    os.close(ours)
    shown = b"".join(seen).decode()
    assert "100 %" in shown and "M rows/s" in shown and "[not markup]" in shown
