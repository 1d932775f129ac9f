"""A run from source to result, in numbered steps.

1. open the source, infer roles, say so (``_open``);
2. refuse what cannot work: target, output, budget (``_prepare``);
3. bring rows into canonical order (``_order``);
4. search and choose (``_search``);
5. write the chosen features (``_materialise``).
This module does *not* cover: any of these in itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamfeat.errors import NoUsableColumnsError, RecipeError
from streamfeat.evaluate.program import Program
from streamfeat.evaluate.scan import Scanner
from streamfeat.materialise.driver import Written, output_schema, write_features
from streamfeat.materialise.writer import ROW_GROUP_ROWS, OutputWriter, check_output
from streamfeat.memory.allocator import reserve_bytes
from streamfeat.memory.models import AllocationPlan
from streamfeat.memory.probe import process_bytes
from streamfeat.pipeline.findings import facts_of, recipe_of
from streamfeat.pipeline.options import Options, resolve
from streamfeat.pipeline.recipe import METADATA_KEY, Recipe
from streamfeat.pipeline.result import FeatureTable, Rejected, RunReport
from streamfeat.pipeline.resume import VERSION, SearchNote, cached_output, search_key
from streamfeat.pipeline.session import Session
from streamfeat.pipeline.sizing import Shape, allocation, moments_allowance
from streamfeat.plan.candidates import Term
from streamfeat.search.run import Found, Settings, count_candidates, grammar, search
from streamfeat.search.target import Target, resolve_target, target_column
from streamfeat.sources.opening import open_source
from streamfeat.sources.order import order_source
from streamfeat.sources.roles import Roles, infer_roles
from streamfeat.sources.source import Source

_KEY_BYTES = 16
"""Of a row's time and target, where they are numbers."""


@dataclass(frozen=True)
class Opened:
    """A source whose roles are known and whose plan fits the budget."""

    source: Source
    roles: Roles
    target: Target
    terms: tuple[Term, ...]
    settings: Settings
    plan: AllocationPlan


@dataclass(frozen=True)
class RunPlan:
    """What a run would do, before any work: roles, candidates, passes, memory."""

    source: str
    n_rows: int
    roles: str
    target: str
    n_terms: int
    n_candidates: int
    passes: tuple[str, ...]
    allocation: AllocationPlan

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {**self.__dict__, "allocation": self.allocation.to_dict()}

    def __str__(self) -> str:
        lines = [
            f"source      {self.source}: {self.n_rows:,} rows",
            f"roles       {self.roles}",
            f"target      {self.target}",
            f"candidates  {self.n_candidates:,} from {self.n_terms:,} terms",
            "passes",
            *(f"  {k}. {text}" for k, text in enumerate(self.passes, 1)),
            "memory",
            self.allocation.table(),
        ]
        return "\n".join(lines)


def fit_transform(source: Any, keywords: Mapping[str, Any]) -> FeatureTable:
    """Search, choose and write; see ``streamfeat.fit_transform``."""
    options = resolve(keywords)
    with Session(options) as session:
        if options.output is not None:
            check_output(Path(options.output), overwrite=options.overwrite)
        opened, ordered = _order(_open(source, session), session)
        path = _output_path(options, opened, ordered)
        recipe, facts = _search(opened, ordered, session, path)
        return _materialise(recipe, facts, opened, ordered, session, path)


def fit(source: Any, keywords: Mapping[str, Any]) -> Recipe:
    """Search and choose; see ``streamfeat.fit``."""
    with Session(resolve(keywords)) as session:
        opened, ordered = _order(_open(source, session), session)
        found = _found(opened, ordered, session)
        recipe = _chosen(found, opened, session)
        report = _report(
            session,
            opened.source,
            opened.roles,
            opened.plan,
            level=opened.settings.level,
            **facts_of(found),
        )
        return replace(recipe, report=report)


def explain(source: Any, keywords: Mapping[str, Any]) -> RunPlan:
    """What a run would do; see ``streamfeat.explain``."""
    with Session(resolve(keywords)) as session:
        opened = _open(source, session)
        return RunPlan(
            source=opened.source.name,
            n_rows=opened.source.n_rows,
            roles=opened.roles.announce(),
            target=opened.target.text,
            n_terms=len(opened.terms),
            n_candidates=count_candidates(len(opened.terms), opened.settings.steps),
            passes=_pass_names(opened.roles),
            allocation=opened.plan,
        )


def _pass_names(roles: Roles) -> tuple[str, ...]:
    order = ("check the order of rows; sort out of core if they are not in it",)
    blocks = ("lay out the time blocks",)
    return (
        *(order if roles.time else ()),
        "look at the target",
        *(blocks if roles.time else ()),
        "screen all pairs",
        "fit the first beam",
        "screen the residual",
        "Grams of the finalists",
        "write the features",
    )


