"""The ``streamfeat`` command.

This module covers: commands, flags made from the options, exit codes, and what goes to stdout.
This module does *not* cover: any work; each command is one call of the library.

stdout carries the result, stderr progress and errors. Exit codes: 0 done; 1 a bug; 2 usage;
3 input; 4 corrupt data; 5 the budget cannot hold; 6 output; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

SCHEMA_VERSION = 1


class Failure(click.ClickException):
    """One of the library's errors, with its exit code."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.exit_code = int(getattr(error, "exit_code", 1))  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


def _guarded(work: Callable[[], Any]) -> Any:
    """Run ``work``; the library's errors become messages, others are bugs."""
    from streamfeat.errors import StreamFeatError

    try:
        return work()
    except StreamFeatError as error:
        raise Failure(error) from error
    except KeyboardInterrupt:
        click.echo("interrupted; a rerun goes on from the last finished span", err=True)
        sys.exit(130)
    except click.ClickException:
        raise
    except Exception as error:
        if os.environ.get("STREAMFEAT_DEBUG"):
            raise
        click.echo(
            f"error: {type(error).__name__}: {error}\n\nHint: this is a bug; set "
            "STREAMFEAT_DEBUG=1 for its traceback",
            err=True,
        )
        sys.exit(1)


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _flags(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Flags for the options called ``names``; all of them if none is."""
    from dataclasses import fields

    from streamfeat.pipeline.options import Options

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--config", type=click.Path(path_type=Path), help="TOML file of options"
        )(command)
        command = click.option("--json", "as_json", is_flag=True, help="print JSON")(command)
        for option in reversed(fields(Options)):
            if names and option.name not in names:
                continue
            flag = "--" + option.name.replace("_", "-")
            is_flag = isinstance(option.default, bool) or option.name == "progress"
            command = click.option(
                f"{flag}/--no-{option.name}" if is_flag else flag,
                option.name,
                default=None,
                help=option.metadata["help"],
            )(command)
        return command

    return decorate


def _options(given: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Flags, environment and files, checked and merged."""
    from streamfeat.pipeline.options import resolve

    made = resolve(given, config=config)
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def _print(data: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **data}, default=str))
    else:
        click.echo(text)


def _source(sources: tuple[str, ...]) -> str | list[str]:
    return sources[0] if len(sources) == 1 else list(sources)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamfeat")
def main() -> None:
    """Automated feature engineering on data that does not fit in memory.

    Every option can also stand in ./streamfeat.toml, in [tool.streamfeat] of ./pyproject.toml, or
    in a STREAMFEAT_* variable; a flag wins over a variable, a variable over a file.
    """
    signal.signal(signal.SIGTERM, _terminated)


@main.command("fit-transform")
@click.argument("sources", nargs=-1, required=True)
@_flags()
def fit_transform(
    sources: tuple[str, ...], config: Path | None, as_json: bool, **given: Any
) -> None:
    """Search features of SOURCES, choose honestly, write the chosen ones."""
    import streamfeat as sf

    table = _guarded(lambda: sf.fit_transform(_source(sources), **_options(given, config)))
    _print(table.to_dict(), str(table), as_json)


@main.command()
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--recipe", "recipe_path", type=click.Path(path_type=Path), help="where to save the recipe"
)
@_flags()
def fit(
    sources: tuple[str, ...],
    recipe_path: Path | None,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Search and choose; print or save the recipe, write no features."""
    import streamfeat as sf

    recipe = _guarded(lambda: sf.fit(_source(sources), **_options(given, config)))
    if recipe_path is not None:
        _guarded(lambda: recipe.save(recipe_path))
    data = {"recipe": json.loads(recipe.to_json()), "report": recipe.report.to_dict()}
    _print(data, f"{recipe.report}\n\n{recipe}", as_json)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True)
@_flags(
    "memory", "output", "overwrite", "directory", "threads", "sort", "spill", "progress",
    "originals",
)  # fmt: skip
def transform(
    recipe: Path, sources: tuple[str, ...], config: Path | None, as_json: bool, **given: Any
) -> None:
    """Compute the features of RECIPE (its JSON, or an output) on SOURCES."""
    import streamfeat as sf

    def work() -> Any:
        options = _options(given, config)
        chosen = {name: options[name] for name in given}
        return sf.load(recipe).transform(_source(sources), **chosen)

    table = _guarded(work)
    _print(table.to_dict(), str(table), as_json)


@main.command()
@click.argument("sources", nargs=-1, required=True)
@_flags()
def plan(sources: tuple[str, ...], config: Path | None, as_json: bool, **given: Any) -> None:
    """Show roles, candidates, passes, and where every byte of the budget goes; run nothing."""
    import streamfeat as sf

    given["progress"] = False
    made = _guarded(lambda: sf.explain(_source(sources), **_options(given, config)))
    _print(made.to_dict(), str(made), as_json)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["sql", "polars", "json"]), default="sql")
@click.option("--relation", default="source", help="what the SQL selects from")
def export(recipe: Path, form: str, relation: str) -> None:
    """Print RECIPE as DuckDB SQL, as Polars code, or as JSON."""
    import streamfeat as sf

    loaded = _guarded(lambda: sf.load(recipe))
    made = {
        "sql": lambda: loaded.to_sql(relation=relation),
        "polars": loaded.to_polars,
        "json": loaded.to_json,
    }
    click.echo(_guarded(made[form]))


if __name__ == "__main__":
    main()
