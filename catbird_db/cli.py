"""The `catbird-db` command. Each subcommand imports what it needs, so that `--help` is quick."""

import io
import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from rich.table import Table

from .check.command import register as register_check
from .config import Settings
from .errors import DatabaseError, DestructiveMigrationError, StorageError
from .storage_commands import register as register_storage
from .terminal import AsJson, Bar, DatabaseUrl, bar, database, err, fail, on_pool, out, spinner

__all__ = ["app", "main"]

WOULD_LOSE_DATA = 3
INTERRUPTED = 130  # what a shell reports for Ctrl-C

app = typer.Typer(
    name="catbird-db",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
register_check(app)
register_storage(app)


def main() -> None:
    """Run the command; what goes wrong with the database is one line, and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ✓ gets a ?
    try:
        app(prog_name="catbird-db")
    except (DatabaseError, StorageError) as error:
        fail(str(error))


@app.callback(invoke_without_command=True)
def catbird_db(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """The PostgreSQL data layer of an end-to-end-encrypted workspace server.

    New here? [bold]catbird-db demo[/] needs no database: it brings its own.

    Exit status: 0 where all is well; 1 where something is not; 2 for a command that cannot be
    understood; 3 where a migration would lose data and is not named.
    """
    if version:
        from importlib.metadata import version as version_of

        out.print(f"catbird-db {version_of('catbird-db')}")
        raise typer.Exit


@app.command()
def demo() -> None:
    """Watch MLS clients hold a conversation on a throwaway PostgreSQL, each promise checked."""
    try:
        from .demo import run
    except ImportError as missing:
        fail(str(missing))
    try:
        kept = run(out)
    except KeyboardInterrupt:
        err.print("Stopped. The server goes, and its data with it.")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if kept else 1)


@app.command()
def up(
    memory: Annotated[
        bool, typer.Option("--memory", help="Empty, and thrown away at the end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the user's own PostgreSQL, migrated, and stay until Ctrl-C.

    Programs with DATABASE_TYPE=embedded share it, and start it where it is not running. With
    DATABASE_TYPE=memory it is as with --memory.
    """
    import signal

    from .embedded import start_server, user_data_dir
    from .migrate import apply

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    memory = memory or Settings().database_type == "memory"
    try:
        with spinner("starting PostgreSQL"):
            server = start_server(None if memory else user_data_dir())
        with server:
            with spinner("migrating"):
                apply(server.url)
            if as_json:
                told = {"database_url": server.url, "directory": str(server.directory)}
                typer.echo(json.dumps(told))
            else:
                out.print(
                    "PostgreSQL is up. Ctrl-C stops it, unless others use it.", soft_wrap=True
                )
                out.print(f"export DATABASE_URL='{escape(server.url)}'", soft_wrap=True)
            sys.stdout.flush()
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
def migrate(
    database_url: DatabaseUrl = None,
    allow_destructive: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="This migration may lose data; more than once: these."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply the migrations that the database does not have yet.

    Where one of them would lose data and is not named, none is applied: exit status 3. Where the
    database has some that this version does not know, it says so: exit status 1.
    """
    from .migrate import apply, say_newer
    from .migrate import status as migration_status

    steps = _Steps("applied", silent=as_json)
    unknown: list[str] = []
    try:
        with database(database_url) as url, steps.shown():
            found = migration_status(url)
            steps.total, unknown = len(found.pending), found.unknown
            applied = apply(url, allow_destructive=allow_destructive or (), on_step=steps.begin)
    except DatabaseError as error:
        losses = error.losses if isinstance(error, DestructiveMigrationError) else {}
        if as_json:
            told = {"applied": steps.done, "would_lose": losses, "unknown": unknown}
            typer.echo(json.dumps({**told, "error": str(error)}))
        if not losses:
            raise
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(WOULD_LOSE_DATA) from None
    if as_json:
        typer.echo(json.dumps({"applied": applied, "would_lose": {}, "unknown": unknown}))
    elif not applied and not unknown:
        out.print("Nothing to apply: the database is up to date.")
    if unknown:
        fail(say_newer(unknown))


@app.command()
def rollback(
    database_url: DatabaseUrl = None,
    count: Annotated[int, typer.Option(min=1, help="How many migrations, latest first.")] = 1,
    to: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Instead: the one that is to be the last applied."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Roll back the latest migrations, with the data that they hold: it says how many rows, and asks."""
    from .migrate import find_rollback_losses
    from .migrate import rollback as roll_back
    from .migrate import status as migration_status

    with database(database_url) as url:
        if not yes:
            applied = migration_status(url).applied
            doomed = applied[-count:] if to is None else applied[_place(to, applied) :]
            if doomed:
                lost = find_rollback_losses(url, doomed)
                told = f"This loses {', '.join(lost)}. " if lost else ""
                typer.confirm(
                    f"{told}Roll back {', '.join(reversed(doomed))}, with all data?", abort=True
                )
        rolled_back = roll_back(url, count=count, target=to)
    for migration in rolled_back:
        out.print(f"rolled back  {migration}")
    if not rolled_back:
        out.print("Nothing to roll back.")


@app.command()
def status(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show the health of the database and its migrations; exit status 0 only if all is well."""
    from .health import health_check

    with database(database_url) as url:
        # No connection beforehand: one that fails is a finding of the health check.
        health = on_pool(Settings(database_url=url, db_pool_min_size=0), health_check)
    if as_json:
        typer.echo(health.model_dump_json(indent=2))
    else:
        _show(
            health.status,
            {
                "PostgreSQL": health.server_version,
                "round trip": _milliseconds(health.latency_seconds),
            },
            {
                **dict.fromkeys(health.applied, "applied"),
                **dict.fromkeys(health.pending, "[yellow]pending[/]"),
                **dict.fromkeys(health.unknown, "[red]unknown to this version[/]"),
            },
            health.problems,
        )
    raise typer.Exit(0 if health.status == "ok" else 1)


@app.command()
def backups(
    database_url: DatabaseUrl = None,
    delete_expired: Annotated[
        bool, typer.Option("--delete-expired", help="Delete those whose time is over.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the backups of tables that migrations took before they lost data."""
    import psycopg

    from .backup import delete_expired_backups, list_backups
    from .migrate import connection_parameters

    with database(database_url) as url:
        try:
            with psycopg.connect(**connection_parameters(url), autocommit=True) as connection:
                deleted = delete_expired_backups(connection) if delete_expired else []
                kept = list_backups(connection)
        except psycopg.Error as error:
            fail(str(error))
    if as_json:
        listed = [
            {
                **vars(one),
                "taken_at": one.taken_at.isoformat(),
                "expires_at": one.expires_at.isoformat(),
            }
            for one in kept
        ]
        typer.echo(json.dumps({"deleted": deleted, "backups": listed}, indent=2))
        return
    for name in deleted:
        out.print(f"deleted  {name}")
    table = Table("backup", "of", "rows", "expires", box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for one in kept:
        table.add_row(
            one.name, one.table, f"{one.row_count:,}", f"{one.expires_at:%Y-%m-%d %H:%M %Z}"
        )
    out.print(table if kept else "No backups.")
    for statement in (statement for one in kept for statement in one.left_out):
        out.print(f"left out until the other table is there: {statement}", markup=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def psql(context: typer.Context, database_url: DatabaseUrl = None) -> None:
    """Open psql on the database. What follows is psql's: catbird-db psql -c 'SELECT 1'."""
    import os
    import shutil
    import signal
    import subprocess

    from psycopg.conninfo import make_conninfo

    from .embedded import find_binaries
    from .migrate import connection_parameters

    with database(database_url) as url:
        parameters = connection_parameters(url)
        password = parameters.pop("password", None)  # arguments are for all to see
        signal.signal(signal.SIGINT, _ignore)  # Ctrl-C is for psql
        done = subprocess.run(
            [
                shutil.which("psql") or str(find_binaries() / "psql"),
                make_conninfo(**parameters),
                *context.args,
            ],
            env={**os.environ, **({"PGPASSWORD": password} if password else {})},
            check=False,
        )
    raise typer.Exit(done.returncode)


def _show(
    verdict: str, facts: dict[str, str | None], migrations: dict[str, str], problems: list[str]
) -> None:
    colour = {"ok": "green", "degraded": "yellow"}.get(verdict, "red")
    told = [f"{name} {value}" for name, value in facts.items() if value]
    out.print(", ".join([f"[bold {colour}]{verdict}[/]", *told]))
    for problem in problems:
        out.print(f"[{colour}]{escape(problem)}[/]")
    if migrations:
        table = Table("migration", "state", box=None, padding=(0, 3, 0, 0), pad_edge=False)
        for migration, state in sorted(migrations.items()):
            table.add_row(migration, state)
        out.print("", table, sep="\n")


def _ignore(*_: object) -> None:
    """A handler, where SIG_IGN would be inherited."""


class _Steps:
    """Lines that say what is done and how long it took; a bar for what is being done."""

    def __init__(self, done: str, *, silent: bool = False) -> None:
        self.done: list[str] = []
        self.total = 0
        self._done = done
        self._silent = silent
        self._current: str | None = None
        self._since = 0.0
        self._tell: Bar | None = None

    @contextmanager
    def shown(self) -> Generator[None]:
        with bar("connecting", console=out, silent=self._silent) as self._tell:
            try:
                yield
                self._end(self._done)
            except BaseException:
                self._end("[red]failed[/]")
                raise

    def begin(self, step: str) -> None:
        self._end(self._done)
        self._current, self._since = step, time.perf_counter()
        if self._tell:
            self._tell(f"applying {step}", len(self.done), self.total)

    def _end(self, how: str) -> None:
        if self._current is not None:
            if how == self._done:
                self.done.append(self._current)
            took = _milliseconds(time.perf_counter() - self._since)
            if not self._silent:
                out.print(f"{how}  {self._current}  [dim]{took}[/]")
        self._current = None


def _place(last: str, applied: list[str]) -> int:
    """Where those begin that were applied after ``last``; behind the end if it is none of them."""
    return applied.index(last) + 1 if last in applied else len(applied)


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:,.1f} ms"
