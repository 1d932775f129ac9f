"""What users call: a few functions, each one run.

This module covers: ``fit_transform``, ``fit``, ``explain`` and ``load``.
This module does *not* cover: how a run goes (pipeline), or scikit-learn (estimators).
"""

from __future__ import annotations

from typing import Any

from streamfeat.pipeline import run
from streamfeat.pipeline.recipe import Recipe, load
from streamfeat.pipeline.result import FeatureTable
from streamfeat.pipeline.run import RunPlan

__all__ = ["explain", "fit", "fit_transform", "load"]


def fit_transform(source: Any, **options: Any) -> FeatureTable:
    """Search features of ``source``, choose honestly, and write the chosen ones.

    Parameters
    ----------
    source
        A path, glob, list of paths, (hive) directory, fsspec URL, pyarrow Dataset or Table, Polars
        LazyFrame or DataFrame, pandas DataFrame, DuckDB relation, 2-d NumPy array, or anything
        with ``__arrow_c_stream__``.
    **options
        ``target``: a column, or ``forward_return(column, horizon)``; None: the next row's return
        of the close price. ``time``, ``group``: columns; None: inferred and announced. ``memory``:
        the budget, as "2GB" or bytes; None: STREAMFEAT_MEMORY, else 60 % of what is free.
        ``output``: a path; None: the managed cache. All others: see ``streamfeat --help``.

    Returns
    -------
    FeatureTable
        The written table, with ``features``, ``recipe`` and ``report``. Where nothing passes, it
        has key columns only and the report says so.

    Raises
    ------
    StreamFeatError
        A subclass that names the column, file or option; nothing half-written remains.

    Examples
    --------
    >>> import numpy as np, polars as pl
    >>> x = np.random.default_rng(0).normal(size=(2000, 3))
    >>> frame = pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(y=pl.col("a") * pl.col("b"))
    >>> table = fit_transform(frame, target="y", progress=False)
    >>> table.features[0].formula
    'a * b'
    """
    return run.fit_transform(source, options)


def fit(source: Any, **options: Any) -> Recipe:
    """As ``fit_transform``, without writing: the recipe, with its ``report``."""
    return run.fit(source, options)


def explain(source: Any, **options: Any) -> RunPlan:
    """What ``fit_transform`` would do: roles, candidates, passes, and where every byte goes.

    Raises
    ------
    BudgetTooSmallError
        If the plan does not fit; it names the least budget that would do.
    """
    return run.explain(source, options)
