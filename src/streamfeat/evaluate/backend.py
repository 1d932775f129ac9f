"""What an engine must offer to compute expressions, and how one is found.

This module covers: the protocol and the lookup by name.
This module does *not* cover: translation (polars_backend, duckdb_backend).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from streamfeat.errors import OptionError, UnsupportedPrimitiveError
from streamfeat.plan.expr import Call, Expr, Primitive


class Backend(Protocol):
    """Computes expressions over a table.

    A null, NaN or infinite input is null; so is every result that is not finite.
    """

    name: str

    def supports(self, primitive: Primitive) -> bool:
        """Whether the backend has a translation of the primitive."""
        ...

    def evaluate(
        self,
        table: pa.Table,
        exprs: Sequence[Expr],
        *,
        group: str | None = None,
        time: str | None = None,
    ) -> pa.Table:
        """Float64 columns f0, f1, ... in the row order of ``table``.

        Windows follow ``time`` within ``group``; without ``time``, the order of the rows.
        """
        ...


def backend(name: str) -> Backend:
    """The backend called "polars" or "duckdb".

    Raises
    ------
    OptionError
        If there is none of that name.
    """
    if name == "polars":
        from streamfeat.evaluate.polars_backend import PolarsBackend

        return PolarsBackend()
    if name == "duckdb":
        from streamfeat.evaluate.duckdb_backend import DuckDBBackend

        return DuckDBBackend()
    raise OptionError(f"no backend is called {name!r}", hint='use "polars" or "duckdb"')


def check_supported(backend: Backend, exprs: Sequence[Expr]) -> None:
    """Refuse expressions with a primitive that ``backend`` cannot compute.

    Raises
    ------
    UnsupportedPrimitiveError
        Naming the primitive and the backend.
    """
    for expr in exprs:
        for node in expr.walk():
            if isinstance(node, Call) and not backend.supports(node.primitive):
                raise UnsupportedPrimitiveError(
                    f"{backend.name} cannot compute {node.primitive.name!r}",
                    hint="use another backend",
                )
