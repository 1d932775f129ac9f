"""From source to result: laws 1, 2, 6 and 7 over the whole way, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamfeat as sf
from streamfeat.errors import BudgetTooSmallError, RecipeError
from streamfeat.evaluate.scan import Scanner
from streamfeat.pipeline.recipe import Feature, Recipe
from streamfeat.pipeline.session import Session
from streamfeat.plan.execution import TILE_ROWS

FIXTURES = Path(__file__).parent.parent / "data_fixtures"
SMALL = {"windows": (3, 8), "beam": 40, "transformations": ("log", "1/"), "progress": False}


def panel(n_symbols: int = 40, n_days: int = 700, seed: int = 0) -> pl.DataFrame:
    """Prices whose next range is announced by today's; ~28,000 rows, more than three tiles."""
    rng = np.random.default_rng(seed)
    n = n_symbols * n_days
    range_ = np.exp(np.repeat(rng.normal(-4, 0.3, n_symbols), n_days) + 0.4 * rng.normal(size=n))
    close = np.exp(np.cumsum(0.01 * rng.normal(size=(n_symbols, n_days)), axis=1)).ravel()
    start = np.datetime64("2020-01-01", "us")
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"s{k:03d}" for k in range(n_symbols)], n_days),
            "time": np.tile(start + np.arange(n_days) * np.timedelta64(1, "D"), n_symbols),
            "open": close,
            "high": close * (1 + range_),
            "low": close * (1 - range_),
            "close": close,
            "volume": np.exp(rng.normal(10, 1, n)),
        }
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panel") / "panel.parquet"
    panel().sample(fraction=1.0, shuffle=True, seed=1).write_parquet(path, row_group_size=3000)
    return path


TARGET = "forward((high - low) / close, 1)"


def output_of(source: Any, path: Path, **options: Any) -> tuple[bytes, sf.FeatureTable]:
    table = sf.fit_transform(
        source, target=TARGET, output=path, overwrite=True, **{**SMALL, **options}
    )
    return path.read_bytes(), table


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made, table = output_of(source, tmp_path_factory.mktemp("expected") / "out.parquet")
    assert table.features, "the laws below would prove nothing on an empty output"
    return made


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_law_threads_change_no_byte(
    threads: int, source: Path, expected: bytes, tmp_path: Path
) -> None:
    assert output_of(source, tmp_path / "o.parquet", threads=threads)[0] == expected


