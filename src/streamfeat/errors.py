"""The one tree of errors: what went wrong, with its numbers, and what to do about it.

This module covers: every exception the package raises on purpose, its hint and its exit code.
This module does *not* cover: deciding when to raise (each room does), or printing (cli).
"""

from __future__ import annotations

from typing import Any


class StreamFeatError(Exception):
    """Base of every error raised on purpose.

    Parameters
    ----------
    message
        What happened, naming the column, file or option.
    hint
        What to do; printed on a line of its own.

    Examples
    --------
    >>> print(TargetError("target 'y' is constant", hint="choose another column"))
    target 'y' is constant
    <BLANKLINE>
    Hint: choose another column
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.__dict__.copy()))


def _rebuild(
    kind: type[StreamFeatError], message: str, hint: str, state: dict[str, Any]
) -> StreamFeatError:
    error = kind(message, hint=hint)
    error.__dict__.update(state)
    return error


class OptionError(StreamFeatError, ValueError):
    """An option has a value or a name that is not understood."""

    exit_code = 2


class SourceError(StreamFeatError):
    """The input cannot be used as it is."""

    exit_code = 3


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A path, glob or directory matches no Parquet file."""


class UnsupportedSourceError(SourceError, TypeError):
    """The object given as a source is of no kind that can be read."""


class EmptySourceError(SourceError, ValueError):
    """The source has no rows or no columns."""


class SchemaDriftError(SourceError, ValueError):
    """Files of one dataset disagree about a column."""


class SourceChangedError(SourceError, RuntimeError):
    """A file was changed between two passes over it."""


class RowOrderError(SourceError, ValueError):
    """Rows are out of order and sorting was not allowed."""


class DuplicateRowsError(SourceError, ValueError):
    """Two rows share one (group, time) key."""


class CorruptSourceError(SourceError, OSError):
    """A file is truncated or its bytes do not match their checksum."""

    exit_code = 4


class ColumnNotFoundError(SourceError, KeyError):
    """A named column does not exist."""


class NoUsableColumnsError(SourceError, ValueError):
    """No numeric column is left to build features from."""


class TargetError(SourceError, ValueError):
    """The target is absent, constant, null or of a kind that cannot be predicted."""


class ExpressionError(StreamFeatError, ValueError):
    """A formula cannot be parsed or built."""

    exit_code = 2


class UnsupportedPrimitiveError(ExpressionError, NotImplementedError):
    """A backend cannot evaluate a primitive."""


class RecipeError(StreamFeatError, ValueError):
    """A recipe cannot be read, or does not fit the data it is applied to."""

    exit_code = 3


class OutputError(StreamFeatError, OSError):
    """The output cannot be written."""

    exit_code = 6


class OutputExistsError(OutputError, FileExistsError):
    """The output path exists and ``overwrite`` was not given."""


class MemoryManagementError(StreamFeatError):
    """Base of the errors of the memory half."""

    exit_code = 5


class MemoryExhaustionError(MemoryManagementError, MemoryError):
    """More memory was asked for than the budget has."""


class BudgetTooSmallError(MemoryExhaustionError):
    """The plan cannot fit the budget; ``minimum_bytes`` is the least that would do."""

    def __init__(self, message: str, *, minimum_bytes: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.minimum_bytes = minimum_bytes
