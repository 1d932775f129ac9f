"""Automated feature engineering on data that does not fit in memory.

>>> import streamfeat as sf
>>> table = sf.fit_transform("ohlcv.parquet")  # doctest: +SKIP

Names are loaded when first used: ``import streamfeat`` loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamfeat.api import explain, fit, fit_transform, load
    from streamfeat.estimators import StreamFeat
    from streamfeat.pipeline.recipe import Feature, Recipe
    from streamfeat.pipeline.result import FeatureTable, RunReport
    from streamfeat.pipeline.run import RunPlan
    from streamfeat.plan.targets import Label, forward, forward_return

__version__ = version("streamfeat")

_HOMES = {
    "explain": "api",
    "fit": "api",
    "fit_transform": "api",
    "load": "api",
    "StreamFeat": "estimators",
    "Feature": "pipeline.recipe",
    "Recipe": "pipeline.recipe",
    "FeatureTable": "pipeline.result",
    "RunReport": "pipeline.result",
    "RunPlan": "pipeline.run",
    "Label": "plan.targets",
    "forward": "plan.targets",
    "forward_return": "plan.targets",
}

__all__ = [
    "Feature",
    "FeatureTable",
    "Label",
    "Recipe",
    "RunPlan",
    "RunReport",
    "StreamFeat",
    "explain",
    "fit",
    "fit_transform",
    "forward",
    "forward_return",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamfeat' has no attribute {name!r}")
    value = getattr(import_module(f"streamfeat.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
