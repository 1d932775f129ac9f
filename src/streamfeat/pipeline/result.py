"""What a run hands back: the materialised table, its features and its report.

This module covers: ``FeatureTable`` and ``RunReport``, as text, data and HTML.
This module does *not* cover: making them (pipeline.run).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamfeat.memory.models import AllocationPlan, format_bytes
from streamfeat.pipeline.recipe import Feature, Recipe

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True)
class Rejected:
    """A candidate that came far and was not chosen."""

    formula: str
    reason: str
    gain: float


@dataclass(frozen=True)
class RunReport:
    """How a run went.

    Attributes
    ----------
    n_candidates
        Formulas scored, pairs that were never formed included.
    rejected
        The best that failed, and why.
    model_p_value
        Of the whole model against none, on the confirmation blocks.
    policy
        The selection policy whose features were taken.
    leaks
        Features that equal the target up to location and scale.
    correlation
        Of the chosen features, on the search rows, in their order.
    nulls, clipped
        Nulls per feature in the output, and values clipped to the feature's range.
    peak_bytes, budget_bytes
        Resident peak of the process, and what it was allowed.
    """

    source: str
    roles: str
    n_rows: int
    seconds: float
    peak_bytes: int
    budget_bytes: int
    budget_origin: str
    threads: int
    allocation: AllocationPlan
    passes: tuple[tuple[str, float], ...]
    n_resizes: int
    target: str | None = None
    task: str | None = None
    n_terms: int = 0
    n_candidates: int = 0
    n_finalists: int = 0
    dropped_terms: int = 0
    n_rows_search: int = 0
    n_rows_confirm: int = 0
    n_rows_final: int = 0
    score: float | None = None
    score_interval: tuple[float, float] | None = None
    baseline_score: float | None = None
    model_p_value: float | None = None
    level: float | None = None
    rejected: tuple[Rejected, ...] = ()
    policy: str | None = None
    leaks: tuple[str, ...] = ()
    correlation: tuple[tuple[float, ...], ...] = ()
    nulls: Mapping[str, int] | None = None
    clipped: Mapping[str, int] | None = None
    resumed_row: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        data = asdict(self)
        data["allocation"] = self.allocation.to_dict()
        return data

    def __str__(self) -> str:
        lines = [f"{name:<12} {value}" for name, value in self._facts()]
        tested = [r for r in self.rejected if "pass (" in r.reason]
        if tested:
            lines.append("best that failed")
            lines += [f"  {r.formula}: {r.reason}" for r in tested[:5]]
        return "\n".join(lines)

    def _facts(self) -> list[tuple[str, str]]:
        facts = [("source", f"{self.source}: {self.n_rows:,} rows; {self.roles}")]
        if self.target is not None:
            facts += [
                ("target", f"{self.target} ({self.task})"),
                (
                    "candidates",
                    f"{self.n_candidates:,} from {self.n_terms:,} terms; "
                    f"{self.n_finalists:,} to the final; none materialised",
                ),
                ("score", self._score_text()),
            ]
        facts.append(
            (
                "memory",
                f"peak {format_bytes(self.peak_bytes)} of {format_bytes(self.budget_bytes)} "
                f"({self.budget_origin})",
            )
        )
        if self.leaks:
            named = ", ".join(self.leaks)
            text = f"{named} equals the target up to location and scale; `exclude` its columns"
            facts.append(("leakage", f"{text} unless they are known in time"))
        if self.clipped and any(self.clipped.values()):
            facts.append(("clipped", _clipped_text(self.clipped)))
        facts.append(("time", f"{self.seconds:.1f} s on {self.threads} threads"))
        return facts

    def _score_text(self) -> str:
        if self.score is None or self.score_interval is None:
            return (
                f"no model passed at level {self.level:g} (p = {_number(self.model_p_value)}); "
                "no score"
            )
        low, high = self.score_interval
        text = f"out-of-sample R² {self.score:.4f} (90 %: {low:.4f} to {high:.4f})"
        if self.baseline_score is not None:
            text += f"; raw columns alone {self.baseline_score:.4f}"
        n_rows = self.n_rows_confirm + self.n_rows_final
        return text + f"; on {n_rows:,} rows the tested models never saw"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>"
            for n, v in self._facts()
        )
        share = min(self.peak_bytes / self.budget_bytes, 1.0)
        passes = _bars([(n, s, f"{s:.2f} s") for n, s in self.passes])
        memory = _bars([("peak of budget", share, f"{share:.0%}")], most=1.0)
        return f"<table>{rows}</table>{memory}{passes}"


def _clipped_text(clipped: Mapping[str, int]) -> str:
    most = sorted(((n, name) for name, n in clipped.items() if n), key=lambda pair: -pair[0])
    told = ", ".join(f"{name}: {n:,}" for n, name in most[:3])
    more = f" and {len(most) - 3} more features" if len(most) > 3 else ""
    return f"values beyond the range of the fit: {told}{more}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _bars(rows: Sequence[tuple[str, float, str]], *, most: float | None = None) -> str:
    """Horizontal bars as inline SVG."""
    if not rows:
        return ""
    most = most or max(value for _, value, _ in rows) or 1.0
    parts = []
    for k, (name, value, text) in enumerate(rows):
        y, width = 20 * k, 260 * max(value, 0.0) / most
        parts.append(
            f"<text x='0' y='{y + 14}'>{html.escape(name)}</text>"
            f"<rect x='250' y='{y + 3}' width='{width:.1f}' height='14' fill='#4c78a8'/>"
            f"<text x='{256 + width:.1f}' y='{y + 14}'>{html.escape(text)}</text>"
        )
    return (
        f"<svg width='640' height='{20 * len(rows) + 6}' font-size='12' "
        f"font-family='sans-serif'>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class FeatureTable:
    """A materialised output: a Parquet file or directory, never loaded unless asked.

    Attributes
    ----------
    path
        The file, or the directory of part files.
    recipe
        What computes it; ``recipe.transform`` does so on new data.
    """

    path: Path
    recipe: Recipe
    report: RunReport

    @property
    def features(self) -> list[Feature]:
        """The chosen features, best first."""
        return list(self.recipe.features)

    @cached_property
    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]

    def scan(self) -> pl.LazyFrame:
        """A lazy Polars frame over the output."""
        import polars as pl

        return pl.scan_parquet(self.files, glob=False)

    def to_polars(self) -> pl.DataFrame:
        """The output in memory, as a Polars frame."""
        return self.scan().collect()

    def to_pandas(self) -> Any:
        """The output in memory, as a pandas frame."""
        return self.to_arrow().to_pandas()

    def to_arrow(self) -> pa.Table:
        """The output in memory, as an Arrow table."""
        import pyarrow as pa

        return pa.table(self)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return _stream(self.files).__arrow_c_stream__(requested_schema)

    def to_dict(self) -> dict[str, Any]:
        """Path, features and report as plain data."""
        return {
            "path": str(self.path),
            "features": [asdict(feature) for feature in self.features],
            "report": self.report.to_dict(),
        }

    def __str__(self) -> str:
        lines = [str(self.report), f"{'output':<12} {self.path}", ""]
        if not self.features:
            lines.append("No feature passed.")
        width = max((len(f.formula) for f in self.features), default=0)
        for feature in self.features:
            lines.append(_feature_line(feature, width))
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        gains = [(f.formula, max(f.score, 0.0), f"{f.score:.2e}") for f in self.features]
        return self.report._repr_html_() + _bars(gains)


def _feature_line(feature: Feature, width: int) -> str:
    evidence = feature.evidence
    if evidence is None:
        return feature.formula
    mark = "" if evidence.significant else "  not significant"
    return (
        f"{feature.formula:<{width}}  gain {evidence.gain:9.2e}  t {evidence.t_statistic:6.2f}  "
        f"p {evidence.p_value:8.1e}  stability {evidence.stability:4.0%}{mark}"
    )


def _stream(files: Sequence[Path]) -> pa.RecordBatchReader:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(files[0]).remove_metadata()

    def batches() -> Any:
        for path in files:
            with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=65_536):
                    yield batch.replace_schema_metadata(None)

    return pa.RecordBatchReader.from_batches(schema, batches())