def _open(source: Any, session: Session) -> Opened:
    options = session.options
    opened = open_source(source, spill=session.spill)
    column = target_column(opened, options.target)
    roles = infer_roles(
        opened,
        target_column=column,
        time=options.time,
        group=options.group,
        bars=options.bars,
    )
    roles = _included(opened, roles, options)
    session.announce(f"{opened.name}: {opened.n_rows:,} rows; {roles.announce()}")
    target = resolve_target(opened, roles, options.target)
    settings = _settings(options)
    terms = grammar(roles, settings)
    n_candidates = count_candidates(len(terms), settings.steps)
    session.announce(f"target {target.text}; {n_candidates:,} candidates from {len(terms)} terms")
    shape = _shape(opened, [t.expr.lookback for t in terms], len(terms), options, session, target)
    plan = allocation(shape, budget_bytes=session.budget.nbytes)
    session.follow(plan)
    settings = replace(settings, allowance_bytes=moments_allowance(plan, shape))
    return Opened(opened, roles, target, terms, settings, plan)


def _included(source: Source, roles: Roles, options: Options) -> Roles:
    for name in (*(options.include or ()), *(options.exclude or ())):
        source.column(name)
    kept = tuple(
        name
        for name in roles.numeric
        if (options.include is None or name in options.include)
        and name not in (options.exclude or ())
    )
    if not kept and roles.numeric:
        raise NoUsableColumnsError(
            "`include` and `exclude` leave no numeric column", hint="name at least one to keep"
        )
    return replace(roles, numeric=kept)


def _settings(options: Options) -> Settings:
    return Settings(
        transformations=options.transformations,
        windows=options.windows or (),
        steps=options.steps,
        beam=options.beam,
        max_features=options.max_features,
        min_features=options.min_features,
        level=options.level,
        policy=options.policy,
        control=options.control,
        seed=options.seed,
        task=options.task,
        max_candidates=options.max_candidates,
    )


def _shape(
    source: Source,
    lookbacks: list[int],
    n_terms: int,
    options: Options,
    session: Session,
    target: Target | None,
) -> Shape:
    plain = [c for c in source.columns if c.role_type in ("number", "timestamp")]
    numbers, width = len(plain), sum(c.arrow_type.bit_width / 8 for c in plain)
    return Shape(
        n_columns=numbers,
        n_terms=n_terms,
        n_finalists=options.beam + min(numbers, 100),
        n_outputs=target.n_outputs if target else 1,
        n_written=options.max_features + (numbers if options.originals else 0),
        lookback=max(lookbacks, default=0),
        threads=session.threads,
        row_group_rows=ROW_GROUP_ROWS,
        key_bytes_per_row=source.nbytes_per_row - width + _KEY_BYTES,
    )


def _order(opened: Opened, session: Session) -> tuple[Opened, Source]:
    """Rows in canonical order; where there turns out to be none, windows are left out."""
    ordered, roles = _ordered_source(
        opened.source,
        opened.roles,
        opened.plan,
        session,
        needs_order=opened.target.horizon > 0,
    )
    if roles != opened.roles:
        opened = replace(opened, roles=roles, terms=grammar(roles, opened.settings))
    return opened, ordered


def _ordered_source(
    source: Source, roles: Roles, plan: AllocationPlan, session: Session, *, needs_order: bool
) -> tuple[Source, Roles]:
    return order_source(
        source,
        roles,
        spill=session.spill,
        memory_bytes=session.budget.nbytes - process_bytes() - reserve_bytes(plan.budget_bytes),
        threads=session.threads,
        sort=session.options.sort,
        needs_order=needs_order,
        announce=session.announce,
    )


def _scanner(source: Source, roles: Roles, session: Session) -> Scanner:
    return Scanner(
        source=source,
        group=roles.group if roles.ordered else None,
        rows=session.rows,
        threads=session.threads,
        events=session.events,
    )


def _found(opened: Opened, ordered: Source, session: Session) -> Found:
    scanner = _scanner(ordered, opened.roles, session)
    return search(scanner, opened.roles, opened.target, opened.terms, opened.settings)


