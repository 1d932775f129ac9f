"""``StreamFeat``: fit, transform, and what came in goes out.

This module covers: parameters, column names, and giving back pandas, Polars, NumPy or a path.
This module does *not* cover: reading frames (sources), or choosing (search).
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from streamfeat.errors import OptionError, RecipeError, TargetError
from streamfeat.pipeline import run
from streamfeat.pipeline.recipe import Recipe
from streamfeat.pipeline.result import FeatureTable, RunReport

_ROW = "__streamfeat_row__"
_TARGET = "target"


class StreamFeat:
    """Automated feature engineering as an estimator.

    Parameters
    ----------
    target, time, group, task, memory, steps, beam, max_features, min_features, level, \
policy, control, transformations, windows, include, exclude, seed, threads, progress
        As in ``streamfeat.fit_transform``.

    Attributes
    ----------
    recipe_ : Recipe
        What was chosen.
    report_ : RunReport
        How the fit went.
    n_features_in_ : int
    feature_names_in_ : ndarray of str

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(2000, 3))
    >>> model = StreamFeat(progress=False).fit(X, X[:, 0] * X[:, 1])
    >>> model.get_feature_names_out()[0], model.transform(X).shape[0]
    ('x0 * x1', 2000)
    """

    recipe_: Recipe
    report_: RunReport
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        target: Any = None,
        time: str | None = None,
        group: str | None = None,
        task: str | None = None,
        memory: str | int | None = None,
        steps: int = 2,
        beam: int = 300,
        max_features: int = 50,
        min_features: int = 0,
        level: float = 0.05,
        policy: str = "auto",
        control: str = "model",
        transformations: tuple[str, ...] = ("1/", "exp", "log", "abs", "sqrt", "^2", "^3"),
        windows: tuple[int, ...] = (5, 10, 20, 60),
        include: tuple[str, ...] | None = None,
        exclude: tuple[str, ...] | None = None,
        seed: int = 0,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.target = target
        self.time = time
        self.group = group
        self.task = task
        self.memory = memory
        self.steps = steps
        self.beam = beam
        self.max_features = max_features
        self.min_features = min_features
        self.level = level
        self.policy = policy
        self.control = control
        self.transformations = transformations
        self.windows = windows
        self.include = include
        self.exclude = exclude
        self.seed = seed
        self.threads = threads
        self.progress = progress

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, by name."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> StreamFeat:
        """Set parameters by name.

        Raises
        ------
        OptionError
            If a name is no parameter.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise OptionError(
                    f"StreamFeat has no parameter {name!r}", hint=f"known: {', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any = None) -> StreamFeat:
        """Search and choose.

        Parameters
        ----------
        X
            A source as in ``streamfeat.fit_transform``, shape (n_rows, n_columns) if in memory.
        y
            The target, shape (n_rows,), for an ``X`` in memory; else give ``target``.

        Raises
        ------
        TargetError
            If both or neither of ``y`` and ``target`` say what to predict.
        """
        options = self.get_params()
        source: Any = X
        if y is not None:
            if self.target is not None:
                raise TargetError("both y and target were given", hint="leave one of them out")
            source, options["target"] = _with_target(X, y)
        recipe = run.fit(source, options)
        self.recipe_, self.report_ = recipe, recipe.report
        self.feature_names_in_ = _names(X)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """``fit(X, y)``, then ``transform(X)``."""
        return self.fit(X, y).transform(X)

    def transform(self, X: Any, *, output: str | Path | None = None) -> Any:
        """The chosen features of ``X``, row for row.

        Returns
        -------
        pandas or Polars DataFrame, ndarray of shape (n_rows, n_features)
            What ``X`` was; for a path, or with ``output``, a ``FeatureTable``.
        """
        if not hasattr(self, "recipe_"):
            raise RecipeError("this StreamFeat is not fitted", hint="call fit first")
        options: dict[str, Any] = {
            "memory": self.memory,
            "threads": self.threads,
            "progress": self.progress,
        }
        give_back = _giver(X)
        if output is not None or give_back is None:
            return self.recipe_.transform(X, output=output, **options)
        with tempfile.TemporaryDirectory(prefix="streamfeat-") as directory:
            options["output"] = Path(directory) / "features.parquet"
            table = run.transform(self.recipe_, _with_rows(X), options, carry=(_ROW,))
            return give_back(X, _in_order(table, self.recipe_))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the chosen features, shape (n_features,)."""
        return np.array([feature.name for feature in self.recipe_.features], dtype=object)

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name].default
        ]
        return f"StreamFeat({', '.join(changed)})"


def _kind(X: Any) -> str:
    return "numpy" if isinstance(X, np.ndarray) else type(X).__module__.partition(".")[0]


_IN_MEMORY = {
    ("numpy", "ndarray"),
    ("pandas", "DataFrame"),
    ("polars", "DataFrame"),
    ("pyarrow", "Table"),
}


def _table(X: Any) -> Any:
    """An in-memory ``X`` as an Arrow table, without copying where that can be."""
    from streamfeat.sources.frames import TableSource
    from streamfeat.sources.opening import open_source

    if (_kind(X), type(X).__name__) not in _IN_MEMORY:
        raise OptionError(
            f"y can be given for a frame in memory, not for {type(X).__name__}",
            hint="leave y out and pass `target=` a column of the source",
        )
    source = open_source(X, spill=Path(tempfile.gettempdir()))
    assert isinstance(source, TableSource)
    return source.table


def _with_target(X: Any, y: Any) -> tuple[Any, str]:
    import pyarrow as pa

    table = _table(X)
    values = pa.array(np.asarray(y).ravel())
    if len(values) != table.num_rows:
        raise TargetError(
            f"y has {len(values):,} rows, X has {table.num_rows:,}", hint="give them equal length"
        )
    name = _TARGET
    while name in table.column_names:
        name += "_"
    return table.append_column(name, values), name


def _with_rows(X: Any) -> Any:
    import pyarrow as pa

    table = _table(X)
    return table.append_column(_ROW, pa.array(np.arange(table.num_rows, dtype=np.int64)))


def _in_order(table: FeatureTable, recipe: Recipe) -> Any:
    arrow = table.to_arrow()
    order = np.argsort(arrow.column(_ROW).to_numpy(), kind="stable")
    return arrow.select([feature.name for feature in recipe.features]).take(order)


def _names(X: Any) -> np.ndarray:
    from streamfeat.sources.opening import open_source

    if _giver(X) is not None:
        return np.array(_table(X).column_names, dtype=object)
    with tempfile.TemporaryDirectory(prefix="streamfeat-") as directory:
        source = open_source(X, spill=Path(directory))
        return np.array([column.name for column in source.columns], dtype=object)


def _giver(X: Any) -> Callable[[Any, Any], Any] | None:
    """Turns an Arrow table into what ``X`` is; None if ``X`` is not in memory."""
    if _kind(X) == "polars" and type(X).__name__ == "DataFrame":
        return _give_polars
    if _kind(X) == "pandas" and type(X).__name__ == "DataFrame":
        return _give_pandas
    return _give_numpy if _kind(X) == "numpy" else None


def _give_polars(X: Any, features: Any) -> Any:
    import polars as pl

    return pl.DataFrame(features) if features.num_columns else pl.DataFrame()


def _give_pandas(X: Any, features: Any) -> Any:
    frame = features.to_pandas()
    if features.num_columns == 0:
        return X.iloc[:, :0].copy()
    frame.index = X.index
    return frame


def _give_numpy(X: Any, features: Any) -> Any:
    if features.num_columns == 0:
        return np.empty((len(X), 0))
    return np.column_stack([features.column(k).to_numpy() for k in range(features.num_columns)])
