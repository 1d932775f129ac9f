"""Every option in one place: keyword, flag, TOML key and environment variable.

This module covers: names, defaults, help, parsing, ranges, and which layer wins.
This module does *not* cover: what an option does.

Precedence: keyword or flag > STREAMFEAT_* > streamfeat.toml or [tool.streamfeat] > default.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from streamfeat.errors import OptionError
from streamfeat.memory.models import parse_bytes
from streamfeat.selection.policies import POLICIES

TRANSFORMATION_NAMES = (
    "1/", "exp", "log", "abs", "sqrt", "^2", "^3", "1+", "1-", "sin", "cos", "exp-", "2^",
)  # fmt: skip
PREFIX = "STREAMFEAT_"
BAR_ROLES = ("open", "high", "low", "close", "volume")


def _option(default: Any, text: str, parse: Callable[[str, Any], Any]) -> Any:
    return field(default=default, metadata={"help": text, "parse": parse})


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise OptionError(f"{name}={value!r} is no text")
    return os.fspath(value)


def _any(name: str, value: Any) -> Any:
    return value


def _size(name: str, value: Any) -> int:
    return parse_bytes(value, option=name)


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise OptionError(f"{name}={value!r} is neither true nor false")


def _whole(least: int) -> Callable[[str, Any], int]:
    def parse(name: str, value: Any) -> int:
        try:
            number = None if isinstance(value, bool) else int(str(value))
        except ValueError:
            number = None
        if number is None or number < least:
            raise OptionError(f"{name}={value!r} is no whole number of at least {least}")
        return number

    return parse


def _share(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number < 1:
        raise OptionError(f"{name}={value!r} is no number between 0 and 1")
    return number


def _choice(*known: str) -> Callable[[str, Any], str]:
    def parse(name: str, value: Any) -> str:
        if value not in known:
            raise OptionError(f"{name}={value!r} is none of {', '.join(known)}")
        return str(value)

    return parse


def _list(name: str, value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else list(value)
    if not all(isinstance(part, str) for part in parts):
        raise OptionError(f"{name}={value!r} is no list of names")
    return tuple(part.strip() if isinstance(value, str) else part for part in parts)


def _transformations(name: str, value: Any) -> tuple[str, ...]:
    made = _list(name, value)
    for part in made:
        if part not in TRANSFORMATION_NAMES:
            raise OptionError(
                f"{name}: {part!r} is unknown", hint=f"known: {', '.join(TRANSFORMATION_NAMES)}"
            )
    return made


def _windows(name: str, value: Any) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    parse = _whole(2)
    made = tuple(sorted({parse(name, part) for part in parts if str(part).strip()}))
    if made and made[-1] > 4096:
        raise OptionError(f"{name}: {made[-1]} rows are more than 4096")
    return made


def _bars(name: str, value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else _pairs(name, value)
    made = {str(role).strip(): str(column).strip() for role, column in pairs}
    for role in made:
        if role not in BAR_ROLES:
            raise OptionError(f"{name}: {role!r} is none of {', '.join(BAR_ROLES)}")
    return made


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, str) or not all("=" in part for part in value.split(",")):
        raise OptionError(f"{name}={value!r} does not read as close=px,volume=qty")
    parts = [part.partition("=") for part in value.split(",")]
    return [(role, column) for role, _, column in parts]


@dataclass(frozen=True)
class Options:
    """The options of a run, checked.

    Examples
    --------
    >>> resolve({"memory": "2GB"}, environ={}, directory=None).memory
    2000000000
    """

    target: Any = _option(None, "column to predict, or forward_return(column, rows)", _any)
    time: str | None = _option(None, "time column; inferred if left out", _text)
    group: str | None = _option(None, "group column, such as symbol; inferred if left out", _text)
    bars: dict[str, str] | None = _option(
        None, "columns of bars that are not inferred, as close=px,volume=qty", _bars
    )
    task: Any = _option(
        None, "regression or classification; inferred", _choice("regression", "classification")
    )
    memory: int | None = _option(None, "memory budget, as 2GB; 60 % of what is free", _size)
    output: str | None = _option(None, "output file or directory; the managed cache", _text)
    steps: int = _option(2, "1: single terms, 2: pairs", _whole(1))
    beam: int = _option(300, "finalists kept from the search", _whole(10))
    max_features: int = _option(50, "features at most", _whole(1))
    min_features: int = _option(0, "features at least, marked if not significant", _whole(0))
    level: float = _option(0.05, "false-discovery level", _share)
    policy: str = _option(
        "auto", "how features are chosen: " + ", ".join(POLICIES), _choice(*POLICIES)
    )
    control: str = _option(
        "model",
        "model: keep every feature of a model that passes; features: only those that pass alone",
        _choice("model", "features"),
    )
    transformations: tuple[str, ...] = _option(
        TRANSFORMATION_NAMES[:7], "unary transforms, comma-separated", _transformations
    )
    windows: tuple[int, ...] = _option((5, 10, 20, 60), "window lengths in rows", _windows)
    include: tuple[str, ...] | None = _option(None, "columns to use; all numeric ones", _list)
    exclude: tuple[str, ...] | None = _option(None, "columns not to use", _list)
    extrapolate: str = _option(
        "clip", "clip: to the range of the fit; keep: as computed", _choice("clip", "keep")
    )
    originals: bool = _option(False, "write the original columns too", _flag)
    names: str = _option(
        "formula", "formula, or short: f001, f002, ...", _choice("formula", "short")
    )
    sort: str = _option("auto", "auto, or never: refuse unsorted rows", _choice("auto", "never"))
    overwrite: bool = _option(False, "replace an output that exists", _flag)
    directory: bool = _option(False, "write a directory of part files", _flag)
    threads: int | None = _option(None, "threads; the cores, at most 4", _whole(1))
    seed: int = _option(0, "of the hash that makes folds where there is no time", _whole(0))
    spill: str | None = _option(None, "directory for temporary files", _text)
    progress: bool | None = _option(None, "show progress; on a terminal or in a pipe", _flag)
    max_candidates: int | None = _option(None, "refuse to search more", _whole(1))


NAMES = tuple(f.name for f in fields(Options))


def resolve(
    keywords: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = Path(),
    config: Path | None = None,
) -> Options:
    """The options of all layers together.

    Parameters
    ----------
    keywords
        Given in the call; None counts as not given.
    environ
        None: the process's environment.
    directory
        Where streamfeat.toml and pyproject.toml are looked for; None: nowhere.
    config
        A TOML file to read instead.

    Raises
    ------
    OptionError
        If a name is unknown or a value is not understood, naming where it came from.
    """
    environ = os.environ if environ is None else environ
    made = Options()
    for origin, layer in (
        *_files(directory, config),
        ("the environment", _from_environment(environ)),
        ("", {name: value for name, value in keywords.items() if value is not None}),
    ):
        made = _merged(made, layer, origin)
    if made.min_features > made.max_features:
        raise OptionError(
            f"min_features={made.min_features} is more than max_features={made.max_features}"
        )
    return made


def _merged(options: Options, layer: Mapping[str, Any], origin: str) -> Options:
    known = {f.name: f.metadata["parse"] for f in fields(Options)}
    changes = {}
    for name, value in layer.items():
        if name not in known:
            raise _unknown(name, known, origin)
        try:
            changes[name] = known[name](name, value)
        except OptionError as error:
            if not origin:
                raise
            raise OptionError(f"{error.message} (from {origin})", hint=error.hint) from error
    return replace(options, **changes)


def _unknown(name: str, known: Sequence[str] | Mapping[str, Any], origin: str) -> OptionError:
    close = difflib.get_close_matches(name, list(known), n=1)
    place = f" in {origin}" if origin else ""
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return OptionError(f"no option is called {name!r}{place}", hint=hint)


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names = {PREFIX + name.upper(): name for name in NAMES}
    return {names[key]: value for key, value in environ.items() if key in names and value}


def _files(directory: Path | None, config: Path | None) -> list[tuple[str, Mapping[str, Any]]]:
    if config is not None:
        if not config.exists():
            raise OptionError(f"config file {config} does not exist")
        return [(str(config), _toml(config))]
    if directory is None:
        return []
    own, project = directory / "streamfeat.toml", directory / "pyproject.toml"
    if own.exists():
        return [(str(own), _toml(own))]
    if project.exists():
        return [(str(project), _toml(project).get("tool", {}).get("streamfeat", {}))]
    return []


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise OptionError(f"{path} is no TOML file: {error}") from error
