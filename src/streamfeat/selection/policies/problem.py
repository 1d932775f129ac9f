"""What a policy is asked.

This module covers: the Grams of a training set and the limits of the answer.
This module does *not* cover: answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streamfeat.selection.gram import FoldGrams, Gram
from streamfeat.selection.linear import Standardised, standardise

LEAST_OWN = 0.01
"""A column of whose variance those taken explain more than 99 % is not taken: its coefficient would
be large and cancel another's, until a row comes where it does not."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A training set.

    Attributes
    ----------
    grams, blocks
        The Gram of each block, and which blocks train.
    pool
        Columns that may be chosen.
    n_outputs
        Numbers to predict; their columns come last.
    most
        Columns chosen at most.
    """

    grams: FoldGrams
    blocks: tuple[int, ...]
    pool: tuple[int, ...]
    n_outputs: int
    most: int

    @cached_property
    def gram(self) -> Gram:
        return self.grams.total(self.blocks)

    @cached_property
    def part(self) -> Standardised:
        """The whole Gram, standardised."""
        return standardise(self.gram, self.n_outputs)

    @cached_property
    def pooled(self) -> Standardised:
        """The columns of the pool, standardised; column k is ``pool[k]``."""
        part, places = self.part, np.array(self.pool, dtype=np.intp)
        return Standardised(
            part.correlation[np.ix_(places, places)],
            part.with_outputs[:, places],
            part.means[places],
            part.scale[places],
            part.output_means,
            part.output_scale,
        )

    def on(self, blocks: Sequence[int]) -> Problem:
        """The same question of other blocks."""
        return Problem(self.grams, tuple(blocks), self.pool, self.n_outputs, self.most)

    def named(self, columns: Sequence[int]) -> tuple[int, ...]:
        """Places in the pool as columns."""
        return tuple(self.pool[k] for k in columns)


Policy = Callable[[Problem], list[tuple[int, ...]]]