@pytest.mark.parametrize("rows", [TILE_ROWS, 2 * TILE_ROWS, 16 * TILE_ROWS, 0])
def test_law_chunks_change_no_byte(
    rows: int, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed chunk sizes, and one that changes at every chunk."""
    sizes = iter(range(10**6))
    monkeypatch.setattr(Session, "rows", lambda self: rows or (next(sizes) * 7 % 3 + 1) * TILE_ROWS)
    assert output_of(source, tmp_path / "o.parquet")[0] == expected


def test_law_layout_changes_no_byte(source: Path, expected: bytes, tmp_path: Path) -> None:
    """Row-group size, file split, sorted or not, in memory or not."""
    table = pq.read_table(source)
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=777)
    ordered = table.sort_by([("symbol", "ascending"), ("time", "ascending")])
    pq.write_table(ordered, tmp_path / "sorted.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    for k in range(5):
        pq.write_table(table.slice(k * 6000, 6000), parts / f"{k}.parquet")
    for layout in (tmp_path / "groups.parquet", tmp_path / "sorted.parquet", parts, table):
        assert output_of(layout, tmp_path / "o.parquet")[0] == expected


@pytest.mark.parametrize("memory", ["380MB", "3GB"])
def test_law_the_budget_changes_no_byte(
    memory: str, source: Path, expected: bytes, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "streamfeat.cli.main", "fit-transform", str(source),
        "--target", TARGET, "--windows", "3,8", "--beam", "40", "--transformations", "log,1/",
        "--output", str(tmp_path / "o.parquet"), "--memory", memory, "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["peak_bytes"] <= report["budget_bytes"]
    assert (tmp_path / "o.parquet").read_bytes() == expected


_AT_THE_LEAST = """
import json, sys
import streamfeat as sf
options = json.loads(sys.argv[2])
try:
    sf.explain(sys.argv[1], memory=1000, **options)
except sf.errors.BudgetTooSmallError as error:
    least = error.minimum_bytes + 2_000_000
sf.fit_transform(sys.argv[1], memory=least, output=sys.argv[3], **options)
peak = next(int(l.split()[1]) * 1024 for l in list(open("/proc/self/status")) if "VmHWM" in l)
print(json.dumps([least, peak]))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_law_the_peak_stays_under_the_least_budget(
    threads: int, source: Path, tmp_path: Path
) -> None:
    options = json.dumps({"target": TARGET, "threads": threads, "progress": False, "beam": 60})
    code = "import streamfeat.errors\n" + _AT_THE_LEAST
    command = [sys.executable, "-W", "ignore", "-c", code, str(source), options]
    done = subprocess.run(
        [*command, str(tmp_path / "o.parquet")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    least, peak = json.loads(done.stdout)
    assert peak <= least


def test_a_budget_too_small_is_refused_before_work(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.parquet"
    with pytest.raises(BudgetTooSmallError, match="the least that would do is") as told:
        sf.fit_transform(source, target=TARGET, memory="90MB", output=output, **SMALL)
    assert told.value.minimum_bytes > 90_000_000
    assert "pass memory=" in told.value.hint
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    pass


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamfeat.materialise.writer.SPAN_ROWS", 8192)
    monkeypatch.setattr("streamfeat.materialise.writer.ROW_GROUP_ROWS", 8192)


@pytest.mark.usefixtures("short_spans")
def test_law_a_run_goes_on_from_its_last_span(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while writing: the search is not repeated, the bytes are the same."""
    path = tmp_path / "o.parquet"
    expected = output_of(source, path)[0]
    path.unlink()
    run = Scanner.run

    def dying(self: Scanner, name: str, *args: Any, **options: Any) -> None:
        if name == "write the features":
            after = options["after_chunk"]

            def last(chunk: Any) -> None:
                after(chunk)
                if chunk.start_row >= 8192:
                    raise Killed

            options["after_chunk"] = last
            options["rows"] = lambda: TILE_ROWS
        run(self, name, *args, **options)

    monkeypatch.setattr(Scanner, "run", dying)
    with pytest.raises(Killed):
        output_of(source, path)
    assert not path.exists()
    passes: list[str] = []

    def watching(self: Scanner, name: str, *args: Any, **options: Any) -> None:
        passes.append(name)
        run(self, name, *args, **options)

    monkeypatch.setattr(Scanner, "run", watching)
    made, table = output_of(source, path)
    assert passes == ["write the features"]
    assert made == expected
    assert table.report.resumed_row == 2 * 8192
    assert table.report.score is not None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("short_spans")
def test_law_recursive_state_survives_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An average that reaches back over the place where the run was stopped."""
    formulas = ("ema(close, 200)", "rolling_mean(ema(volume, 9), 5)")
    recipe = Recipe(
        tuple(Feature(f, f, 0.0, None) for f in formulas),
        {"close": "number", "volume": "number"},
        group="symbol",
        time="time",
    )
    frame = panel(1, 20_000)
    whole = recipe.transform(frame, output=tmp_path / "whole.parquet", progress=False)
    after_chunk = "streamfeat.materialise.driver._Cursor.end"
    from streamfeat.materialise.driver import _Cursor

    end = _Cursor.end

    def dying(self: _Cursor, chunk: Any) -> None:
        end(self, chunk)
        if chunk.start_row >= 8192:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(after_chunk, dying)
        patch.setattr(Session, "rows", lambda self: TILE_ROWS)
        with pytest.raises(Killed):
            recipe.transform(frame, output=tmp_path / "o.parquet", progress=False)
    again = recipe.transform(frame, output=tmp_path / "o.parquet", progress=False)
    assert again.report.resumed_row == 16_384
    assert (tmp_path / "o.parquet").read_bytes() == whole.path.read_bytes()


def test_transform_gives_the_training_values(source: Path, tmp_path: Path) -> None:
    _, table = output_of(source, tmp_path / "o.parquet")
    recipe = sf.load(tmp_path / "o.parquet")
    again = recipe.transform(source, output=tmp_path / "t.parquet", progress=False)
    assert again.to_arrow().equals(table.to_arrow())
    part = panel().filter(pl.col("symbol").is_in(["s003", "s017"]))
    few = recipe.transform(part, output=tmp_path / "p.parquet", progress=False).to_polars()
    whole = table.to_polars().filter(pl.col("symbol").is_in(["s003", "s017"]))
    assert few.equals(whole)


def test_recipes_survive_json(source: Path, tmp_path: Path) -> None:
    recipe = sf.fit(source, target=TARGET, **SMALL)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert sf.load(recipe.save(tmp_path / "r.json")) == recipe
    with pytest.raises(RecipeError, match="format version 99"):
        Recipe.from_json(recipe.to_json().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(RecipeError, match="schema fingerprint"):
        Recipe.from_json(recipe.to_json().replace('"high": "number"', '"high": "timestamp"'))
    with pytest.raises(RecipeError, match="no streamfeat recipe"):
        Recipe.from_json("[]")


def test_a_recipe_says_which_column_is_missing(source: Path, tmp_path: Path) -> None:
    recipe = sf.fit(source, target=TARGET, **SMALL)
    name = next(iter(recipe.inputs))
    with pytest.raises(RecipeError, match=f"has no column '{name}', which the recipe needs"):
        recipe.transform(panel().drop(name), output=tmp_path / "o.parquet", progress=False)


def test_the_result_reads_as_everything(source: Path, tmp_path: Path) -> None:
    _, table = output_of(source, tmp_path / "o.parquet")
    names = ["symbol", "time", *(f.name for f in table.features)]
    assert table.scan().collect_schema().names() == names
    assert pa.table(table).column_names == names
    assert pl.DataFrame(table).columns == names
    assert list(table.to_pandas().columns) == names
    assert "out-of-sample R²" in str(table) and "<svg" in table._repr_html_()
    assert table.report.to_dict()["n_candidates"] == table.report.n_candidates > 500
    data = json.loads(json.dumps(table.to_dict(), default=str))
    assert data["features"][0]["formula"] == table.features[0].formula


def test_law_noise_gives_an_empty_list_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = pl.DataFrame(rng.normal(size=(3000, 6)), schema=list("abcdey"))
    table = sf.fit_transform(noise, target="y", output=tmp_path / "o.parquet", **SMALL)
    assert table.features == []
    assert "no model passed" in str(table) and "No feature passed" in str(table)
    assert table.scan().collect().columns == ["y"]
    asked = sf.fit_transform(
        noise, target="y", output=tmp_path / "p.parquet", min_features=3, **SMALL
    )
    assert len(asked.features) == 3
    assert all(f.evidence and not f.evidence.significant for f in asked.features)


@pytest.mark.parametrize("file", sorted(p.name for p in FIXTURES.glob("*.parquet")))
def test_every_bundled_file_runs_with_defaults(file: str, tmp_path: Path) -> None:
    names = pq.read_schema(FIXTURES / file).names
    target = None if "close" in names else names[-1]
    if "median_house_value" in names:
        target = "median_house_value"
    table = sf.fit_transform(
        FIXTURES / file, target=target, output=tmp_path / "o.parquet", progress=False
    )
    rows = pq.read_metadata(FIXTURES / file).num_rows
    assert table.scan().select(pl.len()).collect().item() == rows
    if target in {"strength", "median_house_value", "sound_pressure"}:
        report = table.report
        assert report.score is not None and report.baseline_score is not None
        assert report.score > report.baseline_score


def test_classes_of_text_and_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 2))
    frame = pl.DataFrame(x, schema=["a", "b"]).with_columns(
        kind=np.digitize(x[:, 0] * x[:, 1] + 0.1 * rng.normal(size=6000), [-0.4, 0.4])
    )
    names = pl.col("kind").replace_strict({0: "low", 1: "mid", 2: "high"}, return_dtype=pl.String)
    for target in (frame, frame.with_columns(names)):
        table = sf.fit_transform(
            target,
            target="kind",
            task="classification",
            output=tmp_path / "o.parquet",
            overwrite=True,
            **SMALL,
        )
        assert table.report.task == "classification"
        assert table.features[0].formula == "a * b"


def test_originals_short_names_and_choice_of_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(3000, 3)), schema=["a", "b`c", "d"])
    frame = frame.with_columns(y=pl.col("a") * pl.col("b`c") + pl.col("d"))
    table = sf.fit_transform(
        frame,
        target="y",
        names="short",
        originals=True,
        exclude=["d"],
        control="features",
        output=tmp_path / "o.parquet",
        **SMALL,
    )
    assert table.scan().collect_schema().names() == ["y", "a", "b`c", "d", "f001"]
    assert table.features[0].formula == "`b``c` * a"


@pytest.mark.parametrize("kind", ["pandas", "polars", "numpy"])
def test_the_estimator_gives_back_what_came_in(kind: str) -> None:
    frame = panel(6, 400).sample(fraction=1.0, shuffle=True, seed=3)
    if kind == "numpy":
        X: Any = np.random.default_rng(0).normal(size=(3000, 3))
        y = X[:, 0] * X[:, 1]
        model = sf.StreamFeat(**SMALL).fit(X, y)
        made = model.transform(X)
        assert isinstance(made, np.ndarray) and model.get_feature_names_out()[0] == "x0 * x1"
        np.testing.assert_array_equal(made[:, 0], X[:, 0] * X[:, 1])
        return
    X = frame if kind == "polars" else frame.to_pandas().set_index(np.arange(frame.height) * 2)
    y = np.log((frame["high"] / frame["low"]).to_numpy())
    model = sf.StreamFeat(**SMALL)
    made = model.fit_transform(X, y)
    assert type(made) is type(X) and len(made) == frame.height
    names = list(model.get_feature_names_out())
    assert list(made.columns) == names and names
    if kind == "pandas":
        pd.testing.assert_index_equal(made.index, X.index)
    formula = Feature("f", model.recipe_.features[0].formula, 0.0, None)
    one = Recipe((formula,), model.recipe_.inputs, group="symbol", time="time")
    few = one.transform(frame.sort("symbol", "time"), progress=False).to_polars()
    joined = frame.select("symbol", "time").with_columns(f=pl.Series(np.asarray(made[names[0]])))
    assert joined.sort("symbol", "time")["f"].to_list() == pytest.approx(
        few["f"].to_list(), nan_ok=True
    )


def test_the_estimator_takes_paths(source: Path, tmp_path: Path) -> None:
    model = sf.StreamFeat(target=TARGET, **SMALL).fit(source)
    table = model.transform(source, output=tmp_path / "o.parquet")
    assert table.path.exists() and model.n_features_in_ == 7
    assert model.set_params(beam=50).get_params()["beam"] == 50
    assert "beam=50" in repr(model)


def test_nothing_is_left_in_spill(source: Path, tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    output_of(source, tmp_path / "o.parquet", spill=str(spill))
    assert list(spill.iterdir()) == []
    (spill / "run-999999999-dead").mkdir()
    sf.explain(source, target=TARGET, spill=str(spill), **SMALL)
    assert list(spill.iterdir()) == []
    assert spill.stat().st_mode & 0o777 == 0o700
