"""Runs the rules: on a throwaway PostgreSQL, migrated and filled, or on an existing one, read only."""

import importlib
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Protocol, TypeAlias

try:
    import pglast as _  # noqa: F401 - before what needs it
except ModuleNotFoundError as missing:
    raise ImportError(f"no module {missing.name}: pip install 'catbird-db[check]'") from None

import psycopg

from ..embedded import start_server
from ..errors import InvalidArgumentError
from ..migrate import apply, migrations_dir
from ..query import Bound, bound
from . import (
    actor,
    columns,
    database,
    drift,
    hygiene,
    idle,
    meaning,
    migrations,
    nullability,
    parameters,
    plans,
    refused,
    tenancy,
)
from .database import (
    Connection,
    connect,
    connect_read_only,
    examine,
    read_catalog,
    throwaway,
)
from .docs import queries_markdown
from .fill import fill
from .finding import Finding
from .plan import generic_plan, plan_alone
from .subject import Catalog, Subject
from .syntax import kind_of_node

Check: TypeAlias = Callable[[Subject, Catalog], Iterator[Finding]]


class Progress(Protocol):
    """Called with what is done next; with how much of it is done, and of how much, where that is known."""

    def __call__(self, step: str, done: int = 0, total: int | None = None, /) -> None: ...


def _silent(step: str, done: int = 0, total: int | None = None, /) -> None:
    """No progress is told."""


Examined: TypeAlias = tuple[Subject, Finding | None]

_CHECKS: tuple[Check, ...] = (
    parameters.check,
    columns.check,
    nullability.check,
    tenancy.check,
    actor.check,
    hygiene.check,
    idle.check,
    refused.check,
)
"""What the statement, what PostgreSQL says of it, and the catalog are enough for."""

_OF_FILES = (drift.RULE, "destructive", "squawk")
_OF_STATEMENTS = (
    database.RULE,
    refused.RULE,
    parameters.RULE,
    columns.RULE,
    nullability.RULE,
    tenancy.RULE,
    actor.RULE,
    meaning.RULE,
    plans.RULE,
    *hygiene.RULES,
    idle.RULE,
)
RULES: tuple[str, ...] = (drift.RULE, *_OF_STATEMENTS, *migrations.RULES)

_NEED_A_THROWAWAY = {
    plans.RULE: "plans are read from tables that check fills",
    "index-unused": "plans are read from tables that check fills",
}
_IN_PART = {
    "migration": "up, down and up again needs an empty database; its files were read",
    "destructive": "guards are run on tables that check fills; its files were read",
}


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        findings: sorted by file and line.
        statements: how many were examined.
        rules_run: the ids of the rules.
        skipped: what was not examined, or not all of it, and why.
        seconds: how long it took, the start of a server not counted.
    """

    findings: tuple[Finding, ...]
    statements: int
    rules_run: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Place:
    """A migrated database to ask.

    ``filled``: its tables hold what a planner must see. ``meanings``: what all statements of the
    package hold columns against; None where one is looked at alone. ``acting``: the parameters that
    act in some of them. ``examined``: statements that were prepared already.
    """

    connection: Connection
    catalog: Catalog
    filled: bool
    meanings: meaning.Meanings | None = None
    acting: frozenset[str] = frozenset()
    examined: Mapping[Bound, Examined] = field(default_factory=dict[Bound, Examined])

    def examine(self, statement: Bound) -> Examined:
        """As `database.examine`."""
        return self.examined.get(statement) or examine(self.connection, statement)


def run(
    *,
    database_url: str | None = None,
    rules: Collection[str] | None = None,
    package: str = "catbird_db",
    progress: Progress = _silent,
) -> Report:
    """Check the stubs, the SQL and the migrations of a package.

    Args:
        database_url: an existing, migrated database, which is only read. Without one, a throwaway
            is started, migrated and filled.
        rules: ids of `RULES`; all of them by default.
        package: one with ``sql/``; its ``migrations/``, if it has any, come after the shipped ones.
        progress: called with what is done next.

    Raises:
        InvalidArgumentError: there is no such rule, or the package has no SQL.
        DatabaseConnectionError: no server starts, or answers at the URL.
    """
    chosen = _chosen(rules)
    started, waited = time.perf_counter(), 0.0
    progress("importing")
    found = [*drift.check(package)]
    folders = _folders(package)
    files = migrations.read(folders[-1:])
    if chosen & {*migrations.RULES}:
        progress("reading migrations")
        found += migrations.check(files)
    if chosen - {*_OF_FILES}:
        progress("starting PostgreSQL")
        before = time.perf_counter()
        with _database(database_url) as url:
            waited = time.perf_counter() - before
            found += _ask(url, package, folders, chosen, database_url is not None, progress)
            waited -= time.perf_counter()
        waited += time.perf_counter()  # until it is stopped
    skipped = {} if database_url is None else _NEED_A_THROWAWAY
    left_out = {} if database_url is None else _NEED_A_THROWAWAY | _IN_PART
    return Report(
        findings=tuple(sorted({one for one in found if one.rule in chosen})),
        statements=len(bound(package)),
        rules_run=tuple(rule for rule in RULES if rule in chosen and rule not in skipped),
        skipped=tuple(
            f"{rule}: {left_out[rule]}" for rule in RULES if rule in left_out and rule in chosen
        ),
        seconds=time.perf_counter() - started - waited,
    )


def _chosen(rules: Collection[str] | None) -> set[str]:
    for rule in rules or ():
        if rule not in RULES:
            like = get_close_matches(rule, RULES, n=1) or [", ".join(RULES)]
            raise InvalidArgumentError(f"there is no rule {rule}; write {like[0]}")
    return {*(rules or RULES)}


def _folders(package: str) -> list[Path]:
    """The folders of a package's migrations, and of those that it builds on."""
    own = Path(importlib.import_module(package).__file__ or "").parent / "migrations"
    return list(dict.fromkeys([migrations_dir(), own] if own.is_dir() else [migrations_dir()]))


