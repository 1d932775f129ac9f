"""The recipe: what was chosen, as data that any machine can run again.

This module covers: features with their evidence, JSON with a format version, SQL and Polars text.
This module does *not* cover: running it (pipeline.run), or choosing (search).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfeat.errors import OptionError, RecipeError
from streamfeat.plan.expr import Expr
from streamfeat.plan.parse import parse
from streamfeat.plan.primitives import call

if TYPE_CHECKING:
    from streamfeat.pipeline.result import FeatureTable

FORMAT_VERSION = 2
_READABLE = (1, 2)
METADATA_KEY = "streamfeat.recipe"


@dataclass(frozen=True)
class Evidence:
    """Why a feature was chosen; every number is from rows that took no part in choosing it.

    Attributes
    ----------
    gain
        Share of the target's variance that the model explains less without the feature.
    t_statistic, p_value
        Of the gain over the confirmation blocks, one-sided.
    stability
        Share of training sets in which the selection path picks the feature.
    marginal_r2
        R² of the feature alone, on the search blocks.
    significant
        Whether it passed at the stated false-discovery level.
    interval
        90 % interval of the gain.
    block_gains
        The gain on each block of rows that took no part.
    """

    gain: float
    t_statistic: float
    p_value: float
    stability: float
    marginal_r2: float
    significant: bool
    interval: tuple[float, float] | None = None
    block_gains: tuple[float, ...] = ()


@dataclass(frozen=True)
class Feature:
    """A chosen feature.

    ``low`` and ``high`` are the range it had on the rows it was fitted on; values beyond are
    clipped to it. None: there is no guard.

    Examples
    --------
    >>> Feature("f001", "log(x)", 0.1, None).expr.inputs
    ('x',)
    """

    name: str
    formula: str
    score: float
    evidence: Evidence | None
    low: float | None = None
    high: float | None = None

    @cached_property
    def guarded(self) -> Expr:
        """The expression, clipped to its range."""
        if self.low is None or self.high is None:
            return self.expr
        return call("clip", self.expr, params=(self.low, self.high))

    @cached_property
    def expr(self) -> Expr:
        return parse(self.formula)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Recipe:
    """Features that can be computed on new data.

    Attributes
    ----------
    features
        In order of contribution.
    inputs
        Columns read, with their kind ("number" or "timestamp").
    group, time
        The columns that say which rows belong together and in which order.
    score, score_interval, baseline_score
        Out-of-sample R² of a linear model on the features, its 90 % interval, and that of the
        raw columns alone; on rows that took no part in anything before.
    """

    features: tuple[Feature, ...]
    inputs: Mapping[str, str]
    group: str | None = None
    time: str | None = None
    target: str | None = None
    task: str | None = None
    score: float | None = None
    score_interval: tuple[float, float] | None = None
    baseline_score: float | None = None
    level: float | None = None
    report: Any = field(default=None, compare=False, repr=False)

    @property
    def exprs(self) -> dict[str, Expr]:
        """Expression of each feature, by column name."""
        return {feature.name: feature.expr for feature in self.features}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Range of each feature that is guarded, by column name."""
        return {
            f.name: (f.low, f.high)
            for f in self.features
            if f.low is not None and f.high is not None
        }

    def shipped(self, extrapolate: str = "clip") -> dict[str, Expr]:
        """What is computed of each feature: clipped to its range, or with "keep" as it is.

        Raises
        ------
        OptionError
            If ``extrapolate`` is neither.
        """
        if extrapolate not in ("clip", "keep"):
            raise OptionError(
                f"extrapolate={extrapolate!r} is unknown", hint='use "clip" or "keep"'
            )
        guarded = extrapolate == "clip"
        return {f.name: f.guarded if guarded else f.expr for f in self.features}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name for name in (self.group, self.time) if name is not None)

    @property
    def lookback(self) -> int:
        """Rows of history of each group that the features need (recursive ones: all)."""
        return max((feature.expr.lookback for feature in self.features), default=0)

    @property
    def schema_fingerprint(self) -> str:
        """SHA-256 of the names and kinds of the columns read."""
        return hashlib.sha256(json.dumps(sorted(self.inputs.items())).encode()).hexdigest()

    def to_json(self) -> str:
        """The recipe as JSON text; equal recipes give equal bytes."""
        return json.dumps(
            {
                "format": "streamfeat-recipe",
                "format_version": FORMAT_VERSION,
                "features": [_feature_dict(feature) for feature in self.features],
                "inputs": dict(sorted(self.inputs.items())),
                "schema_fingerprint": self.schema_fingerprint,
                "group": self.group,
                "time": self.time,
                "target": self.target,
                "task": self.task,
                "score": self.score,
                "score_interval": list(self.score_interval) if self.score_interval else None,
                "baseline_score": self.baseline_score,
                "level": self.level,
            },
            indent=1,
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what ``to_json`` wrote.

        Raises
        ------
        RecipeError
            If the text is no recipe, of an unknown version, or was tampered with.
        """
        try:
            data = json.loads(text)
            if data["format"] != "streamfeat-recipe":
                raise KeyError("format")
            version = data["format_version"]
            if version not in _READABLE:
                raise RecipeError(
                    f"the recipe has format version {version}; this version reads "
                    f"{' and '.join(map(str, _READABLE))}",
                    hint="update streamfeat, or write the recipe again",
                )
            recipe = cls._from_dict(data)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise RecipeError(
                f"this is no streamfeat recipe ({error})", hint="pass a file written by save()"
            ) from error
        if recipe.schema_fingerprint != data["schema_fingerprint"]:
            raise RecipeError(
                "the recipe's inputs do not match its schema fingerprint",
                hint="the file was changed by hand; write it again",
            )
        return recipe

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> Recipe:
        interval = data["score_interval"]
        recipe = cls(
            features=tuple(_feature(entry) for entry in data["features"]),
            inputs=dict(data["inputs"]),
            group=data["group"],
            time=data["time"],
            target=data["target"],
            task=data["task"],
            score=data["score"],
            score_interval=(interval[0], interval[1]) if interval else None,
            baseline_score=data["baseline_score"],
            level=data["level"],
        )
        for feature in recipe.features:
            if feature.expr.lookahead:
                raise RecipeError(f"feature {feature.name!r} looks into the future")
        return recipe

    def save(self, path: str | Path) -> Path:
        """Write the recipe as JSON; the file appears whole or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.to_json() + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    def to_sql(
        self, *, dialect: str = "duckdb", relation: str = "source", extrapolate: str = "clip"
    ) -> str:
        """One SELECT statement that computes the features from ``relation``.

        ``extrapolate`` is as in ``transform``.

        Raises
        ------
        OptionError
            If the dialect is unknown.
        """
        from streamfeat.evaluate.duckdb_backend import select_sql

        if dialect != "duckdb":
            raise OptionError(f"dialect {dialect!r} is unknown", hint='use dialect="duckdb"')
        return select_sql(
            self.shipped(extrapolate),
            relation=relation,
            keys=self.keys,
            group=self.group,
            time=self.time,
        )

    def to_polars(self, *, extrapolate: str = "clip") -> str:
        """Polars code: a function ``features(frame)`` of a LazyFrame.

        ``extrapolate`` is as in ``transform``.
        """
        from streamfeat.evaluate.polars_code import select_code

        features = self.shipped(extrapolate)
        return select_code(features, keys=self.keys, group=self.group, time=self.time)

    def transform(
        self, source: Any, *, output: str | Path | None = None, **options: Any
    ) -> FeatureTable:
        """Compute the features on new data.

        Parameters
        ----------
        source
            As in ``fit_transform``.
        output
            Where to write; None: the managed cache.
        **options
            memory, threads, overwrite, directory, sort, spill, progress; extrapolate: "clip" (the
            default) clips values to the range they had when the recipe was fitted, and the report
            counts them; "keep" leaves them.

        Raises
        ------
        RecipeError
            If a column the recipe needs is missing or of another kind.
        """
        from streamfeat.pipeline.run import transform

        return transform(self, source, {**options, "output": output})

    def __str__(self) -> str:
        lines = [f"Recipe of {len(self.features)} features"]
        lines += [f"  {feature.formula}" for feature in self.features]
        return "\n".join(lines)


def _feature_dict(feature: Feature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "formula": feature.formula,
        "score": feature.score,
        "low": feature.low,
        "high": feature.high,
        "evidence": asdict(feature.evidence) if feature.evidence else None,
    }


def _feature(entry: dict[str, Any]) -> Feature:
    evidence = entry["evidence"]
    return Feature(
        entry["name"],
        entry["formula"],
        entry["score"],
        _evidence(evidence) if evidence else None,
        entry.get("low"),
        entry.get("high"),
    )


def _evidence(entry: dict[str, Any]) -> Evidence:
    interval = entry.get("interval")
    return Evidence(
        **{
            **entry,
            "interval": (interval[0], interval[1]) if interval else None,
            "block_gains": tuple(entry.get("block_gains", ())),
        }
    )


def load(path: str | Path) -> Recipe:
    """The recipe in a JSON file, or of a Parquet output that describes itself.

    Raises
    ------
    RecipeError
        If the file does not exist or holds no recipe.
    """
    path = Path(path)
    if not path.exists():
        raise RecipeError(f"{path} does not exist", hint="pass a recipe file or an output")
    if path.is_dir() or path.suffix in {".parquet", ".pq"}:
        from streamfeat.materialise.writer import read_metadata

        text = read_metadata(path).get(METADATA_KEY)
        if text is None:
            raise RecipeError(f"{path} holds no recipe", hint="it was not written by streamfeat")
        return Recipe.from_json(text)
    return Recipe.from_json(path.read_text(encoding="utf-8"))
