"""From what a search found to a recipe and to what a report says of it.

This module covers: plain, serialisable data made of a selection.
This module does *not* cover: the search (search), or the report's form (result).
"""

from __future__ import annotations

from typing import Any

from streamfeat.pipeline.recipe import Evidence, Feature, Recipe
from streamfeat.search.run import Found
from streamfeat.selection.selector import Selection
from streamfeat.sources.roles import Roles
from streamfeat.sources.source import Source

_LEAKING_R2 = 1 - 1e-6
"""A feature that alone explains so much of the target is the target in another dress."""


def recipe_of(
    found: Found, source: Source, roles: Roles, *, level: float, short: bool = False
) -> Recipe:
    """The recipe of what a search chose."""
    selection = found.selection
    features = tuple(
        Feature(
            name=f"f{k:03d}" if short else chosen.name,
            formula=chosen.name,
            score=float(chosen.gain),
            evidence=Evidence(
                gain=float(chosen.gain),
                t_statistic=float(chosen.t_statistic),
                p_value=float(chosen.p_value),
                stability=float(chosen.stability),
                marginal_r2=float(chosen.marginal_r2),
                significant=bool(chosen.significant),
                interval=chosen.interval,
                block_gains=chosen.block_gains,
            ),
            low=found.ranges[chosen.index][0],
            high=found.ranges[chosen.index][1],
        )
        for k, chosen in enumerate(selection.selected, 1)
    )
    names = sorted({name for feature in features for name in feature.expr.inputs})
    return Recipe(
        features=features,
        inputs={name: source.column(name).role_type for name in names},
        group=roles.group,
        time=roles.time,
        target=found.target.text,
        task=found.target.task,
        score=_float(selection.score),
        score_interval=_interval(selection),
        baseline_score=_float(selection.baseline_score),
        level=level,
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _interval(selection: Selection) -> tuple[float, float] | None:
    pair = selection.score_interval
    return None if pair is None else (float(pair[0]), float(pair[1]))


def facts_of(found: Found) -> dict[str, Any]:
    """What a report says of a search, as plain data."""
    selection = found.selection
    return {
        "target": found.target.text,
        "task": found.target.task,
        "n_terms": found.n_terms,
        "n_candidates": found.n_candidates,
        "n_finalists": len(found.finalists),
        "dropped_terms": found.n_dropped_terms,
        "n_rows_search": selection.n_rows_search,
        "n_rows_confirm": selection.n_rows_confirm,
        "n_rows_final": selection.n_rows_final,
        "score": _float(selection.score),
        "score_interval": _interval(selection),
        "baseline_score": _float(selection.baseline_score),
        "model_p_value": _float(selection.model_p_value),
        "policy": selection.policy,
        "leaks": [f.name for f in selection.selected if f.marginal_r2 > _LEAKING_R2],
        "correlation": selection.correlation,
        "rejected": [
            {"formula": r.name, "reason": r.reason, "gain": float(r.gain)}
            for r in selection.rejected[:20]
        ],
    }
