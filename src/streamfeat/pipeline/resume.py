"""What lets a rerun go on: the key of a search, its note beside the output, the managed cache.

This module covers: naming runs by what they depend on, and keeping a finished search.
This module does *not* cover: rows that were already written (materialise.writer).
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streamfeat.pipeline.options import Options
from streamfeat.pipeline.recipe import Recipe
from streamfeat.sources.source import Source

VERSION = version("streamfeat")
_SEARCH_OPTIONS = (
    "target", "time", "group", "bars", "task", "steps", "beam", "max_features", "min_features",
    "level", "policy", "control", "transformations", "windows", "include", "exclude", "names",
    "extrapolate", "seed",
)  # fmt: skip


def search_key(source: Source, options: Options) -> str:
    """What the search depends on: rows and options, never memory or threads."""
    chosen = {name: str(getattr(options, name)) for name in _SEARCH_OPTIONS}
    text = json.dumps([VERSION, source.fingerprint(), chosen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class SearchNote:
    """The finished search's recipe beside the output, until the output is whole."""

    def __init__(self, path: Path, key: str) -> None:
        self._file = path.with_name(f".{path.name}.streamfeat-search.json")
        self._key = key

    def read(self) -> tuple[Recipe, dict[str, Any]] | None:
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            if data["key"] != self._key:
                return None
            return Recipe.from_json(data["recipe"]), data["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, recipe: Recipe, facts: dict[str, Any]) -> None:
        partial = self._file.with_suffix(".partial")
        text = json.dumps({"key": self._key, "recipe": recipe.to_json(), "facts": facts})
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self._file)

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def cached_output(key: str) -> Path:
    """Where an output without a path of its own is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "streamfeat" / "outputs"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / f"{key[:32]}.parquet"