@contextmanager
def _database(database_url: str | None) -> Generator[str]:
    if database_url is not None:
        yield database_url
        return
    with start_server() as server:
        yield server.url


def _ask(
    url: str,
    package: str,
    folders: Sequence[Path],
    chosen: set[str],
    existing: bool,
    progress: Progress,
) -> Iterator[Finding]:
    """All that a database is asked."""
    if not existing:
        progress("migrating up, down, up")
        thoroughly = bool(chosen & {"migration", "destructive"})
        wrong = _migrate(url, folders, thoroughly=thoroughly)
        yield from wrong
        if any(one.message.startswith(migrations.REFUSED) for one in wrong):
            return
    if existing and not migrations.is_migrated(url, folders):
        raise InvalidArgumentError(
            "this database has not all migrations: run 'catbird-db migrate' there, or check without it"
        )
    if not existing and chosen & _NEED_A_THROWAWAY.keys():
        opened = filled(url, progress)
    else:
        opened = _as_it_is(url)
    with opened as place:
        statements = bound(package)
        if chosen & {*_OF_STATEMENTS}:
            place = compared(place, statements)
            for number, one in enumerate(statements, start=1):
                progress(one.statement.label, number, len(statements))
                yield from check_statement(place, one)
        files = migrations.read(folders)
        yield from migrations.check_declared(place.catalog, files)
        if chosen & {"index-unused", "index-prefix"}:
            progress("indexes")
            used = used_indexes(place, bound()) if place.filled else None  # by any package
            yield from migrations.check_indexes(place.connection, place.catalog, used, files)


def _migrate(url: str, folders: Sequence[Path], *, thoroughly: bool) -> list[Finding]:
    with redirect_stdout(StringIO()):  # yoyo prints what a SELECT in a migration gives
        if thoroughly:
            return [*migrations.round_trip(url, folders)]
        for folder in folders:
            apply(url, directory=folder)
        return []


@contextmanager
def filled(url: str, progress: Progress = _silent) -> Generator[Place]:
    """A migrated throwaway, its tables filled."""
    with connect(url) as connection:
        catalog = read_catalog(connection)
        progress("filling tables")
        fill(connection, catalog)
        yield Place(connection, catalog, filled=True)


@contextmanager
def _as_it_is(url: str) -> Generator[Place]:
    with connect_read_only(url) as connection:
        yield Place(connection, read_catalog(connection), filled=False)


def check_statement(place: Place, statement: Bound) -> Iterator[Finding]:
    """All that the rules say of one statement."""
    subject, refused = place.examine(statement)
    if refused is not None:
        yield refused
    elif kind_of_node(subject.tree) not in _QUERIES:
        yield from hygiene.check(subject, place.catalog)
    else:
        for check in _CHECKS:
            yield from check(subject, place.catalog)
        yield from actor.check_silence(subject, place.acting)
        if place.meanings is not None:
            yield from place.meanings.check(subject)
        try:
            if place.filled:
                yield from plans.check(place.connection, subject, place.catalog)
            else:
                plan_alone(place.connection, subject.statement.sql)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:  # what PREPARE does not look at, as ON CONFLICT's target
            says = error.diag.message_primary or error
            message = f"PostgreSQL prepares this, but does not plan it: {says}"
            mend = _ARBITER if "ON CONFLICT" in message else "what the planner can evaluate"
            yield subject.at_header("name", database.RULE, message, mend)


_ARBITER = "what the schema has: ON CONFLICT names the columns of a unique index"
_QUERIES = ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")


def compared(place: Place, statements: Iterable[Bound]) -> Place:
    """The same place, where each statement is looked at beside the others."""
    examined = {one: examine(place.connection, one) for one in statements}
    prepared = [subject for subject, _ in examined.values() if subject.described is not None]
    return replace(
        place,
        meanings=meaning.Meanings(prepared, place.catalog),
        acting=actor.acting(prepared),
        examined=examined,
    )


def used_indexes(place: Place, statements: Iterable[Bound]) -> frozenset[str]:
    """Those that a plan uses, or that a header allows."""
    found: set[str] = set()
    for statement in statements:
        found.update(statement.statement.index)
        subject, _ = place.examine(statement)
        if subject.described is None:
            continue
        try:
            plan = generic_plan(
                place.connection, subject.statement.sql, subject.described, place.catalog, "index"
            )
        except psycopg.Error:  # `prepare` says so
            continue
        found.update(plan.arbiters)
        found.update(access.index for scan in plan.scans for access in scan.accesses)
    return frozenset(found)


def queries_document(*, progress: Progress = _silent) -> str:
    """The text of docs/queries.md, from a throwaway."""
    progress("starting PostgreSQL")
    with throwaway() as url, filled(url, progress) as place:
        subjects = (examine(place.connection, one)[0] for one in bound())
        return queries_markdown(place.connection, subjects, place.catalog)