def _search(
    opened: Opened, ordered: Source, session: Session, path: Path
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the report's facts: of an interrupted run on the same source and options, or
    of a new search."""
    note = SearchNote(path, search_key(opened.source, session.options))
    if (earlier := note.read()) is not None:
        session.announce("the search was finished by an earlier run; going on from there")
        return earlier
    found = _found(opened, ordered, session)
    recipe = _chosen(found, opened, session)
    facts = facts_of(found)
    note.write(recipe, facts)
    return recipe, facts


def _chosen(found: Found, opened: Opened, session: Session) -> Recipe:
    return recipe_of(
        found,
        opened.source,
        opened.roles,
        level=opened.settings.level,
        short=session.options.names == "short",
    )


def _output_path(options: Options, opened: Opened, ordered: Source) -> Path:
    if options.output is not None:
        return Path(options.output)
    return cached_output(search_key(opened.source, options))


def _written_keys(source: Source, keys: Sequence[str], target: str | None) -> list[str]:
    names = {column.name for column in source.columns}
    return [name for name in dict.fromkeys((*keys, target)) if name is not None and name in names]


def _materialise(
    recipe: Recipe,
    facts: dict[str, Any],
    opened: Opened,
    ordered: Source,
    session: Session,
    path: Path,
) -> FeatureTable:
    keys = _written_keys(ordered, recipe.keys, recipe.target)
    scanner = _scanner(ordered, opened.roles, session)
    written, resumed = _write(recipe, keys, scanner, opened.source, session, path)
    SearchNote(path, "").remove()
    report = _report(
        session,
        opened.source,
        opened.roles,
        opened.plan,
        level=opened.settings.level,
        nulls=written.nulls,
        clipped=written.clipped,
        resumed_row=resumed,
        **facts,
    )
    return FeatureTable(path, replace(recipe, report=report), report)


def _write(
    recipe: Recipe,
    keys: list[str],
    scanner: Scanner,
    original: Source,
    session: Session,
    path: Path,
) -> tuple[Written, int]:
    options = session.options
    exprs = dict(recipe.exprs)
    ranges = recipe.ranges if options.extrapolate == "clip" else {}
    taken = {*keys, *exprs}
    kept = [c.name for c in original.columns if options.originals and c.name not in taken]
    columns = [*keys, *kept]
    text = recipe.to_json()
    run_key = hashlib.sha256(
        json.dumps([original.fingerprint(), text, columns, options.extrapolate, VERSION]).encode()
    ).hexdigest()
    with OutputWriter(
        path,
        schema=output_schema(scanner.source, columns, exprs),
        run_key=run_key,
        metadata={METADATA_KEY: text},
        overwrite=options.overwrite or options.output is None,
        directory=options.directory,
    ) as writer:
        resumed = writer.resume_row
        if resumed:
            session.announce(f"rows up to {resumed:,} were written by an earlier run")
        written = write_features(scanner, exprs, columns, writer, ranges=ranges)
        writer.commit()
    return written, resumed


def _report(
    session: Session, source: Source, roles: Roles, plan: AllocationPlan, **facts: Any
) -> RunReport:
    rejected = tuple(Rejected(**entry) for entry in facts.pop("rejected", ()))
    facts["leaks"] = tuple(facts.get("leaks", ()))
    if facts["leaks"]:
        session.announce(f"leakage? {', '.join(facts['leaks'])} equals the target")
    return RunReport(
        source=source.name,
        roles=roles.announce(),
        n_rows=source.n_rows,
        seconds=session.seconds,
        peak_bytes=session.peak_bytes,
        budget_bytes=session.budget.nbytes,
        budget_origin=session.budget.origin,
        threads=session.threads,
        allocation=plan,
        passes=tuple(session.passes),
        n_resizes=len(session.resizes),
        rejected=rejected,
        **facts,
    )


def transform(
    recipe: Recipe, source: Any, keywords: Mapping[str, Any], *, carry: Sequence[str] = ()
) -> FeatureTable:
    """Compute a recipe's features on new data; see ``Recipe.transform``.

    ``carry`` names columns to be written besides the keys.
    """
    options = resolve(keywords)
    with Session(options) as session:
        if options.output is not None:
            check_output(Path(options.output), overwrite=options.overwrite)
        opened = open_source(source, spill=session.spill)
        _check_inputs(recipe, opened)
        roles = infer_roles(opened, target_column=None, time=recipe.time, group=recipe.group)
        program = Program(list(recipe.exprs.values()))
        shape = _shape(opened, [program.lookback], 0, options, session, None)
        plan = allocation(
            replace(shape, n_finalists=0, n_written=len(program)),
            budget_bytes=session.budget.nbytes,
        )
        session.follow(plan)
        ordered, roles = _ordered_source(
            opened, roles, plan, session, needs_order=_has_windows(recipe)
        )
        text = opened.fingerprint() + options.extrapolate + recipe.to_json()
        key = hashlib.sha256(text.encode()).hexdigest()
        path = Path(options.output) if options.output is not None else cached_output(key)
        keys = _written_keys(ordered, (*recipe.keys, *carry), recipe.target)
        scanner = _scanner(ordered, roles, session)
        written, resumed = _write(recipe, keys, scanner, opened, session, path)
        report = _report(
            session, opened, roles, plan,
            nulls=written.nulls, clipped=written.clipped, resumed_row=resumed,
        )  # fmt: skip
        return FeatureTable(path, recipe, report)


def _has_windows(recipe: Recipe) -> bool:
    return any(expr.kind != "row" for expr in recipe.exprs.values())


def _check_inputs(recipe: Recipe, source: Source) -> None:
    kinds = {column.name: column.role_type for column in source.columns}
    for name in (*recipe.keys, *recipe.inputs):
        if name not in kinds:
            raise RecipeError(
                f"{source.name} has no column {name!r}, which the recipe needs",
                hint="rename the column, or fit again",
            )
    for name, kind in recipe.inputs.items():
        if kinds[name] != kind:
            raise RecipeError(
                f"column {name!r} of {source.name} is {kinds[name]}; the recipe was made with "
                f"{kind}",
                hint="convert the column, or fit again",
            )
