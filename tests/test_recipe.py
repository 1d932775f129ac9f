"""A recipe on rows it was not fitted on: ranges, nulls, exports, older files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

import streamfeat as sf
from streamfeat.errors import OptionError
from streamfeat.pipeline.recipe import Feature, Recipe

FEATURES = (
    Feature("a / b", "a / b", 0.0, None, -2.0, 3.0),
    Feature("log(a)", "log(a)", 0.0, None, 0.1, 0.1),
    Feature("free", "square(b)", 0.0, None),
)
ROWS = pl.DataFrame(
    {"a": [1.0, 8.0, -9.0, 0.0, None, np.inf], "b": [1.0, 2.0, 1.0, 0.0, 1.0, 1e200]}
)


def recipe(features: tuple[Feature, ...] = FEATURES) -> Recipe:
    return Recipe(features=features, inputs={"a": "number", "b": "number"})


def computed(frame: pl.DataFrame, tmp_path: Path, **options: Any) -> sf.FeatureTable:
    return recipe().transform(frame, output=tmp_path / "o.parquet", progress=False, **options)


def test_values_beyond_the_range_are_clipped_and_counted(tmp_path: Path) -> None:
    table = computed(ROWS, tmp_path)
    assert table.to_polars().to_dict(as_series=False) == {
        "a / b": [1.0, 3.0, -2.0, None, None, None],
        "log(a)": [0.1, 0.1, None, None, None, None],
        "free": [1.0, 4.0, 1.0, 0.0, 1.0, None],
    }
    assert table.report.clipped == {"a / b": 2, "log(a)": 2, "free": 0}
    assert table.report.nulls == {"a / b": 3, "log(a)": 4, "free": 1}
    assert "values beyond the range of the fit: a / b: 2, log(a): 2" in str(table.report)


def test_extrapolation_can_be_kept(tmp_path: Path) -> None:
    table = computed(ROWS, tmp_path, extrapolate="keep")
    assert table.to_polars()["a / b"].to_list() == [1.0, 4.0, -9.0, None, None, None]
    assert table.report.clipped == {"a / b": 0, "log(a)": 0, "free": 0}


@pytest.mark.parametrize("extrapolate", ["clip", "keep"])
def test_exports_clip_as_transform_does(extrapolate: str, tmp_path: Path) -> None:
    wanted = computed(ROWS, tmp_path, extrapolate=extrapolate).to_polars()
    with duckdb.connect() as connection:
        connection.register("source", ROWS.to_arrow())
        made = connection.sql(recipe().to_sql(extrapolate=extrapolate)).pl()
    space: dict[str, Any] = {}
    exec(recipe().to_polars(extrapolate=extrapolate), space)
    for other in (made, space["features"](ROWS.lazy()).collect()):
        for name in wanted.columns:
            assert other[name].to_list() == pytest.approx(wanted[name].to_list(), nan_ok=True)
    with pytest.raises(OptionError, match="extrapolate='wild'"):
        recipe().to_sql(extrapolate="wild")


def test_the_range_of_the_fit_clips_nothing_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(4000, 3)), schema=["a", "b", "c"])
    frame = frame.with_columns(y=pl.col("a") * pl.col("b"))
    table = sf.fit_transform(frame, target="y", output=tmp_path / "o.parquet", progress=False,
                             control="features")  # fmt: skip
    (feature,) = table.features
    values = table.to_polars()["a * b"]
    assert feature.low is not None and feature.high is not None
    assert table.report.clipped == {"a * b": 0}
    assert (values.min(), values.max()) == (feature.low, feature.high)
    loud = frame.with_columns(a=pl.col("a") * 1e6)
    wild = table.recipe.transform(loud, output=tmp_path / "p.parquet", progress=False)
    assert wild.to_polars()["a * b"].abs().max() <= max(-feature.low, feature.high)
    assert wild.report.clipped is not None and wild.report.clipped["a * b"] > 3900


def test_recipes_of_the_first_version_are_read() -> None:
    data = json.loads(recipe().to_json())
    data["format_version"] = 1
    for entry in data["features"]:
        del entry["low"], entry["high"]
    old = Recipe.from_json(json.dumps(data))
    assert [f.low for f in old.features] == [None] * 3
    assert old.exprs == recipe().exprs
    assert Recipe.from_json(recipe().to_json()) == recipe()


def test_a_column_that_is_the_target_is_called_leakage(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(rng.normal(size=(3000, 3)), schema=["a", "b", "c"])
    frame = frame.with_columns(y=pl.col("a") * pl.col("b") + pl.col("c"))
    told = {}
    for name, extra in (("leaky", 5.0 - 2.0 * pl.col("y")), ("noisy", pl.col("y") * 0 + 1)):
        table = sf.fit_transform(frame.with_columns(copied=extra), target="y", progress=False,
                                 output=tmp_path / f"{name}.parquet")  # fmt: skip
        told[name] = (table.report.leaks, str(table.report))
    assert told["leaky"][0] == ("copied",) and "copied equals the target" in told["leaky"][1]
    assert told["noisy"][0] == () and "leakage" not in told["noisy"][1]
