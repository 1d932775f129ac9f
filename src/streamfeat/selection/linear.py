"""Linear models from Grams: standardised parts, ridge on some columns, errors on other rows.

This module covers: fitting many column sets to one Gram, and their squared errors on another.
This module does *not* cover: which columns (policies), or how good is good enough (selector).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamfeat.selection.gram import Gram
from streamfeat.selection.moments import Array

_LEAST_VARIANCE = 1e-12
"""A variance below this share of the mean square is taken to be rounding."""


@dataclass(frozen=True, eq=False)
class Standardised:
    """Columns and outputs as correlations; ``scale`` 0 marks a constant column.

    Shapes: ``correlation`` (K, K), ``with_outputs`` (q, K), ``means`` and ``scale`` (K,),
    ``output_means`` and ``output_scale`` (q,).
    """

    correlation: Array
    with_outputs: Array
    means: Array
    scale: Array
    output_means: Array
    output_scale: Array

    @property
    def n_features(self) -> int:
        return len(self.scale)


def standardise(gram: Gram, n_outputs: int) -> Standardised:
    """A Gram over [1, K features, q outputs], standardised."""
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = gram.covariance
        variance = np.diag(covariance)
        moving = variance > _LEAST_VARIANCE * np.maximum(
            np.diag(gram.products)[1:] / max(gram.n, 1e-300), 1e-300
        )
    moving &= np.isfinite(variance)
    scale = np.where(moving, np.sqrt(np.where(moving, variance, 1.0)), 0.0)
    inverse = np.where(moving, 1.0 / np.where(moving, scale, 1.0), 0.0)
    usable = np.outer(moving, moving)
    correlation = np.where(usable, covariance, 0.0) * np.outer(inverse, inverse)
    k = len(scale) - n_outputs
    return Standardised(
        correlation[:k, :k],
        correlation[k:, :k],
        gram.means[:k],
        scale[:k],
        gram.means[k:],
        scale[k:],
    )


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model on the columns ``active``: ``slopes`` (q, a), ``intercepts`` (q,)."""

    active: tuple[int, ...]
    slopes: Array
    intercepts: Array
    n_features: int

    def squared_error(self, gram: Gram) -> float:
        """Sum of squared errors over the Gram's rows and all outputs."""
        total = 0.0
        for q, (intercept, slopes) in enumerate(zip(self.intercepts, self.slopes, strict=True)):
            places = [0, *(1 + k for k in self.active), 1 + self.n_features + q]
            inside = gram.products[np.ix_(places, places)]
            weights = np.array([-intercept, *(-slopes), 1.0])
            total += max(float(weights @ inside @ weights), 0.0)
        return total

    def coefficients(self) -> Array:
        """Slopes of all columns, shape (q, K)."""
        out = np.zeros((len(self.intercepts), self.n_features))
        out[:, list(self.active)] = self.slopes
        return out


def fit(part: Standardised, active: Sequence[int], penalty: float) -> Model:
    """Ridge on the columns ``active``; constant ones have slope 0.

    Parameters
    ----------
    penalty
        Added to the diagonal of the correlations.
    """
    columns = [k for k in active if part.scale[k] > 0]
    inside = part.correlation[np.ix_(columns, columns)] + penalty * np.eye(len(columns))
    right = part.with_outputs[:, columns]
    beta = np.linalg.solve(inside, right.T).T if columns else np.zeros((len(right), 0))
    slopes = beta * part.output_scale[:, None] / part.scale[columns]
    intercepts = part.output_means - slopes @ part.means[columns]
    return Model(tuple(columns), slopes, intercepts, part.n_features)


def constant(part: Standardised) -> Model:
    """The model that predicts the training mean."""
    return fit(part, (), 0.0)
